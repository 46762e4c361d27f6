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

STRUCTURE: Final = "TCG event log"
DEFAULT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes; the largest real log seen is 1 MiB, of which 99 % is padding."""
MAX_EVENTS: Final = 16_384
"""Real logs have up to about 220 events; this bounds the memory a log of empty events can claim."""
MAX_PCR: Final = 23
NO_PCR: Final = 0xFFFFFFFF
"""PCR index of records that Windows appends without measuring them."""

_HEADER: Final = struct.Struct("<II20sI")
_EVENT2: Final = struct.Struct("<III")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_SPEC_ID: Final = struct.Struct("<IBBBBI")
_SPEC_ID_03: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_SIGNATURE_SIZE: Final = 16
_MAX_ALGORITHMS: Final = 16
_MAX_UNKNOWN_DIGEST: Final = 128
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_HCRTM: Final = int(EventType.EV_EFI_HCRTM_EVENT)
_SUPPORTED_MAJOR: Final = 2
_LOCALITIES: Final = frozenset({0, 3, 4})
_HCRTM_LOCALITY: Final = 4
_DYNAMIC_PCRS: Final = range(17, 23)
_FILLERS: Final = (0x00, 0xFF)


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

    A named tuple, not a dataclass: a frozen dataclass costs four times as much to make, and a log has hundreds.

    Attributes:
        index: position in the log, the Spec ID event included, as `tpm2_eventlog` counts.
        pcr: PCR index; `NO_PCR` for unmeasured records of Windows.
        event_type: TCG_EVENTTYPE.
        digests: per bank that this verifier knows.
        data: the event field, undecoded.
        offset: byte offset of the event in the log.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nothing here needs
    pcr: int
    event_type: int
    digests: Mapping[HashAlg, bytes]
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class SpecId:
    """TCG_EfiSpecIdEvent (section 10.4.5.1).

    Attributes:
        algorithms: every declared bank, as (TPM_ALG_ID, digest size in bytes), in the order declared.
        uintn_size: size of UINTN in 32-bit words.
    """

    platform_class: int
    version: tuple[int, int, int]
    uintn_size: int
    algorithms: tuple[tuple[int, int], ...]
    vendor_info: bytes


@dataclass(frozen=True, slots=True)
class ParsedEventLog:
    """An untrusted log, well-formed. Proves nothing until `replay` is held against quoted PCRs.

    Attributes:
        spec_id: None for the SHA-1 format.
        algorithms: banks of the log that this verifier knows.
        unknown_algorithms: declared banks it does not know, as (id, size); their digests were skipped.
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
    pcr, event_type, digest, size = _HEADER.unpack_from(data, 0)
    if size > len(data) - _HEADER.size:
        raise _error(28, f"event size {size} exceeds the {len(data) - _HEADER.size} bytes left")
    first = data[_HEADER.size : _HEADER.size + size]
    if event_type != _NO_ACTION or not first.startswith(_SPEC_ID_03):
        return _parse_sha1(data)
    spec_id, excess = _parse_spec_id(data, size)
    banks = tuple(HASH_BY_ID[alg] for alg, _ in spec_id.algorithms if alg in HASH_BY_ID)
    if not banks:
        raise UnsupportedError("no bank of the log is of a known algorithm", structure=STRUCTURE, offset=60)
    events = [Event(0, _checked_pcr(pcr, event_type, 0), event_type, {HashAlg.SHA1: digest}, first, 0)]
    end = _parse_agile(data, _HEADER.size + size + excess, spec_id, banks, events)
    quirks = (LogQuirk.SPEC_ID_SIZE_OMITS_VENDOR_INFO,) if excess else ()
    return _finish(LogFormat.CRYPTO_AGILE, spec_id, banks, events, end, len(data), quirks)


def replay(log: ParsedEventLog, bank: HashAlg) -> dict[int, bytes]:
    """PCR values that the digests of the log lead to, for every PCR the log measures into.

    Proves nothing by itself: the values are the log's claim. EV_NO_ACTION extends nothing; PCR 0 starts from
    the locality the log states (section 10.4.5.3), which an attacker may write as he likes and which is
    believed only when the result equals the quoted PCR.

    Raises:
        UnsupportedError: the log has no such bank, an event lacks its digest, or the build lacks the algorithm.
    """
    values: dict[int, bytes] = {}
    for pcr, digests in measured_digests(log, bank).items():
        if b"" in digests:
            raise UnsupportedError(
                f"an event of PCR {pcr} lacks its {bank.label} digest", structure=STRUCTURE
            )
        values[pcr] = extend_all(initial_value(pcr, bank, log.initial_locality), digests, bank)
    return values


