"""Make boot logs that do not replay, each with one known deviation, and say what should be told of them.

The TPM of every case holds what the machine really extended; only the log is wrong, as real firmware, kernels and
readers make it wrong. Whatever log these are made from, the diagnosis must be the same.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.event_logs import Pcrs
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import Event, ParsedEventLog, extend_all, initial_value, parse_event_log

NO_ACTION = int(EventType.EV_NO_ACTION)
ACTION = int(EventType.EV_EFI_ACTION)
EXIT = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
HCRTM_LOCALITY = 4
LOCALITY = b"StartupLocality\0"


@dataclass(frozen=True, slots=True)
class Case:
    """A log and the PCRs it came with.

    Attributes:
        pcrs: those that must be diagnosed, each with the position after which log and value part (None: of none, or
            not to be told).
    """

    name: str
    log: bytes
    quoted: Pcrs
    quirk: Quirk
    pcrs: dict[int, int | None]
    believed: bool


def written(log: ParsedEventLog, events: list[Event]) -> bytes:
    """Crypto-agile bytes of these events; the first is the Spec ID event."""
    first = events[0]
    out = struct.pack("<II20sI", first.pcr, first.event_type, bytes(20), len(first.data)) + first.data
    for event in events[1:]:
        out += struct.pack("<III", event.pcr, event.event_type, len(log.algorithms))
        for bank, digest in zip(log.algorithms, event.digests, strict=True):
            out += struct.pack("<H", bank.tpm_id) + digest
        out += struct.pack("<I", len(event.data)) + event.data
    return out


def event(log: ParsedEventLog, pcr: int, kind: int, data: bytes, measured: bytes | None = None) -> Event:
    content = data if measured is None else measured
    digests = tuple(
        bytes(bank.size) if kind == NO_ACTION else bank.digest(content) for bank in log.algorithms
    )
    return Event(pcr, kind, digests, data, 0)


def quoted(
    log: ParsedEventLog, events: list[Event], banks: Iterable[HashAlg], locality: int | None = None
) -> Pcrs:
    """PCRs 0 to 15 after exactly these events."""
    start = log.initial_locality if locality is None else locality
    values: Pcrs = {}
    for bank in banks:
        column = log.algorithms.index(bank)
        values[bank] = {pcr: initial_value(pcr, bank, start) for pcr in range(16)}
        for one in events:
            if one.event_type != NO_ACTION and one.pcr < 16:
                values[bank][one.pcr] = extend_all(values[bank][one.pcr], [one.digests[column]], bank)
    return values


class Deviants:
    """Every deviation, made from one log that replays."""

    def __init__(self, data: bytes, banks: tuple[HashAlg, ...] = (HashAlg.SHA256,), seed: int = 1) -> None:
        self.data = data
        self.log = parse_event_log(data)
        self.events = list(self.log.events)
        self.banks = banks
        self.true = quoted(self.log, self.events, [bank for bank in banks if bank in self.log.algorithms])
        self.random = random.Random(seed)
        self.measured = [
            place for place, one in enumerate(self.events) if one.event_type != NO_ACTION and one.pcr < 16
        ]

    @property
    def usable(self) -> bool:
        """Whether every event has every digest, and there are enough of them."""
        whole = all(all(one.digests) for one in self.events[1:])
        return (
            set(self.banks) <= set(self.log.algorithms)
            and whole
            and len(self.measured) > 20
            and len(self.of(5)) > 0
        )

    def of(self, pcr: int) -> list[int]:
        return [place for place in self.measured if self.events[place].pcr == pcr]

    def all(self) -> Iterator[Case]:
        yield from self.extra_tail()
        yield from self.not_extended()
        yield self.zero_digests()
        yield self.duplicated()
        yield from self.exit_strings()
        yield from self.capped()
        yield from self.localities()
        yield from self.separator_unlogged()
        yield self.extended_twice()
        yield self.never_extended()
        yield self.firmware_pcr0()
        yield self.vmware_pcr0()
        yield from self.extended_after()
        yield from self.cut()

    def case(
        self,
        name: str,
        quirk: Quirk,
        pcrs: dict[int, int | None],
        *,
        events: list[Event] | None = None,
        values: Pcrs | None = None,
        believed: bool = True,
    ) -> Case:
        log = self.data if events is None else written(self.log, events)
        return Case(f"{quirk.value}: {name}", log, values or self.true, quirk, pcrs, believed)

    def extra_tail(self) -> Iterator[Case]:
        """Records that were never extended, at the end: one, several, in several PCRs."""
        for many in (1, 3):
            pcr = self.events[self.random.choice(self.measured)].pcr
            extra = [
                event(self.log, pcr, ACTION, f"never extended {number}".encode()) for number in range(many)
            ]
            yield self.case(
                f"{many} in PCR {pcr}",
                Quirk.EXTRA_TAIL_EVENTS,
                {pcr: self.of(pcr)[-1]},
                events=[*self.events, *extra],
            )

    def not_extended(self) -> Iterator[Case]:
        """One event in the middle that was logged and not extended."""
        for place in self.random.sample(self.measured, 3):
            pcr = self.events[place].pcr
            lie = event(self.log, pcr, ACTION, b"logged, not extended")
            events = [*self.events[:place], lie, *self.events[place:]]
            before = [each for each in self.of(pcr) if each < place]
            yield self.case(
                f"at {place}", Quirk.EVENT_NOT_EXTENDED, {pcr: before[-1] if before else None}, events=events
            )

    def zero_digests(self) -> Case:
        """Two events whose digest is zeros: nothing was measured."""
        place, pcr = self.of(1)[0] if self.of(1) else self.measured[0], 1
        pcr = self.events[place].pcr
        zero = event(self.log, pcr, 1, b"BL_2")._replace(
            digests=tuple(bytes(b.size) for b in self.log.algorithms)
        )
        events = [*self.events[: place + 1], zero, zero, *self.events[place + 1 :]]
        # two alike at the very end of a PCR are a tail, whatever their digest
        tail = place == self.of(pcr)[-1]
        quirk = Quirk.EXTRA_TAIL_EVENTS if tail else Quirk.EVENT_NOT_EXTENDED
        return self.case("zero digests", quirk, {pcr: place}, events=events)

    def duplicated(self) -> Case:
        """The final events table joined to the log blindly: what came after GetEventLog stands there twice."""
        exits = [event(self.log, 5, ACTION, text) for text in EXIT]
        plain = [one for one in self.events if one.data not in EXIT]
        start = max(2, len(plain) - 6)
        late = plain[start:]
        values = quoted(self.log, [*plain, *exits], self.banks)
        touched = {one.pcr for one in late if one.event_type != NO_ACTION}
        last = {
            pcr: max(i for i, one in enumerate(plain) if one.pcr == pcr and one.event_type != NO_ACTION)
            for pcr in touched
        }
        return self.case(
            "final events", Quirk.FINAL_EVENTS_DUPLICATED, last, events=[*plain, *late, *exits], values=values
        )

    def exit_strings(self) -> Iterator[Case]:
        """ExitBootServices, measured after the log was read; also when the first attempt failed."""
        failed = b"Exit Boot Services Returned with Failure"
        plain = [one for one in self.events if not one.data.startswith(b"Exit Boot Services")]
        plain.append(event(self.log, 5, int(EventType.EV_EFI_GPT_EVENT), b"partitions"))
        for name, strings in {
            "both": EXIT,
            "a failed attempt first": (EXIT[0], failed, *EXIT),
            "edk2's order": (failed, *EXIT),
        }.items():
            more = [event(self.log, 5, ACTION, text) for text in strings]
            values = quoted(self.log, [*plain, *more], self.banks)
            yield self.case(
                name, Quirk.EXIT_BOOT_SERVICES_UNLOGGED, {5: len(plain) - 1}, events=plain, values=values
            )

    def capped(self) -> Iterator[Case]:
        for pcr in {self.events[place].pcr for place in self.measured[:: max(1, len(self.measured) // 3)]}:
            values = {bank: dict(each) for bank, each in self.true.items()}
            for bank in self.banks:
                values[bank][pcr] = extend_all(values[bank][pcr], [bytes(bank.size)], bank)
            yield self.case(f"PCR {pcr}", Quirk.BANK_CAPPED, {pcr: self.of(pcr)[-1]}, values=values)

    def localities(self) -> Iterator[Case]:
        """The record of the startup locality is missing, or names another one."""
        plain = [one for one in self.events if not one.data.startswith(LOCALITY)]
        wrong = [*plain[:1], event(self.log, 0, NO_ACTION, LOCALITY + b"\3"), *plain[1:]]
        for name, events, locality in (("missing", plain, 3), ("H-CRTM", plain, 4), ("wrong", wrong, 0)):
            if self.log.hcrtm and events is plain and locality == HCRTM_LOCALITY:
                continue  # that is what the log says
            values = quoted(self.log, events, self.banks, locality)
            yield self.case(name, Quirk.MISSING_STARTUP_LOCALITY, {0: None}, events=events, values=values)

    def separator_unlogged(self) -> Iterator[Case]:
        """Firmware extended a separator and did not log it. Nothing is believed: it would let late events look early."""
        for pcr in (7, 4, 1, 2):
            place = self._separator(pcr)
            if place is None or place == self.of(pcr)[-1]:
                continue
            before = [each for each in self.of(pcr) if each < place]
            yield self.case(
                f"separator of PCR {pcr}",
                Quirk.EVENT_UNLOGGED,
                {pcr: before[-1] if before else None},
                events=[*self.events[:place], *self.events[place + 1 :]],
                believed=False,
            )

    def _separator(self, pcr: int) -> int | None:
        found = [
            p
            for p in self.of(pcr)
            if self.events[p].event_type == EventType.EV_SEPARATOR and self.events[p].data == bytes(4)
        ]
        return found[0] if len(found) == 1 else None

    def extended_twice(self) -> Case:
        """Extended twice, logged once."""
        place = self.random.choice(
            [
                p
                for p in self.measured
                if self.events[p].pcr < 8 and self.events[p].data not in EXIT and not self._again(p)
            ]
        )
        pcr = self.events[place].pcr
        values = quoted(
            self.log, [*self.events[: place + 1], self.events[place], *self.events[place + 1 :]], self.banks
        )
        return self.case(
            f"twice at {place}", Quirk.EVENT_UNLOGGED, {pcr: place}, values=values, believed=False
        )

    def _again(self, place: int) -> bool:
        """The next event of the PCR has the same digests, so that which of them was extended twice is all one."""
        later = [p for p in self.of(self.events[place].pcr) if p > place]
        return bool(later) and self.events[later[0]].digests == self.events[place].digests

    def never_extended(self) -> Case:
        pcr = self.events[self.random.choice(self.measured)].pcr
        values = {bank: dict(each) for bank, each in self.true.items()}
        for bank in self.banks:
            values[bank][pcr] = initial_value(pcr, bank, self.log.initial_locality if pcr == 0 else 0)
        return self.case(f"PCR {pcr}", Quirk.PCR_NEVER_EXTENDED, {pcr: None}, values=values, believed=False)

    def _unknown(self, pcr: int, *, early: bool) -> Pcrs:
        """Something nobody knows was extended into `pcr`, before or behind the log's events."""
        secret = event(self.log, pcr, ACTION, b"what nobody logged")
        events = [*self.events[:1], secret, *self.events[1:]] if early else [*self.events, secret]
        return quoted(self.log, events, self.banks)

    def firmware_pcr0(self) -> Case:
        return self.case(
            "measured before",
            Quirk.FIRMWARE_PCR0,
            {0: None},
            values=self._unknown(0, early=True),
            believed=False,
        )

    def vmware_pcr0(self) -> Case:
        """As a guest on VMware is told: by its boot entries."""
        entry = event(
            self.log,
            1,
            int(EventType.EV_EFI_VARIABLE_BOOT),
            "EFI VMware Virtual SCSI Hard Drive (0.0)".encode("utf-16-le"),
        )
        secret = event(self.log, 0, ACTION, b"what nobody logged")
        events = [*self.events, entry]
        values = quoted(self.log, [events[0], secret, *events[1:]], self.banks)
        return self.case(
            "boot entry", Quirk.VMWARE_PCR0, {0: None}, events=events, values=values, believed=False
        )

    def extended_after(self) -> Iterator[Case]:
        for pcr in (8, 9, 11, 12, 14):
            if self.of(pcr):
                yield self.case(
                    f"PCR {pcr}",
                    Quirk.EXTENDED_AFTER_LOG,
                    {pcr: None},
                    values=self._unknown(pcr, early=False),
                    believed=False,
                )

    def cut(self) -> Iterator[Case]:
        """The buffer was full: the log ends inside an event."""
        for place in self.random.sample(self.measured[len(self.measured) // 2 :], 3):
            one = self.events[place]
            size = (
                self.events[place + 1].offset if place + 1 < len(self.events) else self.log.size
            ) - one.offset
            for length in {8, 13, size - 1}:
                cut = self.data[: one.offset + length]
                left = parse_event_log(cut, allow_cut=True)
                values = quoted(left, list(left.events), self.banks)
                lost = {
                    pcr: None
                    for pcr in range(16)
                    if any(e.pcr == pcr and e.event_type != NO_ACTION for e in left.events)
                    and any(values[bank][pcr] != self.true[bank][pcr] for bank in self.banks)
                }
                yield Case(
                    f"truncated-log: {length} of {size} bytes of event {place}",
                    cut,
                    self.true,
                    Quirk.TRUNCATED_LOG,
                    lost,
                    believed=False,
                )
