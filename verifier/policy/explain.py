"""A verdict event by event: which rule read each event, and what it made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.claims import BootFacts, EventFact, ProvenClaims
from verifier.findings import Finding, Status
from verifier.policy import model
from verifier.policy.align import align
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.tolerate import toleration_of
from verifier.tcg.algorithms import HashAlg

_VARIABLES: Final = {
    "boot.secure_boot.enabled": "SecureBoot",
    "boot.secure_boot.pk.certificates": "PK",
    "boot.secure_boot.kek.certificates": "KEK",
    "boot.secure_boot.db.certificates": "db",
    "boot.secure_boot.db.digests": "db",
    "boot.secure_boot.dbx.certificates": "dbx",
    "boot.secure_boot.dbx.digests": "dbx",
    "boot.secure_boot.dbx.entries": "dbx",
}
"""Claims that one variable of firmware proves."""
_LINES: Final = frozenset({"boot.kernel_command_line", "boot.kernel_arguments"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventVerdict:
    """One event with the rules that read it.

    Attributes:
        rules: ids of the rules that judged this event's digest, name or text, or a claim read off its PCR.
        broken: those of them that did not pass, be it for another event of the same claim.
        findings: what they found wrong with this very event; empty when nothing.
        why_unjudged: when no rule read it, the policy's own reason; None when there is none to give.
    """

    event: EventFact
    rules: tuple[str, ...]
    broken: tuple[str, ...]
    findings: tuple[Finding, ...]
    why_unjudged: str | None


def explain_events(
    policy: model.Policy, claims: ProvenClaims, findings: Sequence[Finding]
) -> tuple[EventVerdict, ...]:
    """Every event of the log in its order, with the rules of `policy` that read it.

    `findings` are those of the same policy over the same claims (`evaluate`).
    """
    if claims.boot is None:
        return ()
    readers = _readers(policy, claims)
    failed = [finding for finding in findings if finding.status is not Status.PASSED]
    broken = {finding.rule for finding in failed}
    wrong: dict[int, list[Finding]] = {}
    for finding in failed:
        if finding.boot_event is not None:
            wrong.setdefault(finding.boot_event, []).append(finding)
    return tuple(
        EventVerdict(
            event=event,
            rules=tuple(readers.get(event.index, ())),
            broken=tuple(rule for rule in readers.get(event.index, ()) if rule in broken),
            findings=tuple(wrong.get(event.index, ())),
            why_unjudged=_why(policy, claims.boot, event, readers),
        )
        for event in claims.boot.events
    )


def beside_events(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What did not pass and is not about one event: of the quote, of whole PCRs, of claims."""
    return tuple(f for f in findings if f.status is not Status.PASSED and f.boot_event is None)


def _readers(policy: model.Policy, claims: ProvenClaims) -> dict[int, list[str]]:
    readers: dict[int, list[str]] = {}
    if claims.boot is None:
        return readers
    for rule in policy.rules:
        for index in _read_by(rule, claims.boot, policy.quote.bank):
            readers.setdefault(index, []).append(rule.head.id)
    return readers


def _read_by(rule: model.Rule, boot: BootFacts, bank: HashAlg) -> list[int]:
    """Indices of the events a rule read."""
    match rule:
        case model.SequenceRule():
            events = [event for event in boot.events if event.pcr == rule.pcr and bank in event.digests]
            pairs = align(rule.steps, [event.digests[bank] for event in events])
            return [events[place].index for _, place in pairs if place is not None]
        case model.EventRule():
            return [
                event.index
                for event in boot.events
                if event.pcr == rule.pcr and bank in event.digests and rule.name in (None, event.name)
            ]
        case model.PcrRule():
            return []  # judged as a whole, whatever its events are
        case _:
            return _read_by_claims(model.references(rule), boot)


def _read_by_claims(names: Iterable[str], boot: BootFacts) -> list[int]:
    """Events that the claims were read off.

    A variable of Secure Boot is one event, and a command line the events that say it. Of other claims the PCR is known; where
    several PCRs can prove one, none can be named.
    """
    read: set[int] = set()
    for name in names:
        sources = CATALOGUE[name].pcrs
        if name in _VARIABLES:
            read.update(
                event.index
                for event in boot.events
                if event.name == _VARIABLES[name] and not event.after_separator
            )
        elif name in _LINES:
            line = boot.kernel_command_line
            read.update(event.index for event in boot.events if line is not None and event.text == line)
        elif len(sources) == 1:
            read.update(event.index for event in boot.events if event.pcr in sources and event.digests)
    return sorted(read)


def _why(
    policy: model.Policy, boot: BootFacts, event: EventFact, readers: dict[int, list[str]]
) -> str | None:
    if event.index in readers:
        return None
    golden = [
        rule.head.id for rule in policy.rules if isinstance(rule, model.PcrRule) and rule.pcr == event.pcr
    ]
    quirk = None if event.digests else _quirk(policy, boot, event.pcr)
    whole = f"its PCR is judged as a whole by {golden[0]}" if golden else None
    if quirk is not None:
        return f"{quirk}; {whole}" if whole else quirk
    if whole is not None:
        return whole
    if event.pcr not in policy.quote.pcrs:
        return "its PCR is not quoted under this policy"
    return policy.unjudged.get(event.pcr)


def _quirk(policy: model.Policy, boot: BootFacts, pcr: int) -> str | None:
    """Why nothing is proven of an event whose PCR does not replay as it stands in the log."""
    for where, quirk in boot.quirks:
        if where == pcr:
            leave = toleration_of(policy.tolerated, quirk, pcr)
            told = "not tolerated" if leave is None else f"tolerated: {leave.why}"
            return f"unproven, the log has {quirk.value} in this PCR ({told})"
    return None
