"""One entry of an IMA measurement list, as it stands there (Linux, Documentation/security/IMA-templates.rst).

Nothing here is proven. A list becomes evidence when its template data replays to a quoted PCR
(`verifier.tcg.ima.replay`), and the fields of a violation never do: the kernel extends a constant for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from verifier.errors import MalformedInputError

ByteOrder = Literal["little", "big"]
"""Of the guest's kernel, or little where it runs with `ima_canonical_fmt`; template digests cover it."""

STRUCTURE: Final = "IMA measurement list"
DEFAULT_PCR: Final = 10
BOOT_AGGREGATE: Final = "boot_aggregate"


class ImaFormatError(MalformedInputError):
    """Bytes that are no IMA list.

    Attributes:
        offset: byte offset in the bytes given, of the entry or of the field that is wrong.
        entry: index of the entry, counted from the `first_index` given.
        cut: the bytes end inside the entry, and nothing else is wrong with it.
    """

    def __init__(self, offset: int, entry: int, detail: str, *, cut: bool = False) -> None:
        self.entry = entry
        self.cut = cut
        super().__init__(STRUCTURE, offset, f"entry {entry}: {detail}")


class ListEncoding(NamedTuple):
    """How a binary list is written; the same for all of it.

    Attributes:
        byte_order: of its numbers.
        digest_size: bytes of each template digest: 20 in `binary_runtime_measurements`, that of the algorithm in
            the per-algorithm files of newer kernels (`binary_runtime_measurements_sha256`).
    """

    byte_order: ByteOrder = "little"
    digest_size: int = 20


class DigestType(enum.StrEnum):
    """What a file's digest covers (`d-ngv2`); every other template has file digests only."""

    FILE = "ima"
    """The file's content."""
    VERITY = "verity"
    """fs-verity's digest of the file: its Merkle tree and descriptor, not its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaFields:
    """Decoded template data.

    Attributes:
        algorithm: kernel name of the digest's hash (`sha256`, `sha1`, `md5`, `sm3`, ...); any string a list may carry.
        digest: of the file, or of `buffer` in an entry for a buffer; zeroes in a violation. None without a d field.
        digest_type: see `DigestType`.
        path: n / n-ng: path of the file or name of the buffer (`.ima`, `dm_table_load`). Bytes that are no UTF-8 are
            kept as surrogates (PEP 383), so that different names stay different; `shown` makes it printable.
        signature: sig: content of `security.ima` as it stands, with its type byte; empty where the file has none.
        buffer: buf: the measured buffer; None in templates without the field.
        modsig: DER (PKCS #7) of an appended signature, empty where there is none; None without the field.
        modsig_digest: d-modsig: (algorithm, digest) of the file without its appended signature.
        evm_signature: evmsig: content of `security.evm`.
        extra: every other field by its kernel name (iuid, igid, imode, xattrnames, xattrlengths, xattrvalues), raw.
    """

    algorithm: str | None = None
    digest: bytes | None = None
    digest_type: DigestType = DigestType.FILE
    path: str | None = None
    signature: bytes = b""
    buffer: bytes | None = None
    modsig: bytes | None = None
    modsig_digest: tuple[str, bytes] | None = None
    evm_signature: bytes = b""
    extra: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImaEntry:
    """One entry.

    Attributes:
        index: in the guest's list since boot, from 0.
        offset: of its first byte, in the bytes that were parsed.
        pcr: that was extended; 10 unless the kernel's configuration or a `pcr=` rule says otherwise.
        template_name: `ima-ng` and so on, or the format itself (`d-ng|n-ng`) of a custom `ima_template_fmt`.
        template_digest: as it stands in the list (SHA-1 unless `ListEncoding.digest_size` says otherwise). Zeroes
            mark a violation.
        template_data: exactly the bytes the kernel hashes, in its byte order; for template `ima` those in the list
            (`verifier.tcg.ima.templates.hashed_data` gives what is hashed).
        fields: decoded from `template_data`.
    """

    index: int
    offset: int
    pcr: int
    template_name: str
    template_digest: bytes
    template_data: bytes
    fields: ImaFields

    @property
    def is_violation(self) -> bool:
        """The kernel could not measure what was used: nothing but that fact is proven by the PCR."""
        return not any(self.template_digest)


@dataclass(frozen=True, slots=True)
class ImaList:
    """A parsed list or segment.

    Attributes:
        encoding: None for an ascii list, which is no encoding the kernel hashes.
        entries: in order.
    """

    encoding: ListEncoding | None
    entries: tuple[ImaEntry, ...]


def shown(path: str) -> str:
    r"""`path` for people: what does not print, or is no UTF-8, as escapes (`\xff`, `\n`)."""
    if path.isprintable():
        return path
    raw = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in raw)
