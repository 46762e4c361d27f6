"""What a runtime set is made of: digests of files under the paths that the kernel logs, and where each came from."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.tcg.algorithms import HashAlg

MAX_PATH: Final = 4096
"""`PATH_MAX`: the kernel logs no longer name."""


class Kind(enum.StrEnum):
    """What was hashed."""

    FILE = "file"
    """The content of a file: fields `d` and `d-ng` of IMA's templates."""
    VERITY = "verity"
    """The root of fs-verity's Merkle tree, as `ima-ngv2` logs it with the prefix `verity:`."""
    BUFFER = "buffer"
    """A buffer of the kernel (`ima-buf`): a policy, a kernel command line, critical data."""


_PREFIX: Final = {Kind.FILE: "", Kind.VERITY: "verity:", Kind.BUFFER: "buffer:"}


@dataclass(frozen=True, slots=True, eq=False)
class DigestKind:
    """What was hashed and how. There is one object of each, in `DIGEST_KINDS`: they are compared by identity.

    Attributes:
        text: the prefix in a runtime set, much as IMA's lists write it: `sha256:`, `verity:sha256:`.
    """

    kind: Kind
    alg: HashAlg
    text: str

    def __reduce__(self) -> tuple[Callable[[Kind, HashAlg], DigestKind], tuple[Kind, HashAlg]]:
        """The same object in another process is that process's own."""
        return _kind_of, (self.kind, self.alg)


def _kind_of(kind: Kind, alg: HashAlg) -> DigestKind:
    return KIND_OF[kind, alg]


DIGEST_KINDS: Final[tuple[DigestKind, ...]] = tuple(
    DigestKind(kind, alg, f"{_PREFIX[kind]}{alg.label}:") for kind in Kind for alg in HashAlg
)
KIND_BY_TEXT: Final[dict[bytes, DigestKind]] = {each.text.encode(): each for each in DIGEST_KINDS}
KIND_OF: Final[dict[tuple[Kind, HashAlg], DigestKind]] = {
    (each.kind, each.alg): each for each in DIGEST_KINDS
}
KERNEL_HASHES: Final[dict[str, HashAlg]] = {
    **{alg.label: alg for alg in HashAlg},
    **{alg.label.replace("_", "-"): alg for alg in HashAlg},
    "sm3": HashAlg.SM3_256,
}
"""Names of hashes in IMA's lists (Linux, crypto/hash_info.c). MD5 and what else is broken or rare is not among them."""


class Source(NamedTuple):
    """Where digests came from. A claim of whoever made the set: it decides nothing, it explains.

    Attributes:
        kind: `deb`, `rpm`, `image`, `rootfs`, `initramfs`, `ima`, `keylime`.
        name: of the package, image or file.
        version: empty where there is none.
        arch: empty where there is none.
    """

    kind: str
    name: str
    version: str = ""
    arch: str = ""

    @property
    def text(self) -> str:
        """For people: `bash 5.2.15-2+b7 amd64 (deb)`."""
        return " ".join(part for part in (self.name, self.version, self.arch, f"({self.kind})") if part)


class Entry(NamedTuple):
    """One digest under one path.

    Attributes:
        path: as the kernel logs it: bytes, blanks turned into underscores; a buffer's name for buffers.
        kind: what was hashed and how.
        digest: `kind.alg.size` bytes.
        sources: in ascending order, each once; may be empty.
    """

    path: bytes
    kind: DigestKind
    digest: bytes
    sources: tuple[Source, ...] = ()

    @property
    def key(self) -> tuple[bytes, str, bytes]:
        """The order of a runtime set: by path, then by the digest as it is written."""
        return self.path, self.kind.text, self.digest


def logged_path(path: bytes) -> bytes:
    """A path as IMA logs it: each blank is an underscore (`ima_write_template_field_data`, Linux 3.13 and later)."""
    return path.replace(b" ", b"_")
