"""Is it one machine, and does it go on where it was? Clones and rollbacks (docs/clones-and-rollbacks.md).

`check_history` places evidence beside the line of states known so far; `advanced` is the line after it.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from verifier.appraisal.checks.clock import ClockRelation, clock_findings, clock_relation, history_finding
from verifier.appraisal.checks.ratchet import ratchet_finding, read_ratchet
from verifier.appraisal.evidence import Evidence, Expectation, History
from verifier.appraisal.lineage import (
    BootCounter,
    Guest,
    Incident,
    IncidentKind,
    Lineage,
    left_behind,
    machine_of,
    seen,
)
from verifier.appraisal.place import ON_LINE, PARTED, Handed, Place, RatchetRelation, Shown
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import BootFacts, QuoteFacts
from verifier.crypto.ratchet import RatchetChain, extended
from verifier.reasons import Reason
from verifier.tcg.event_types import EventType

_GRAVITY: Final = {kind: number for number, kind in enumerate(IncidentKind)}
_TAGGED_PCRS: Final = frozenset({12, 13})


class HistoryOutcome(NamedTuple):
    """Findings about the history, and where the evidence stands in it."""

    findings: tuple[Finding, ...]
    place: Place


def check_history(
    evidence: Evidence, expected: Expectation, facts: QuoteFacts, history: History
) -> HistoryOutcome:
    """Compare a verified quote, and the ratchet beside it, with what was proven before.

    Proven: a state that is not after the last one shows that TPM state was restored or copied; two lines that both
    go on show two copies. Not proven: that a line which goes on was never copied; a copy that never speaks leaves no
    trace.

    Raises:
        MalformedInputError, UnsupportedError: the ratchet's certificate cannot be read.
    """
    line, before = history.lineage, history.last_clock
    clock = clock_relation(facts.clock, before)
    shown = read_ratchet(evidence, expected, facts, line)
    who = _identify(evidence, line)
    parted = clock is ClockRelation.BACK or shown.relation in PARTED
    place = Place(
        clock=facts.clock,
        smbios_uuid=who.smbios_uuid,
        boot_id=who.boot_id,
        shown=shown,
        parted=parted,
        adopted=before is None or shown.relation is RatchetRelation.STARTS,
        incident=_incident(who, shown, history, parted=parted),
    )
    findings = [
        *clock_findings(facts, clock, before, history.last_firmware_version),
        ratchet_finding(shown, line),
        _new_kernel(who, clock, line),
    ]
    return HistoryOutcome(tuple(one for one in findings if one is not None), place)


def check_boot_counter(
    place: Place, boot: BootFacts | None, line: Lineage
) -> tuple[Place, tuple[Finding, ...]]:
    """Compare Windows' own count of its boots; it is read off the boot log, so it comes after the quote's checks.

    A lower count under the same id shows a restored TPM even where clock and ratchet do not.
    """
    now, before = windows_boot_counter(boot), line.boot_counter
    if now is None:
        return place, ()
    if before is None or now.id != before.id or now.value >= before.value:
        return dataclasses.replace(place, boot_counter=now), ()
    kind = _graver(place.incident, IncidentKind.ROLLBACK)
    finding = history_finding(
        Reason.BOOT_COUNTER_ROLLBACK,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "Windows' count of its boots went back: an earlier state was restored",
        expected=f"at least {before.value}",
        actual=str(now.value),
    )
    return dataclasses.replace(place, boot_counter=now, parted=True, incident=kind), (finding,)


def windows_boot_counter(boot: BootFacts | None) -> BootCounter | None:
    """The counter as the Windows boot manager measured it; None for other systems."""
    if boot is None or not any(
        event.pcr in _TAGGED_PCRS and event.event_type == EventType.EV_EVENT_TAG for event in boot.events
    ):
        return None  # decoding the details of every Linux log would cost as much as all other checks
    details = boot.details
    if details is None or details.windows is None:
        return None
    numbers = details.windows.parameters
    value = numbers.get("bootcounter")
    return None if value is None else BootCounter(id=numbers.get("counterid", 0), value=value)


def incident_finding(place: Place, history: History) -> Finding | None:
    """What the evidence and all before it come to, for as long as nobody has resolved it."""
    if place.incident is None:
        return None
    guests = ", ".join(_known_uuids(history, place.smbios_uuid)) or "no UUID given"
    if place.incident is IncidentKind.CLONE_SUSPECTED:
        return history_finding(
            Reason.CLONE_SUSPECTED,
            Status.FAILED,
            Severity.WARNING,
            "machines with different SMBIOS UUIDs speak with one TPM",
            expected="one UUID",
            actual=guests,
        )
    if place.incident is IncidentKind.ROLLBACK:
        return history_finding(
            Reason.ROLLBACK,
            Status.FAILED,
            Severity.CONTRAINDICATED,
            "an earlier state of this machine's TPM was brought back, and nobody has said that it was meant",
            actual=guests,
        )
    return history_finding(
        Reason.CLONE_PROVEN,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "two lines of state of one TPM have both gone on: the machine runs more than once",
        expected="one machine",
        actual=guests,
    )


def advanced(line: Lineage, place: Place, hostname: str | None, now: datetime) -> Lineage:
    """The line after this evidence. Evidence that has parted moves nothing of it but who was seen."""
    shown = place.shown
    guest = Guest(
        smbios_uuid=place.smbios_uuid,
        boot_id=place.boot_id,
        hostname=hostname,
        clock=place.clock,
        ratchet=shown.content,
        seen_at=now,
    )
    line = dataclasses.replace(line, guests=seen(line, guest), incident=_kept(line.incident, place, now))
    if place.parted:
        return line
    moved = shown.relation in ON_LINE and shown.content != line.ratchet
    return dataclasses.replace(
        line,
        clock=place.clock,
        boot_counter=place.boot_counter or line.boot_counter,
        smbios_uuid=place.smbios_uuid or line.smbios_uuid,
        trail=left_behind(line, line.ratchet) if moved else line.trail,
        ratchet=shown.content if moved else line.ratchet,
        ratchet_next=None if moved else line.ratchet_next,
        step=max(line.step, shown.step or 0),
    )


def hand_out(
    line: Lineage, place: Place, chain: RatchetChain | None, now: datetime, at_most_every: timedelta
) -> tuple[Lineage, Handed | None]:
    """The next value for whoever showed that it is where the line is; nothing for anyone else."""
    due = line.handed_at is None or now - line.handed_at >= at_most_every
    if (
        chain is None
        or place.parted
        or place.shown.relation not in ON_LINE
        or line.ratchet is None
        or not due
    ):
        return line, None
    step = line.step + 1
    value = chain.value(step, line.ratchet)
    following = extended(line.ratchet, value)
    return (
        dataclasses.replace(line, step=step, ratchet_next=following, handed_at=now),
        Handed(step, value),
    )


class _Who(NamedTuple):
    """What the guest says of itself, with what it left out filled in from who was seen last."""

    smbios_uuid: str | None
    boot_id: str | None
    returned: bool
    """Seen before, and somebody else since."""
    moved: bool
    """Another UUID than the line's."""
    same_kernel: bool


