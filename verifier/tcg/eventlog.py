"""Boot event logs: bytes to events, events to PCR values.

Two formats (TCG PC Client Platform Firmware Profile, rev 1.06, section 10.2): the SHA-1 one, a list of
TCG_PCClientPCREvent, and the crypto-agile one, whose first event is a Spec ID Event03 that declares the banks
of the TCG_PCR_EVENT2 list after it. All integers are little-endian. Firmware, Windows (WBCL) and confidential
guests (CCEL) write the same structures.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.spec_id import SPEC_ID_03, STRUCTURE, SpecId, parse_spec_id

DEFAULT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes; the largest real log seen is 1 MiB, of which 99 % is padding."""
MAX_EVENTS: Final = 16_384
"""Real logs have up to about 220 events; this bounds the memory a log of empty events can claim."""
MAX_PCR: Final = 23
NO_PCR: Final = 0xFFFFFFFF
"""PCR index of records that Windows appends without measuring them."""

_HEADER: Final = struct.Struct("<II20sI")
_EVENT2: Final = struct.Struct("<III")
_EVENT2_HEAD: Final = struct.Struct("<II")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_HCRTM: Final = int(EventType.EV_EFI_HCRTM_EVENT)
_LOCALITIES: Final = frozenset({0, 3, 4})
_HCRTM_LOCALITY: Final = 4
_DYNAMIC_PCRS: Final = range(17, 23)
_FILLERS: Final = (0x00, 0xFF)
_new_event: Final = tuple.__new__  # a named tuple's own constructor is a Python call


class LogFormat(enum.Enum):
    """How the events are written."""

    SHA1 = "sha1"
    CRYPTO_AGILE = "crypto-agile"


class LogQuirk(enum.Enum):
    """A deviation from the specification that this parser tolerates because real logs have it, by name."""

    PADDED = "padded"
    """The buffer after the last event is filled with 0x00 or 0xff (CCEL areas, dumps of ACPI memory)."""
    SPEC_ID_SIZE_OMITS_VENDOR_INFO = "spec-id-size-omits-vendor-info"
    """The first event's size does not count the vendor information that it carries."""


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


@dataclass(frozen=True, slots=True)
class ParsedEventLog:
    """An untrusted log, well-formed. Proves nothing until `replay` is held against quoted PCRs.

    Attributes:
        spec_id: None for the SHA-1 format.
        algorithms: banks of the log that this verifier knows.
        unknown_algorithms: declared banks it does not know, as (id, size); their digests were skipped.
        events: in log order, the Spec ID event included, so that positions are those `tpm2_eventlog` shows.
        size: bytes that hold events; what follows is padding.
        locality: what StartupLocality says, a claim that only a replay of PCR 0 can confirm; None without one.
        hcrtm: an EV_EFI_HCRTM_EVENT is in the log, so PCR 0 starts as after TPM2_HASH_START of locality 4.
    """

    format: LogFormat
    spec_id: SpecId | None
    algorithms: tuple[HashAlg, ...]
    unknown_algorithms: tuple[tuple[int, int], ...]
    events: tuple[Event, ...]
    size: int
    locality: int | None
    hcrtm: bool
    quirks: tuple[LogQuirk, ...]

    @property
    def initial_locality(self) -> int:
        """Locality of PCR 0's first value, as the log has it."""
        if self.locality is not None:
            return self.locality
        return _HCRTM_LOCALITY if self.hcrtm else 0


def parse_event_log(data: bytes, *, limit: int = DEFAULT_LIMIT) -> ParsedEventLog:
    """Parse a whole boot log of either format.

    Args:
        data: the log as the kernel, the firmware table or Windows gives it, little-endian.
        limit: largest accepted size in bytes.

    Raises:
        MalformedInputError: not such a log; `offset` is that of the field at fault.
        UnsupportedError: every bank of the log is of an unknown algorithm.
    """
    if len(data) > limit:
        raise _error(limit, f"the log has {len(data)} bytes, at most {limit} are read")
    if len(data) < _HEADER.size:
        raise _error(len(data), f"the first event needs {_HEADER.size} bytes, {len(data)} are here")
    _, event_type, _, size = _HEADER.unpack_from(data, 0)
    if size > len(data) - _HEADER.size:
        raise _error(28, f"event size {size} exceeds the {len(data) - _HEADER.size} bytes left")
    first = data[_HEADER.size : _HEADER.size + size]
    if event_type == _NO_ACTION and first.startswith(SPEC_ID_03):
        return _parse_agile(data, first)
    return _parse_sha1(data)


