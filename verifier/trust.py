"""What an operator decided to trust: the files and folders the settings name, read at start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from verifier.crypto.aia import FetchRules
from verifier.crypto.anchors import TrustAnchors
from verifier.errors import EvidenceError, VerifierFault
from verifier.inventory.anchor_files import AnchorCollection, Rejected, read_anchors
from verifier.inventory.issuer_fetch import HttpIssuers
from verifier.ports import Clock
from verifier.ports_trust import AnchorPurpose
from verifier.service.anchor_sets import AnchorSet
from verifier.service.issuers import IssuerFinder


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust anchors and revocation lists. `rejected` looked like one and cannot be used; say so loudly."""

    anchors: TrustAnchors
    crls: tuple[bytes, ...]
    rejected: tuple[Rejected, ...]

    @property
    def content(self) -> AnchorSet:
        """As the service takes it."""
        return AnchorSet(self.anchors, self.crls)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustFiles:
    """What the settings name, by what it may vouch for."""

    ek: Trust
    ak: Trust
    device: Trust

    @property
    def configured(self) -> Mapping[AnchorPurpose, AnchorSet]:
        """As the service takes it."""
        return {
            AnchorPurpose.EK: self.ek.content,
            AnchorPurpose.AK: self.ak.content,
            AnchorPurpose.DEVICE: self.device.content,
        }

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """What was left out."""
        return (*self.ek.rejected, *self.ak.rejected, *self.device.rejected)


def issuer_finder(
    hosts: Sequence[str], *, private: bool, timeout: timedelta, clock: Clock
) -> IssuerFinder | None:
    """Who looks for missing issuers; None where no host may be asked."""
    if not hosts:
        return None
    rules = FetchRules(frozenset(hosts), private)
    return IssuerFinder(HttpIssuers(private=private), rules, clock, timeout=timeout)


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