def _identify(evidence: Evidence, line: Lineage) -> _Who:
    uuid, boot_id, newest = evidence.smbios_uuid, evidence.boot_id, line.newest
    machine = machine_of(uuid)
    if newest is not None:
        last = machine_of(newest.smbios_uuid)
        if boot_id is None and machine in {None, last}:
            boot_id = newest.boot_id
        if machine is None and boot_id == newest.boot_id:
            uuid, machine = newest.smbios_uuid, last
    keys = [(machine_of(guest.smbios_uuid), guest.boot_id) for guest in line.guests]
    key = (machine, boot_id)
    of_line = machine_of(line.smbios_uuid)
    return _Who(
        uuid,
        boot_id,
        returned=None not in key and key in keys[:-1] and key != keys[-1],
        moved=machine is not None and of_line is not None and machine != of_line,
        same_kernel=newest is None or None in {boot_id, newest.boot_id} or boot_id == newest.boot_id,
    )


def _incident(who: _Who, shown: Shown, history: History, *, parted: bool) -> IncidentKind | None:
    line = history.lineage
    prior = None if line.incident is None else line.incident.kind
    if _both_went_on(who, shown, line, parted=parted):
        return IncidentKind.CLONE_PROVEN
    if parted:
        return _graver(prior, IncidentKind.ROLLBACK)
    if len(_known_uuids(history, who.smbios_uuid)) > 1:
        return _graver(prior, IncidentKind.CLONE_SUSPECTED)
    return prior


def _both_went_on(who: _Who, shown: Shown, line: Lineage, *, parted: bool) -> bool:
    """Whether this evidence shows a second line of states beside the one that is known."""
    if shown.relation is RatchetRelation.SIBLING:
        return True
    if parted:
        # An older state in a machine with another UUID: it is a copy, whatever became of the original.
        return who.moved
    if who.returned:
        # Boot ids are never used twice: the earlier kernel was alive all the while the other was.
        return True
    # The line goes on although something had parted from it; by itself, what parted does not get back here.
    parted_at = None if line.incident is None else line.incident.parted
    on_line = shown.relation in {RatchetRelation.SAME, RatchetRelation.NEXT}
    return on_line and parted_at is not None and parted_at != line.ratchet


def _new_kernel(who: _Who, clock: ClockRelation, line: Lineage) -> Finding | None:
    if clock is not ClockRelation.SAME_BOOT or who.same_kernel or line.newest is None:
        return None
    return history_finding(
        Reason.BOOT_ID_CHANGED,
        Status.FAILED,
        Severity.INFO,
        "another kernel runs although the TPM was neither reset nor restarted",
        expected=line.newest.boot_id,
        actual=who.boot_id,
    )


def _known_uuids(history: History, claimed: str | None) -> list[str]:
    """The UUIDs claimed with this TPM, one spelling of each, without those that are known to be copies'."""
    refused = set(map(machine_of, history.lineage.refused))
    found: dict[str, str] = {}
    for uuid in sorted({*history.smbios_uuids, *([claimed] if claimed is not None else [])}):
        machine = machine_of(uuid)
        if machine is not None and machine not in refused:
            found.setdefault(machine, uuid)
    return sorted(found.values())


def _graver(one: IncidentKind | None, other: IncidentKind) -> IncidentKind:
    return other if one is None or _GRAVITY[other] > _GRAVITY[one] else one


def _kept(before: Incident | None, place: Place, now: datetime) -> Incident | None:
    if place.incident is None:
        return None
    parted = place.shown.content if place.parted else None if before is None else before.parted
    since = before.since if before is not None and before.kind is place.incident else now
    return Incident(kind=place.incident, since=since, parted=parted)