def replay(log: ParsedEventLog, bank: HashAlg) -> dict[int, bytes]:
    """PCR values that the digests of the log lead to, for every PCR the log measures into.

    Proves nothing by itself: the values are the log's claim. EV_NO_ACTION extends nothing; PCR 0 starts from
    the locality the log states (section 10.4.5.3), which an attacker may write as he likes and which is
    believed only when the result equals the quoted PCR. A PCR of which an event lacks the digest of `bank` has
    no value: Windows writes such logs.

    Raises:
        UnsupportedError: the log has no such bank, or the build lacks the algorithm.
    """
    return {
        pcr: extend_all(initial_value(pcr, bank, log.initial_locality), digests, bank)
        for pcr, digests in measured_digests(log, bank).items()
        if b"" not in digests
    }


def measured_digests(log: ParsedEventLog, bank: HashAlg) -> dict[int, list[bytes]]:
    """Digests extended per PCR, in log order; empty bytes, which no PCR value can follow from, where one lacks.

    Raises:
        UnsupportedError: the log has no such bank.
    """
    if bank not in log.algorithms:
        raise UnsupportedError(f"the log has no {bank.label} bank", structure=STRUCTURE)
    column = log.algorithms.index(bank)
    per_pcr: dict[int, list[bytes]] = {}
    for pcr, event_type, digests, _, _ in log.events:
        if event_type == _NO_ACTION:
            continue
        known = per_pcr.get(pcr)
        if known is None:
            per_pcr[pcr] = [digests[column]]
        else:
            known.append(digests[column])
    return per_pcr


def initial_value(pcr: int, bank: HashAlg, locality: int = 0) -> bytes:
    """Value of a PCR after a TPM reset (TPM 2.0 Library, Part 1, section 17.6; TCG PFP, section 10.4.5.3)."""
    if pcr == 0:
        return locality.to_bytes(bank.size, "big")
    return (b"\xff" if pcr in _DYNAMIC_PCRS else b"\0") * bank.size


def extend_all(value: bytes, digests: list[bytes], bank: HashAlg) -> bytes:
    """`value` after one TPM2_PCR_Extend per digest. Raises `UnsupportedError` where the build lacks `bank`."""
    new = bank.new
    if new is None:
        raise UnsupportedError(f"this build has no {bank.label}")
    for digest in digests:
        value = new(value + digest).digest()
    return value


def _error(offset: int, detail: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, offset, detail)


def _checked_pcr(pcr: int, event_type: int, offset: int) -> int:
    if pcr > MAX_PCR and not (pcr == NO_PCR and event_type == _NO_ACTION):
        raise _error(offset, f"PCR index {pcr} is above {MAX_PCR}")
    return pcr


def _parse_sha1(data: bytes) -> ParsedEventLog:
    """A list of TCG_PCClientPCREvent (section 10.2.1)."""
    events: list[Event] = []
    offset, end, padding = 0, len(data), _padding_start(data)
    while offset < padding:
        if len(events) >= MAX_EVENTS:
            raise _error(offset, f"more than {MAX_EVENTS} events")
        start = offset + _HEADER.size
        if start > end:
            raise _error(offset, f"an event needs {_HEADER.size} bytes, {end - offset} are left")
        pcr, event_type, digest, size = _HEADER.unpack_from(data, offset)
        _checked_pcr(pcr, event_type, offset)
        if size > end - start:
            raise _error(offset + 28, f"event size {size} exceeds the {end - start} bytes left")
        events.append(_new_event(Event, (pcr, event_type, (digest,), data[start : start + size], offset)))
        offset = start + size
    return _finish(LogFormat.SHA1, None, (HashAlg.SHA1,), events, _Extent(offset, end))


def _parse_agile(data: bytes, first: bytes) -> ParsedEventLog:
    """A Spec ID event, then a list of TCG_PCR_EVENT2 (section 10.2.2).

    Nearly every event has one digest per declared bank in the declared order, so that one unpacking reads all
    of its fixed part; anything else goes to the careful path, which knows where a fault is.
    """
    spec_id, excess = parse_spec_id(data, _HEADER.size, len(first))
    declared = spec_id.algorithms
    banks = tuple([HASH_BY_ID[alg] for alg, _ in declared if alg in HASH_BY_ID])
    if not banks:
        raise UnsupportedError("no bank of the log is of a known algorithm", structure=STRUCTURE, offset=60)
    pcr, event_type = _EVENT2_HEAD.unpack_from(data, 0)
    none = (b"",) * len(banks)
    events = [Event(_checked_pcr(pcr, event_type, 0), event_type, none, first, 0)]
    layout, marks = _layout(declared)
    unpack, fixed = layout.unpack_from, layout.size
    usual = fixed if len(banks) == len(declared) else len(data) + 1
    offset, end, padding = _HEADER.size + len(first) + excess, len(data), _padding_start(data)
    while offset < padding:
        if len(events) >= MAX_EVENTS:
            raise _error(offset, f"more than {MAX_EVENTS} events")
        if end - offset >= usual:
            fields = unpack(data, offset)
            start = offset + fixed
            stop = start + fields[-1]
            if fields[2:-1:2] == marks and fields[0] <= MAX_PCR and stop <= end:
                events.append(
                    _new_event(Event, (fields[0], fields[1], fields[3:-1:2], data[start:stop], offset))
                )
                offset = stop
                continue
        event, offset = _parse_event2(data, offset, spec_id, banks)
        events.append(event)
    return _finish(LogFormat.CRYPTO_AGILE, spec_id, banks, events, _Extent(offset, end, overhang=excess))