def measured_digests(log: ParsedEventLog, bank: HashAlg) -> dict[int, list[bytes]]:
    """Digests extended per PCR, in log order; empty bytes, which no PCR value can follow from, where one lacks.

    Raises:
        UnsupportedError: the log has no such bank.
    """
    if bank not in log.algorithms:
        raise UnsupportedError(f"the log has no {bank.label} bank", structure=STRUCTURE)
    per_pcr: dict[int, list[bytes]] = {}
    for _, pcr, event_type, digests, _, offset in log.events:
        if event_type == _NO_ACTION:
            continue
        digest = digests.get(bank)
        if digest is None:
            raise UnsupportedError(
                f"an event lacks its {bank.label} digest", structure=STRUCTURE, offset=offset
            )
        known = per_pcr.get(pcr)
        if known is None:
            per_pcr[pcr] = [digest]
        else:
            known.append(digest)
    return per_pcr


def initial_value(pcr: int, bank: HashAlg, locality: int = 0) -> bytes:
    """Value of a PCR after a TPM reset (TPM 2.0 Library, Part 1, section 17.6; PFP section 3.3.1)."""
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


def _parse_spec_id(data: bytes, size: int) -> tuple[SpecId, int]:
    """The Spec ID event that opens the log, and by how many bytes its vendor information overhangs it."""
    start, end = _HEADER.size, _HEADER.size + size
    offset = start + _SIGNATURE_SIZE
    if end - offset < _SPEC_ID.size:
        raise _error(28, f"a Spec ID event of {size} bytes is too short")
    platform_class, minor, major, errata, uintn_size, count = _SPEC_ID.unpack_from(data, offset)
    if major != _SUPPORTED_MAJOR:
        raise _error(offset + 5, f"specification version {major}.{minor} is not 2.x")
    offset += 8
    if not 0 < count <= _MAX_ALGORITHMS or count * 4 > end - offset - 4:
        raise _error(offset, f"{count} algorithms are declared")
    offset += 4
    algorithms: dict[int, int] = {}
    for _ in range(count):
        alg, digest_size = struct.unpack_from("<HH", data, offset)
        known = HASH_BY_ID.get(alg)
        if alg in algorithms:
            raise _error(offset, f"algorithm 0x{alg:04x} is declared twice")
        if (known is not None and known.size != digest_size) or not 0 < digest_size <= _MAX_UNKNOWN_DIGEST:
            raise _error(offset + 2, f"algorithm 0x{alg:04x} is declared with digests of {digest_size} bytes")
        algorithms[alg] = digest_size
        offset += 4
    if offset >= end:
        raise _error(offset, "vendorInfoSize is missing")
    vendor_size = data[offset]
    excess = offset + 1 + vendor_size - end
    if excess not in (0, vendor_size) or excess > len(data) - end:
        raise _error(offset, f"vendorInfoSize {vendor_size} does not fit the {end - offset - 1} bytes left")
    vendor_info = data[offset + 1 : offset + 1 + vendor_size]
    version = (major, minor, errata)
    return SpecId(platform_class, version, uintn_size, tuple(algorithms.items()), vendor_info), max(excess, 0)


def _parse_sha1(data: bytes) -> ParsedEventLog:
    events: list[Event] = []
    offset, end = 0, len(data)
    padding = _padding_start(data)
    unpack, fixed = _HEADER.unpack_from, _HEADER.size
    while end - offset >= fixed:
        pcr, event_type, digest, size = unpack(data, offset)
        start = offset + fixed
        if size > end - start or pcr > MAX_PCR:
            if offset >= padding:
                break
            _checked_pcr(pcr, event_type, offset)
            if size > end - start:
                raise _error(offset + 28, f"event size {size} exceeds the {end - start} bytes left")
        elif not pcr and not event_type and not size and offset >= padding:
            break
        events.append(
            Event(len(events), pcr, event_type, {HashAlg.SHA1: digest}, data[start : start + size], offset)
        )
        if len(events) > MAX_EVENTS:
            raise _error(offset, f"more than {MAX_EVENTS} events")
        offset = start + size
    if offset < end and not offset >= padding:
        raise _error(offset, f"an event needs {fixed} bytes, {end - offset} are left")
    return _finish(LogFormat.SHA1, None, (HashAlg.SHA1,), events, offset, end, ())


