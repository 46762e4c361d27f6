"""Boot event logs: bytes to events, events to PCR values.

Two formats (TCG PC Client Platform Firmware Profile, rev 1.06, section 10.2): the SHA-1 one, a list of
TCG_PCClientPCREvent, and the crypto-agile one, whose first event is a Spec ID Event03 that declares the banks
of the TCG_PCR_EVENT2 list after it. All integers are little-endian. Firmware, Windows (WBCL) and confidential
guests (CCEL) write the same structures.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import UnsupportedError
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.logevent import (
    DEFAULT_LIMIT,
    EVENT2_HEAD,
    HEADER,
    MAX_PCR,
    NO_PCR,
    EndsInsideError,
    Event,
    checked_pcr,
    event2_layout,
    malformed,
    new_event,
    parse_event1,
    parse_event2,
)
from verifier.tcg.spec_id import SPEC_ID_03, STRUCTURE, SpecId, parse_spec_id

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_EVENTS",
    "MAX_PCR",
    "NO_PCR",
    "Event",
    "LogFormat",
    "ParsedEventLog",
    "extend_all",
    "initial_value",
    "measured_digests",
    "parse_event_log",
    "replay",
]

MAX_EVENTS: Final = 16_384
"""Real logs have up to about 220 events; this bounds the memory a log of empty events can claim."""

_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_HCRTM: Final = int(EventType.EV_EFI_HCRTM_EVENT)
_LOCALITIES: Final = frozenset({0, 3, 4})
_HCRTM_LOCALITY: Final = 4
_DYNAMIC_PCRS: Final = range(17, 23)
_FILLERS: Final = (0x00, 0xFF)


class LogFormat(enum.Enum):
    """How the events are written."""

    SHA1 = "sha1"
    CRYPTO_AGILE = "crypto-agile"


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
        quirks: harmless deviations that were read over.
        cut_at: offset of an event that the log ends inside; everything before it was read. None: the log is whole.
    """

    format: LogFormat
    spec_id: SpecId | None
    algorithms: tuple[HashAlg, ...]
    unknown_algorithms: tuple[tuple[int, int], ...]
    events: tuple[Event, ...]
    size: int
    locality: int | None
    hcrtm: bool
    quirks: tuple[Quirk, ...]
    cut_at: int | None = None

    @property
    def initial_locality(self) -> int:
        """Locality of PCR 0's first value, as the log has it."""
        if self.locality is not None:
            return self.locality
        return _HCRTM_LOCALITY if self.hcrtm else 0


def parse_event_log(data: bytes, *, limit: int = DEFAULT_LIMIT, allow_cut: bool = False) -> ParsedEventLog:
    """Parse a whole boot log of either format.

    Args:
        data: the log as the kernel, the firmware table or Windows gives it, little-endian.
        limit: largest accepted size in bytes.
        allow_cut: take a log that ends inside an event, if at least one event before it is whole, for what it is
            (`cut_at`). Whoever asks for this must not take the result for the whole log.

    Raises:
        MalformedInputError: not such a log; `offset` is that of the field at fault.
        UnsupportedError: every bank of the log is of an unknown algorithm.
    """
    if len(data) > limit:
        raise malformed(limit, f"the log has {len(data)} bytes, at most {limit} are read")
    if len(data) < HEADER.size:
        raise malformed(len(data), f"the first event needs {HEADER.size} bytes, {len(data)} are here")
    if not _padding_start(data):
        return _finish(LogFormat.SHA1, None, (HashAlg.SHA1,), [], _Extent(0, len(data)))
    _, event_type, _, size = HEADER.unpack_from(data, 0)
    if size > len(data) - HEADER.size:
        raise malformed(28, f"event size {size} exceeds the {len(data) - HEADER.size} bytes left")
    first = data[HEADER.size : HEADER.size + size]
    if event_type == _NO_ACTION and first.startswith(SPEC_ID_03):
        return _parse_agile(data, first, allow_cut=allow_cut)
    return _parse_sha1(data, allow_cut=allow_cut)


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


def _parse_sha1(data: bytes, *, allow_cut: bool) -> ParsedEventLog:
    """A list of TCG_PCClientPCREvent (section 10.2.1)."""
    events: list[Event] = []
    offset, padding, cut = 0, _padding_start(data), False
    try:
        while offset < padding:
            _bounded(events, offset)
            event, offset = parse_event1(data, offset)
            events.append(event)
    except EndsInsideError:
        if not (allow_cut and events):
            raise
        cut = True
    return _finish(LogFormat.SHA1, None, (HashAlg.SHA1,), events, _Extent(offset, len(data), cut=cut))


