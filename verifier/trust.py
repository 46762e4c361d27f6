"""What an operator decided to trust for EK certificates: the files and folders the settings name, read at start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from verifier.crypto.anchors import TrustAnchors
from verifier.errors import EvidenceError, VerifierFault
from verifier.inventory.anchor_files import AnchorCollection, Rejected, read_anchors


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust anchors and revocation lists. `rejected` looked like one and cannot be used; say so loudly."""

    anchors: TrustAnchors
    crls: tuple[bytes, ...]
    rejected: tuple[Rejected, ...]


def load_trust(paths: Iterable[Path]) -> Trust:
    """Read and join all of them; see `verifier.inventory.anchor_files` for what is understood.

    Raises:
        VerifierFault: a path is missing, cannot be read, or holds nothing of use; trust is never guessed at.
    """
    anchors = TrustAnchors()
    crls: list[bytes] = []
    rejected: list[Rejected] = []
    for path in paths:
        found = _read(path)
        anchors |= found.anchors
        crls += found.crls
        rejected += found.rejected
    return Trust(anchors, tuple(crls), tuple(rejected))


def _read(path: Path) -> AnchorCollection:
    try:
        found = read_anchors(path)
    except OSError as error:
        raise VerifierFault(f"cannot read trust anchors {path}: {error.strerror or error}") from error
    except EvidenceError as error:
        raise VerifierFault(f"cannot read trust anchors {path}: {error}") from error
    if not path.is_dir() and not len(found.anchors) and not found.crls:
        why = "; ".join(one.problem for one in found.rejected) or "neither certificate nor revocation list"
        raise VerifierFault(f"cannot use {path} as trust anchor: {why}")
    return found
