"""Read policies from disk: a YAML file, or a folder with `policy.yaml` and `reference-values*.yaml` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from verifier.errors import EvidenceError, PolicyError, VerifierFault
from verifier.policy.dsse import PolicySigners, load_public_key
from verifier.policy.model import Policy
from verifier.policy.source import parse_source

SIGNED_SUFFIX: Final = ".dsse.json"


def read_policy_source(path: Path) -> bytes:
    """The bytes of one policy with its reference values, joined into one YAML stream.

    The joined bytes are what the revision is a digest of, so a changed reference value is a new revision.
    """
    if not path.is_dir():
        return read_file(path)
    main = path / "policy.yaml"
    parts = [read_file(main), *(read_file(each) for each in sorted(path.glob("reference-values*.yaml")))]
    return b"\n---\n".join(parts)


def find_policies(folder: Path) -> tuple[Path, ...]:
    """Every policy below `folder`: subfolders with a `policy.yaml`, single YAML files, and signed ones (`*.dsse.json`)."""
    if not folder.is_dir():
        raise PolicyError("is not a folder", where=str(folder))
    folders = [entry for entry in sorted(folder.iterdir()) if (entry / "policy.yaml").is_file()]
    return (*folders, *sorted(folder.glob("*.yaml")), *sorted(folder.glob(f"*{SIGNED_SUFFIX}")))


def policy_sources(directory: Path | None) -> list[tuple[Path, bytes]]:
    """What a service registers when it starts: every policy of the folder by its file.

    Raises:
        VerifierFault: the folder, or a file in it, cannot be read.
    """
    if directory is None:
        return []
    try:
        return [(path, read_policy_source(path)) for path in find_policies(directory)]
    except EvidenceError as error:
        raise VerifierFault(f"policies_dir: {error}") from error


def load_policy(path: Path) -> Policy:
    """One policy, signed or not; whose signatures it carries is not looked at. Raises `PolicyError` naming the file."""
    source = read_policy_source(path)
    try:
        return parse_source(source)
    except PolicyError as error:
        where = f"{path}, {error.structure}" if error.structure else str(path)
        raise PolicyError(error.detail, where=where, reason=error.reason) from error


def read_policy_signers(paths: Sequence[Path]) -> PolicySigners | None:
    """Signers a service demands; None where no key is named, so that none is demanded.

    Raises:
        VerifierFault: a file that cannot be read or holds no such key. A demand is never dropped silently.
    """
    if not paths:
        return None
    try:
        return PolicySigners.of(load_public_key(read_file(path), str(path)) for path in paths)
    except PolicyError as error:
        raise VerifierFault(f"policy_signers: {error}") from error


def read_file(path: Path) -> bytes:
    """The bytes of a file; raises `PolicyError` naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(error.strerror or str(error), where=str(path)) from error