def _layout(declared: tuple[tuple[int, int], ...]) -> tuple[struct.Struct, tuple[bytes, ...]]:
    """The fixed part of a usual event, and the constant bytes before each digest: count and ids."""
    layout, marks = "<II", []
    for number, (alg, size) in enumerate(declared):
        mark = (_U32.pack(len(declared)) if number == 0 else b"") + _U16.pack(alg)
        layout += f"{len(mark)}s{size}s"
        marks.append(mark)
    return struct.Struct(layout + "I"), tuple(marks)


def _parse_event2(data: bytes, start: int, spec_id: SpecId, banks: tuple[HashAlg, ...]) -> tuple[Event, int]:
    """One TCG_PCR_EVENT2, field by field; returns it and the offset after it."""
    end = len(data)
    if end - start < _EVENT2.size:
        raise _error(start, f"an event needs {_EVENT2.size} bytes, {end - start} are left")
    pcr, event_type, count = _EVENT2.unpack_from(data, start)
    _checked_pcr(pcr, event_type, start)
    if not 0 < count <= len(spec_id.algorithms):
        raise _error(start + 8, f"{count} digests where the log declares {len(spec_id.algorithms)} banks")
    digests, offset = _parse_digests(data, start + _EVENT2.size, count, dict(spec_id.algorithms))
    if end - offset < _U32.size:
        raise _error(offset, "the log ends before the event size")
    (size,) = _U32.unpack_from(data, offset)
    if size > end - offset - _U32.size:
        raise _error(offset, f"event size {size} exceeds the {end - offset - _U32.size} bytes left")
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
            raise _error(offset, "the log ends inside a digest")
        (alg,) = _U16.unpack_from(data, offset)
        size = sizes.get(alg)
        if size is None or alg in digests:
            raise _error(
                offset, f"algorithm 0x{alg:04x} is {'repeated' if alg in digests else 'not declared'}"
            )
        offset += _U16.size
        if end - offset < size:
            raise _error(offset, f"a digest needs {size} bytes, {end - offset} are left")
        digests[alg] = data[offset : offset + size]
        offset += size
    return digests, offset


def _padding_start(data: bytes) -> int:
    """Offset from which on only 0x00 or only 0xff follows; found once, so that no log can make it cost n squared."""
    return len(data.rstrip(data[-1:])) if data[-1] in _FILLERS else len(data)


class _Extent(NamedTuple):
    """Where the events end, how long the log is, and by how much the Spec ID event overhangs its size."""

    used: int
    total: int
    overhang: int = 0


def _finish(
    log_format: LogFormat,
    spec_id: SpecId | None,
    banks: tuple[HashAlg, ...],
    events: list[Event],
    extent: _Extent,
) -> ParsedEventLog:
    locality, hcrtm = None, False
    for event in events:
        event_type = event.event_type
        if event_type == _HCRTM:
            hcrtm = True
        elif event_type == _NO_ACTION and locality is None and event.data.startswith(_STARTUP_LOCALITY):
            locality = _startup_locality(event)
    return ParsedEventLog(
        format=log_format,
        spec_id=spec_id,
        algorithms=banks,
        unknown_algorithms=tuple(
            [pair for pair in spec_id.algorithms if pair[0] not in HASH_BY_ID] if spec_id else ()
        ),
        events=tuple(events),
        size=extent.used,
        locality=locality,
        hcrtm=hcrtm,
        quirks=_quirks(extent),
    )


def _quirks(extent: _Extent) -> tuple[LogQuirk, ...]:
    padded = (LogQuirk.PADDED,) if extent.used < extent.total else ()
    return (*padded, LogQuirk.SPEC_ID_SIZE_OMITS_VENDOR_INFO) if extent.overhang else padded


def _startup_locality(event: Event) -> int | None:
    """The locality TPM2_Startup came from (section 10.4.5.3), or None where the record is not one of PCR 0."""
    value = event.data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(value) != 1 or value[0] not in _LOCALITIES:
        return None
    return value[0]
