"""The log of what systemd measures from userspace (`/run/log/systemd/tpm2-measure.log`): bytes to records.

A sequence of JSON texts (RFC 7464) close to the JSON encoding of the TCG Canonical Event Log Format (version 1.0,
section 4): per record a PCR or an NV index, digests, and in `content` what was hashed. systemd leaves out `recnum`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

STRUCTURE: Final = "userspace measurement log"
DEFAULT_LIMIT: Final = 1024 * 1024
"""Bytes; a boot writes about 5 KB."""
MAX_RECORDS: Final = 4096
MAX_DIGESTS: Final = 8
MAX_PCR: Final = 23
NV_INDICES: Final = range(0x01000000, 0x02000000)
"""TPM_HT_NV_INDEX (TPM 2.0 Part 2, section 7.2)."""
SYSTEMD: Final = "systemd"

_START: Final = b"\x1e"
_HEX: Final = re.compile(r"[0-9a-fA-F]*")


class UserspaceEvent(NamedTuple):
    """One record as it stands in the log. Nothing of it is proven.

    Attributes:
        pcr: PCR that was extended, or None.
        nv_index: NV index that was extended, or None; one of the two is given.
        digests: by bank; what the record gives in an unknown algorithm is left out.
        text: what the digests are said to cover; None where the record gives none.
        label: systemd's `eventType`, which nothing covers.
        nv_name: name of the NvPCR, which nothing covers either.
        boot_id: the kernel's random id of the boot it was written in.
        offset: byte offset of the record in the log.
    """

    pcr: int | None
    nv_index: int | None
    digests: Mapping[HashAlg, bytes]
    text: str | None
    label: str | None
    nv_name: str | None
    boot_id: str | None
    offset: int


@dataclass(frozen=True, slots=True)
class UserspaceLog:
    """An untrusted log, well-formed. It proves nothing until its digests lead to quoted or certified values.

    Attributes:
        events: in the order of the log.
        torn: records that were cut short, as by a crash, or at the end by reading while it was written.
    """

    events: tuple[UserspaceEvent, ...]
    torn: int


class _Digest(msgspec.Struct, frozen=True, rename={"alg": "hashAlg"}):
    alg: str
    digest: str


class _Record(msgspec.Struct, frozen=True):
    digests: list[_Digest]
    content_type: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    pcr: int | None = None
    nv_index: int | None = None


class _Content(
    msgspec.Struct, frozen=True, rename={"nv_name": "nvIndexName", "boot_id": "bootId", "label": "eventType"}
):
    string: str | None = None
    label: str | None = None
    nv_name: str | None = None
    boot_id: str | None = None


_record: Final = msgspec.json.Decoder(_Record)
_content: Final = msgspec.json.Decoder(_Content)
_NO_CONTENT: Final = _Content()


def parse_userspace_log(data: bytes, *, limit: int = DEFAULT_LIMIT) -> UserspaceLog:
    """Parse a whole log, framed as RFC 7464 says or as lines of JSON.

    A record without its end is skipped and counted (RFC 7464, section 2.3): the log may be read while it is written,
    and a writer may die. Members nobody knows are ignored, so that a newer systemd can be read.

    Args:
        data: the log, UTF-8.
        limit: largest accepted size in bytes.

    Raises:
        MalformedInputError: a complete record is not what it should be; `offset` is that of the record.
    """
    if len(data) > limit:
        raise _error(limit, f"the log has {len(data)} bytes, at most {limit} are read")
    events: list[UserspaceEvent] = []
    torn = 0
    for offset, piece in _pieces(data):
        if len(events) + torn >= MAX_RECORDS:
            raise _error(offset, f"more than {MAX_RECORDS} records")
        event = _parse(piece, offset) if piece.endswith(b"\n") else _parse_unended(piece, offset)
        if event is None:
            torn += 1
        else:
            events.append(event)
    return UserspaceLog(tuple(events), torn)


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Records with their offsets; one that was written to its end ends in a line feed."""
    framed = data.lstrip(b" \t\r\n")[:1] == _START
    mark, start = (_START, 0) if framed else (b"\n", 0)
    while start < len(data):
        found = data.find(mark, start)
        end = len(data) if found < 0 else found + (0 if framed else 1)
        piece = data[start:end]
        if piece.strip(b" \t\r\n"):
            yield start, piece
        start = end + 1 if framed else end


def _parse_unended(piece: bytes, offset: int) -> UserspaceEvent | None:
    """A record without its line feed: an object that is whole all the same, or one that was cut."""
    try:
        return _parse(piece, offset)
    except MalformedInputError:
        return None


def _parse(piece: bytes, offset: int) -> UserspaceEvent:
    try:
        record = _record.decode(piece)
        content = _content.decode(record.content) if record.content_type == SYSTEMD else _NO_CONTENT
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _error(offset, f"not a record: {error}") from error
    return UserspaceEvent(
        pcr=_checked(record.pcr, range(MAX_PCR + 1), "PCR", offset),
        nv_index=_checked(record.nv_index, NV_INDICES, "NV index", offset),
        digests=_digests(record, offset),
        text=content.string,
        label=content.label,
        nv_name=content.nv_name,
        boot_id=content.boot_id,
        offset=offset,
    )


def _checked(value: int | None, allowed: range, what: str, offset: int) -> int | None:
    if value is not None and value not in allowed:
        raise _error(offset, f"{what} {value:#x} is out of range")
    return value


def _digests(record: _Record, offset: int) -> dict[HashAlg, bytes]:
    if (record.pcr is None) == (record.nv_index is None):
        raise _error(offset, "a record names either a PCR or an NV index")
    if not 0 < len(record.digests) <= MAX_DIGESTS:
        raise _error(offset, f"{len(record.digests)} digests where 1 to {MAX_DIGESTS} are expected")
    digests: dict[HashAlg, bytes] = {}
    for each in record.digests:
        alg = HASH_BY_LABEL.get(each.alg)
        if alg is None:
            continue
        if alg in digests:
            raise _error(offset, f"two {alg.label} digests")
        if len(each.digest) != 2 * alg.size or _HEX.fullmatch(each.digest) is None:
            raise _error(offset, f"a {alg.label} digest has {2 * alg.size} hexadecimal digits")
        digests[alg] = bytes.fromhex(each.digest)
    return digests


def _error(offset: int, detail: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, offset, detail)
