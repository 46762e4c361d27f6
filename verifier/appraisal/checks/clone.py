"""Is it one machine, and does it go on where it was? Clones and rollbacks (docs/clones.md).

`check_history` places evidence beside the line of states known so far; `advanced` is the line after it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct, structs

from verifier.appraisal.checks.clock import ClockRelation, clock_findings, clock_relation, history_finding
from verifier.appraisal.checks.guests import Who, both_kernels, identify, listed, several_uuids
from verifier.appraisal.checks.ratchet import ratchet_finding, read_ratchet
from verifier.appraisal.evidence import Evidence, Expectation, History
from verifier.appraisal.lineage import (
    BootCounter,
    Guest,
    Incident,
    IncidentKind,
    Lineage,
    left_behind,
    seen,
)
from verifier.appraisal.place import ON_LINE, PARTED, Place, RatchetRelation, Shown
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import BootFacts, QuoteFacts
from verifier.reasons import Reason

_GRAVITY: Final = {kind: number for number, kind in enumerate(IncidentKind)}
_BACK: Final = PARTED - {RatchetRelation.FOREIGN}
_GOES_ON: Final = frozenset({RatchetRelation.SAME, RatchetRelation.NEXT})


class HistoryOutcome(Struct, frozen=True):
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
    who = identify(evidence, facts.clock, line)
    parted = clock is ClockRelation.BACK or shown.relation in PARTED
    place = Place(
        clock=facts.clock,
        smbios_uuid=who.smbios_uuid,
        boot_id=who.boot_id,
        hostname=evidence.hostname,
        address=evidence.address,
        shown=shown,
        parted=parted,
        adopted=before is None or shown.relation is RatchetRelation.STARTS,
        incident=_incident(who, clock, shown, history),
    )
    findings = [
        *clock_findings(facts, clock, before, history.last_firmware_version),
        ratchet_finding(shown, line),
        both_kernels(who, clock, line),
    ]
    return HistoryOutcome(tuple([one for one in findings if one is not None]), place)


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
        return structs.replace(place, boot_counter=now), ()
    kind = _graver(place.incident, IncidentKind.ROLLBACK)
    finding = history_finding(
        Reason.BOOT_COUNTER_ROLLBACK,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "Windows' count of its boots went back: an earlier state was restored",
        expected=f"at least {before.value}",
        actual=str(now.value),
    )
    return structs.replace(place, boot_counter=now, parted=True, incident=kind), (finding,)


def windows_boot_counter(boot: BootFacts | None) -> BootCounter | None:
    """The counter as the Windows boot manager measured it; None for other systems."""
    if boot is None or not boot.tagged:
        return None  # decoding the details of every Linux log would cost as much as all other checks
    details = boot.details
    if details is None or details.windows is None:
        return None
    numbers = details.windows.parameters
    value = numbers.get("bootcounter")
    return None if value is None else BootCounter(id=numbers.get("counterid", 0), value=value)


def incident_finding(place: Place, history: History) -> Finding | None:
    """What the evidence and all before it come to, for as long as nobody has resolved it."""
    kind = place.incident
    if kind is None or (
        kind is IncidentKind.RATCHET_FOREIGN and place.shown.relation is RatchetRelation.FOREIGN
    ):
        return None  # the ratchet's own finding says the latter
    meaning = _INCIDENTS[kind]
    expected, actual = listed(place, history)
    return history_finding(
        meaning.reason, Status.FAILED, meaning.severity, meaning.message, expected=expected, actual=actual
    )


class _Meaning(NamedTuple):
    reason: Reason
    severity: Severity
    message: str


_INCIDENTS: Final = {
    IncidentKind.CLONE_SUSPECTED: _Meaning(
        Reason.CLONE_SUSPECTED,
        Severity.WARNING,
        "machines with different SMBIOS UUIDs speak with one TPM",
    ),
    IncidentKind.RATCHET_FOREIGN: _Meaning(
        Reason.RATCHET_FOREIGN,
        Severity.CONTRAINDICATED,
        "a ratchet that this verifier never led to was shown with this TPM, and nobody has said that it was meant",
    ),
    IncidentKind.ROLLBACK: _Meaning(
        Reason.ROLLBACK,
        Severity.CONTRAINDICATED,
        "an earlier state of this machine's TPM was brought back, and nobody has said that it was meant",
    ),
    IncidentKind.CLONE_PROVEN: _Meaning(
        Reason.CLONE_PROVEN,
        Severity.CONTRAINDICATED,
        "two lines of state of one TPM have both gone on: the machine runs more than once",
    ),
}


def advanced(line: Lineage, place: Place, now: datetime, *, due: bool) -> Lineage:
    """The line after this evidence. Evidence that has parted moves nothing of it but who was seen.

    `due`: a value had come for the content that was known.
    """
    shown = place.shown
    guest = Guest(
        smbios_uuid=place.smbios_uuid,
        boot_id=place.boot_id,
        hostname=place.hostname,
        clock=place.clock,
        ratchet=shown.content,
        seen_at=now,
        address=place.address,
        parted=place.parted,
    )
    line = structs.replace(line, guests=seen(line, guest), incident=_kept(line.incident, place, now))
    if place.parted:
        return line
    line = structs.replace(
        line,
        clock=place.clock,
        boot_counter=place.boot_counter or line.boot_counter,
        smbios_uuid=place.smbios_uuid or line.smbios_uuid,
    )
    if shown.relation not in ON_LINE:
        return line
    if shown.content == line.ratchet:
        return structs.replace(line, idle=line.idle + 1 if due else line.idle)
    return structs.replace(
        line,
        trail=left_behind(line, line.ratchet),
        ratchet=shown.content,
        ratchet_next=None,
        step=max(line.step, shown.step or 0),
        moved_at=now,
        idle=0,
    )


def _incident(who: Who, clock: ClockRelation, shown: Shown, history: History) -> IncidentKind | None:
    line = history.lineage
    prior = None if line.incident is None else line.incident.kind
    went_back = clock is ClockRelation.BACK or shown.relation in _BACK
    foreign = shown.relation is RatchetRelation.FOREIGN
    if _both_went_on(who, shown, line, parted=went_back or foreign):
        return IncidentKind.CLONE_PROVEN
    if went_back or foreign:
        return _graver(prior, IncidentKind.ROLLBACK if went_back else IncidentKind.RATCHET_FOREIGN)
    if several_uuids(history, who.smbios_uuid):
        return _graver(prior, IncidentKind.CLONE_SUSPECTED)
    return prior


def _both_went_on(who: Who, shown: Shown, line: Lineage, *, parted: bool) -> bool:
    """Whether this evidence shows a second line of states beside the one that is known.

    That it has parted from the line is not enough, not even where it went on by another value: a snapshot that is
    brought back with the agent's memory does that too. The line has to be seen to go on after it.
    """
    if parted:
        # An older state in a machine with another UUID: it is a copy, whatever became of the original.
        return who.moved
    if who.returned:
        # Boot ids are never used twice: the earlier kernel was alive all the while the other was.
        return True
    # The line goes on although something had parted from it; by itself, what parted does not get back here.
    parted_at = None if line.incident is None else line.incident.parted
    on_line = shown.relation in _GOES_ON
    return on_line and parted_at is not None and parted_at not in {line.ratchet, shown.content}


def _graver(one: IncidentKind | None, other: IncidentKind) -> IncidentKind:
    return other if one is None or _GRAVITY[other] > _GRAVITY[one] else one


def _kept(before: Incident | None, place: Place, now: datetime) -> Incident | None:
    if place.incident is None:
        return None
    parted = place.shown.content if place.parted else None if before is None else before.parted
    since = before.since if before is not None and before.kind is place.incident else now
    return Incident(kind=place.incident, since=since, parted=parted)