def _parse_agile(
    data: bytes, offset: int, spec_id: SpecId, banks: tuple[HashAlg, ...], events: list[Event]
) -> int:
    """Append the TCG_PCR_EVENT2 list from `offset` on; returns where it ends.

    Nearly every event has one digest per declared bank in the declared order, so that one unpacking reads all
    of its fixed part; anything else goes to the careful path, which knows where a fault is.
    """
    count = len(spec_id.algorithms)
    # count == 0 cannot be: `_parse_spec_id` demands at least one.
    layout = struct.Struct("<III" + "".join(f"H{size}s" for _, size in spec_id.algorithms) + "I")
    ids = tuple(alg for alg, _ in spec_id.algorithms)
    all_known = len(banks) == count
    sizes = dict(spec_id.algorithms)
    padding = _padding_start(data)
    unpack, fixed, end = layout.unpack_from, layout.size, len(data)
    index = len(events)
    while offset < end:
        if all_known and end - offset >= fixed:
            fields = unpack(data, offset)
            size = fields[-1]
            stop = offset + fixed + size
            if fields[2] == count and fields[3:-1:2] == ids and fields[0] <= MAX_PCR and stop <= end:
                digests = dict(zip(banks, fields[4:-1:2], strict=True))
                events.append(
                    Event(index, fields[0], fields[1], digests, data[offset + fixed : stop], offset)
                )
                index += 1
                if index > MAX_EVENTS:
                    raise _error(offset, f"more than {MAX_EVENTS} events")
                offset = stop
                continue
        if offset >= padding:
            break
        event, offset = _parse_event2(data, offset, sizes, index)
        events.append(event)
        index += 1
        if index > MAX_EVENTS:
            raise _error(offset, f"more than {MAX_EVENTS} events")
    return offset


def _parse_event2(data: bytes, start: int, sizes: Mapping[int, int], index: int) -> tuple[Event, int]:
    """One TCG_PCR_EVENT2 (section 10.2.2), field by field; returns it and the offset after it."""
    end = len(data)
    if end - start < _EVENT2.size:
        raise _error(start, f"an event needs {_EVENT2.size} bytes, {end - start} are left")
    pcr, event_type, count = _EVENT2.unpack_from(data, start)
    _checked_pcr(pcr, event_type, start)
    if not 0 < count <= len(sizes):
        raise _error(start + 8, f"{count} digests where the log declares {len(sizes)} banks")
    offset = start + _EVENT2.size
    digests: dict[HashAlg, bytes] = {}
    seen: set[int] = set()
    for _ in range(count):
        if end - offset < _U16.size:
            raise _error(offset, "the log ends inside a digest")
        (alg,) = _U16.unpack_from(data, offset)
        size = sizes.get(alg)
        if size is None or alg in seen:
            raise _error(offset, f"algorithm 0x{alg:04x} is {'repeated' if alg in seen else 'not declared'}")
        seen.add(alg)
        offset += _U16.size
        if end - offset < size:
            raise _error(offset, f"a digest needs {size} bytes, {end - offset} are left")
        known = HASH_BY_ID.get(alg)
        if known is not None:
            digests[known] = data[offset : offset + size]
        offset += size
    if end - offset < _U32.size:
        raise _error(offset, "the log ends before the event size")
    (size,) = _U32.unpack_from(data, offset)
    if size > end - offset - _U32.size:
        raise _error(offset, f"event size {size} exceeds the {end - offset - _U32.size} bytes left")
    offset += _U32.size
    return Event(index, pcr, event_type, digests, data[offset : offset + size], start), offset + size


def _padding_start(data: bytes) -> int:
    """Offset from which on only 0x00 or only 0xff follows; found once, so that no log can make it cost n squared."""
    return len(data.rstrip(data[-1:])) if data[-1] in _FILLERS else len(data)


def _finish(
    log_format: LogFormat,
    spec_id: SpecId | None,
    banks: tuple[HashAlg, ...],
    events: list[Event],
    end: int,
    total: int,
    quirks: tuple[LogQuirk, ...],
) -> ParsedEventLog:
    locality, hcrtm = None, False
    for event in events:
        if event.event_type == _HCRTM:
            hcrtm = True
        elif event.event_type == _NO_ACTION and locality is None and event.data.startswith(_STARTUP_LOCALITY):
            locality = _startup_locality(event)
    if end < total:
        quirks = (*quirks, LogQuirk.PADDED)
    unknown = tuple(pair for pair in spec_id.algorithms if pair[0] not in HASH_BY_ID) if spec_id else ()
    return ParsedEventLog(log_format, spec_id, banks, unknown, tuple(events), end, locality, hcrtm, quirks)


def _startup_locality(event: Event) -> int | None:
    """The locality TPM2_Startup came from (section 10.4.5.3), or None where the record is not one of PCR 0."""
    value = event.data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(value) != 1 or value[0] not in _LOCALITIES:
        return None
    return value[0]
