"""One event of a boot log: bytes to fields (TCG PC Client Platform Firmware Profile, rev 1.06, section 10.2)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.spec_id import STRUCTURE, SpecId

DEFAULT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes; the largest real log seen is 1 MiB, of which 99 % is padding."""
MAX_PCR: Final = 23
NO_PCR: Final = 0xFFFFFFFF
"""PCR index of records that Windows appends without measuring them."""
HEADER: Final = struct.Struct("<II20sI")
EVENT2_HEAD: Final = struct.Struct("<II")

_EVENT2: Final = struct.Struct("<III")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
new_event: Final = tuple.__new__  # a named tuple's own constructor is a Python call


class Event(NamedTuple):
    """One entry as it stands in the log. Nothing of it is proven.

    A named tuple, not a dataclass: a frozen dataclass costs several times as much to make, and a log has hundreds.

    Attributes:
        pcr: PCR index; `NO_PCR` for unmeasured records of Windows.
        event_type: TCG_EVENTTYPE.
        digests: one per bank of `ParsedEventLog.algorithms`, in that order; empty where the event lacks it.
        data: the event field, undecoded.
        offset: byte offset of the event in the log.
    """

    pcr: int
    event_type: int
    digests: tuple[bytes, ...]
    data: bytes
    offset: int


class EndsInsideError(MalformedInputError):
    """The bytes end before an event does that is sound as far as it goes."""


def malformed(offset: int, detail: str) -> MalformedInputError:
    """The error of a log that is none, at this byte."""
    return MalformedInputError(STRUCTURE, offset, detail)


def _ends(offset: int, detail: str) -> MalformedInputError:
    return EndsInsideError(STRUCTURE, offset, detail)


def _exceeds(offset: int, size: int, left: int) -> MalformedInputError:
    """An event that is larger than any log can be was never whole: that is no cut."""
    make = _ends if size <= DEFAULT_LIMIT else malformed
    return make(offset, f"event size {size} exceeds the {left} bytes left")


def checked_pcr(pcr: int, event_type: int, offset: int) -> int:
    """`pcr`, if there is such a PCR. Raises `MalformedInputError`."""
    if pcr > MAX_PCR and not (pcr == NO_PCR and event_type == _NO_ACTION):
        raise malformed(offset, f"PCR index {pcr} is above {MAX_PCR}")
    return pcr


def parse_event1(data: bytes, start: int) -> tuple[Event, int]:
    """One TCG_PCClientPCREvent; returns it and the offset after it."""
    end, body = len(data), start + HEADER.size
    if body > end:
        _check_part(data, start)
        raise _ends(start, f"an event needs {HEADER.size} bytes, {end - start} are left")
    pcr, event_type, digest, size = HEADER.unpack_from(data, start)
    checked_pcr(pcr, event_type, start)
    if size > end - body:
        raise _exceeds(start + 28, size, end - body)
    return new_event(Event, (pcr, event_type, (digest,), data[body : body + size], start)), body + size


def _check_part(data: bytes, start: int) -> None:
    """What there is of an event that is cut in its header is that of an event, or this is no cut."""
    if len(data) - start >= EVENT2_HEAD.size:
        pcr, event_type = EVENT2_HEAD.unpack_from(data, start)
        checked_pcr(pcr, event_type, start)


def event2_layout(declared: tuple[tuple[int, int], ...]) -> tuple[struct.Struct, tuple[bytes, ...]]:
    """The fixed part of a usual event, and the constant bytes before each digest: count and ids."""
    layout, marks = "<II", []
    for number, (alg, size) in enumerate(declared):
        mark = (_U32.pack(len(declared)) if number == 0 else b"") + _U16.pack(alg)
        layout += f"{len(mark)}s{size}s"
        marks.append(mark)
    return struct.Struct(layout + "I"), tuple(marks)


def parse_event2(data: bytes, start: int, spec_id: SpecId, banks: tuple[HashAlg, ...]) -> tuple[Event, int]:
    """One TCG_PCR_EVENT2, field by field; returns it and the offset after it."""
    end = len(data)
    if end - start < _EVENT2.size:
        _check_part(data, start)
        raise _ends(start, f"an event needs {_EVENT2.size} bytes, {end - start} are left")
    pcr, event_type, count = _EVENT2.unpack_from(data, start)
    checked_pcr(pcr, event_type, start)
    if not 0 < count <= len(spec_id.algorithms):
        raise malformed(start + 8, f"{count} digests where the log declares {len(spec_id.algorithms)} banks")
    digests, offset = _parse_digests(data, start + _EVENT2.size, count, dict(spec_id.algorithms))
    if end - offset < _U32.size:
        raise _ends(offset, "the log ends before the event size")
    (size,) = _U32.unpack_from(data, offset)
    if size > end - offset - _U32.size:
        raise _exceeds(offset, size, end - offset - _U32.size)
    offset += _U32.size
    values = tuple([digests.get(bank.tpm_id, b"") for bank in banks])
    return Event(pcr, event_type, values, data[offset : offset + size], start), offset + size


def _parse_digests(
    data: bytes, offset: int, count: int, sizes: Mapping[int, int]
) -> tuple[dict[int, bytes], int]:
    """A TPML_DIGEST_VALUES without its count, little-endian, and the offset after it."""
    end = len(data)
    digests: dict[int, bytes] = {}
    for _ in range(count):
        if end - offset < _U16.size:
            raise _ends(offset, "the log ends inside a digest")
        (alg,) = _U16.unpack_from(data, offset)
        size = sizes.get(alg)
        if size is None or alg in digests:
            raise malformed(
                offset, f"algorithm 0x{alg:04x} is {'repeated' if alg in digests else 'not declared'}"
            )
        offset += _U16.size
        if end - offset < size:
            raise _ends(offset, f"a digest needs {size} bytes, {end - offset} are left")
        digests[alg] = data[offset : offset + size]
        offset += size
    return digests, offset