def _bounded(events: list[Event], offset: int) -> None:
    if len(events) >= MAX_EVENTS:
        raise malformed(offset, f"more than {MAX_EVENTS} events")


def _parse_agile(data: bytes, first: bytes, *, allow_cut: bool) -> ParsedEventLog:
    """A Spec ID event, then a list of TCG_PCR_EVENT2 (section 10.2.2)."""
    spec_id, excess = parse_spec_id(data, HEADER.size, len(first))
    declared = spec_id.algorithms
    banks = tuple([HASH_BY_ID[alg] for alg, _ in declared if alg in HASH_BY_ID])
    if not banks:
        raise UnsupportedError("no bank of the log is of a known algorithm", structure=STRUCTURE, offset=60)
    pcr, event_type = EVENT2_HEAD.unpack_from(data, 0)
    none = (b"",) * len(banks)
    events = [Event(checked_pcr(pcr, event_type, 0), event_type, none, first, 0)]
    offset, cut = _parse_events2(data, HEADER.size + len(first) + excess, spec_id, banks, events)
    if cut is not None and not allow_cut:
        raise cut
    extent = _Extent(offset, len(data), overhang=excess, cut=cut is not None)
    return _finish(LogFormat.CRYPTO_AGILE, spec_id, banks, events, extent)


def _parse_events2(
    data: bytes, offset: int, spec_id: SpecId, banks: tuple[HashAlg, ...], events: list[Event]
) -> tuple[int, EndsInsideError | None]:
    """Appends to `events`; returns where they end, and why where that is inside one.

    Nearly every event has one digest per declared bank in the declared order, so that one unpacking reads all
    of its fixed part; anything else goes to the careful path, which knows where a fault is.
    """
    declared = spec_id.algorithms
    layout, marks = event2_layout(declared)
    unpack, fixed = layout.unpack_from, layout.size
    usual = fixed if len(banks) == len(declared) else len(data) + 1
    end, padding = len(data), _padding_start(data)
    while offset < padding:
        _bounded(events, offset)
        if end - offset >= usual:
            fields = unpack(data, offset)
            start = offset + fixed
            stop = start + fields[-1]
            if fields[2:-1:2] == marks and fields[0] <= MAX_PCR and stop <= end:
                events.append(
                    new_event(Event, (fields[0], fields[1], fields[3:-1:2], data[start:stop], offset))
                )
                offset = stop
                continue
        try:
            event, offset = parse_event2(data, offset, spec_id, banks)
        except EndsInsideError as cut:
            return offset, cut
        events.append(event)
    return offset, None


def _padding_start(data: bytes) -> int:
    """Offset from which on only 0x00 or only 0xff follows; found once, so that no log can make it cost n squared."""
    return len(data.rstrip(data[-1:])) if data[-1] in _FILLERS else len(data)


class _Extent(NamedTuple):
    """Where the events end (inside another one: `cut`), the log's length, and the Spec ID event's overhang."""

    used: int
    total: int
    overhang: int = 0
    cut: bool = False


def _finish(
    log_format: LogFormat,
    spec_id: SpecId | None,
    banks: tuple[HashAlg, ...],
    events: list[Event],
    extent: _Extent,
) -> ParsedEventLog:
    locality, hcrtm, padded = None, False, False
    for event in events:
        event_type = event.event_type
        if event_type == _HCRTM:
            hcrtm = True
        elif event_type == _NO_ACTION and locality is None and event.data.startswith(_STARTUP_LOCALITY):
            locality = _startup_locality(event)
            padded = padded or (locality is not None and len(event.data) > len(_STARTUP_LOCALITY) + 1)
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
        quirks=_quirks(extent, padded_locality=padded),
        cut_at=extent.used if extent.cut else None,
    )


def _quirks(extent: _Extent, *, padded_locality: bool) -> tuple[Quirk, ...]:
    found = (
        (Quirk.PADDED, extent.used < extent.total and not extent.cut),
        (Quirk.SPEC_ID_SIZE_OMITS_VENDOR_INFO, extent.overhang > 0),
        (Quirk.STARTUP_LOCALITY_PADDED, padded_locality),
    )
    return tuple([quirk for quirk, there in found if there])


def _startup_locality(event: Event) -> int | None:
    """The locality TPM2_Startup came from (section 10.4.5.3), or None where the record is not one of PCR 0.

    Zeros may follow: firmware with records of one size fills them up.
    """
    value = event.data[len(_STARTUP_LOCALITY) :]
    if event.pcr != 0 or not value or value[0] not in _LOCALITIES or any(value[1:]):
        return None
    return value[0]
