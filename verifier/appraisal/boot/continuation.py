"""Continue a boot log by what systemd measured from userspace, as far as both lead to quoted values.

Both logs are text that whoever runs the machine can edit, and an event can stand in either. So an event of this log is
treated as one more event of the boot log: what its digests prove decides, never which log it came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from verifier.appraisal.boot.binding import BoundLog
from verifier.appraisal.boot.explain import BOOT_PHASES, UKI_PCR
from verifier.claims import Binding
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import USERSPACE
from verifier.tcg.eventlog import Event, ParsedEventLog, extend_all, initial_value, measured_digests
from verifier.tcg.userspace_log import UserspaceEvent, UserspaceLog
from verifier.tcg.userspace_text import OS_SEPARATOR

Quoted = Mapping[HashAlg, Mapping[int, bytes]]
NOTHING: Final = UserspaceLog((), 0)


@dataclass(frozen=True, slots=True)
class Continuation:
    """A boot log with the userspace events that lead on from it to the quoted values.

    Attributes:
        log: the boot log, those events appended; the boot log itself where there are none.
        first: position of the first of them.
        phases: boot phases among what leads on in PCR 11, where it is nothing but systemd's own, each once and in
            order; they are then not appended. None where it is something else, or nothing was tried.
        later: events that may have been measured after the quote; nothing is proven of them.
        unexplained: quoted PCRs that have such events, none of which leads to the quoted value.
        continued: how many events lead on, boot phases included.
    """

    log: ParsedEventLog
    first: int
    phases: tuple[str, ...] | None = None
    later: tuple[UserspaceEvent, ...] = ()
    unexplained: tuple[int, ...] = ()
    continued: int = 0


def continue_log(log: ParsedEventLog, userspace: UserspaceLog, quoted: Quoted) -> Continuation:
    """Append to `log` what leads on to the quoted values.

    Per PCR that is the one number of events, from the front of the userspace log, that leads to the quoted value in
    every quoted bank: the log is read after the quote, so it may be ahead of it. Where no number does, something was
    extended that neither log has: then none of them is taken, and the boot log is judged as without this log.

    Args:
        log: the untrusted boot log.
        userspace: the untrusted log of systemd.
        quoted: quoted values per bank, already proven by the quote.
    """
    replayed = [bank for bank in quoted if bank in log.algorithms and bank.new is not None]
    measured = {bank: measured_digests(log, bank) for bank in replayed}
    taken: set[int] = set()
    phases: tuple[str, ...] | None = None
    unexplained: list[int] = []
    for pcr, events in _by_pcr(userspace).items():
        banks = [bank for bank in replayed if pcr in quoted[bank]]
        starts = {
            bank: extend_all(
                initial_value(pcr, bank, log.initial_locality), measured[bank].get(pcr, []), bank
            )
            for bank in banks
        }
        count = _leading(events, starts, {bank: quoted[bank][pcr] for bank in banks}) if banks else 0
        if count is None:
            unexplained.append(pcr)
        elif pcr == UKI_PCR and _are_phases(said := [event.text for event in events[:count]], events, banks):
            phases = tuple(text for text in said if text is not None)
            taken.update(event.offset for event in events[:count])
        else:
            taken.update(event.offset for event in events[:count])
    appended = [
        _event(event, log.algorithms)
        for event in userspace.events
        if event.offset in taken and not (phases is not None and event.pcr == UKI_PCR)
    ]
    return Continuation(
        log=dataclasses.replace(log, events=(*log.events, *appended)) if appended else log,
        first=len(log.events),
        phases=phases,
        later=tuple(e for e in userspace.events if e.pcr is not None and e.offset not in taken),
        unexplained=tuple(sorted(unexplained)),
        continued=len(taken),
    )


def append_all(log: ParsedEventLog, userspace: UserspaceLog) -> ParsedEventLog:
    """Every event of the userspace log behind the boot log, for a display that is held against nothing."""
    added = [_event(event, log.algorithms) for event in userspace.events if event.pcr is not None]
    return dataclasses.replace(log, events=(*log.events, *added)) if added else log


def _by_pcr(userspace: UserspaceLog) -> dict[int, list[UserspaceEvent]]:
    per_pcr: dict[int, list[UserspaceEvent]] = {}
    for event in userspace.events:
        if event.pcr is not None:
            per_pcr.setdefault(event.pcr, []).append(event)
    return per_pcr


def _leading(
    events: Sequence[UserspaceEvent], starts: Mapping[HashAlg, bytes], quoted: Mapping[HashAlg, bytes]
) -> int | None:
    """How many events lead to the quoted value of every bank; None where no number of them does."""
    values = dict(starts)
    for count in range(len(events) + 1):
        if values == quoted:
            return count
        if count == len(events) or not values.keys() <= events[count].digests.keys():
            break  # a bank that the event did not extend has no value from here on
        values = {
            bank: extend_all(value, [events[count].digests[bank]], bank) for bank, value in values.items()
        }
    return None


def _are_phases(
    said: Sequence[str | None], events: Sequence[UserspaceEvent], banks: Sequence[HashAlg]
) -> bool:
    """Whether these are systemd's own words, each once and in order, and hashed as such."""
    if not said:
        return False
    places = [BOOT_PHASES.index(text) if text in BOOT_PHASES else -1 for text in said]
    if places[0] < 0 or any(after <= before for before, after in pairwise(places)):
        return False
    return all(
        event.digests[bank] == bank.digest((text or "").encode())
        for event, text in zip(events, said, strict=False)
        for bank in banks
    )


def _event(event: UserspaceEvent, algorithms: Sequence[HashAlg]) -> Event:
    digests = tuple(event.digests.get(bank, b"") for bank in algorithms)
    return Event(event.pcr or 0, USERSPACE, digests, (event.text or "").encode(), event.offset)


def set_aside_separators(bound: BoundLog, first: int) -> None:
    """Keep `os-separator` from those who read what loaders measured into a PCR; its event stays a fact.

    systemd extends it into PCRs 0 to 7, 9 and 12 to 14 when the operating system takes over. Its digest is that of
    one known string, so nothing can hide in it, and `PCR 12 is empty` goes on to mean that no loader wrote there.
    """
    for position in range(first, len(bound.facts)):
        fact = bound.facts[position]
        if fact.name == OS_SEPARATOR and fact.binding is Binding.BOUND:
            bound.positions[fact.pcr].remove(position)
            if not bound.positions[fact.pcr]:
                del bound.positions[fact.pcr]
