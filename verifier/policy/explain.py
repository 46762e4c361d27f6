"""A verdict event by event: which rule read each event, and what it made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.claims import EventFact, ProvenClaims
from verifier.findings import Finding, Status
from verifier.policy import model
from verifier.policy.align import align
from verifier.policy.catalogue import CATALOGUE


@dataclass(frozen=True, slots=True, kw_only=True)
class EventVerdict:
    """One event with the rules that read it.

    Attributes:
        rules: ids of the rules that judged this event's digest or name.
        findings: what they found wrong with it; empty when nothing.
        why_unjudged: when no rule read it, the policy's own reason; None when there is none to give.
    """

    event: EventFact
    rules: tuple[str, ...]
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
    wrong: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.event_index is not None and finding.status is not Status.PASSED:
            wrong.setdefault(finding.event_index, []).append(finding)
    return tuple(
        EventVerdict(
            event=event,
            rules=tuple(readers.get(event.index, ())),
            findings=tuple(wrong.get(event.index, ())),
            why_unjudged=_why(policy, event, readers),
        )
        for event in claims.boot.events
    )


def _readers(policy: model.Policy, claims: ProvenClaims) -> dict[int, list[str]]:
    bank = policy.quote.bank
    boot = claims.boot
    readers: dict[int, list[str]] = {}
    if boot is None:
        return readers
    for rule in policy.rules:
        events = [
            event
            for event in boot.events
            if bank in event.digests
            and isinstance(rule, (model.SequenceRule, model.EventRule))
            and event.pcr == rule.pcr
        ]
        if isinstance(rule, model.SequenceRule):
            pairs = align(rule.steps, [event.digests[bank] for event in events])
            indices = [events[place].index for _, place in pairs if place is not None]
        elif isinstance(rule, model.EventRule):
            indices = [event.index for event in events if rule.name in (None, event.name)]
        elif isinstance(rule, model.SecureBootRule):
            indices = [event.index for event in boot.events if event.name == "SecureBoot"]
        elif isinstance(rule, model.CelRule):
            indices = [event.index for event in boot.events if event.pcr in _certain_pcrs(rule)]
        else:
            indices = []
        for index in indices:
            readers.setdefault(index, []).append(rule.head.id)
    return readers


def _certain_pcrs(rule: model.CelRule) -> set[int]:
    """PCRs whose events the rule certainly reads: of claims that several PCRs can prove, no one can be named."""
    sources = [CATALOGUE[name].pcrs for name in rule.program.references]
    return {pcr for source in sources if len(source) == 1 for pcr in source}


def _why(policy: model.Policy, event: EventFact, readers: dict[int, list[str]]) -> str | None:
    if event.index in readers:
        return None
    golden = [
        rule.head.id for rule in policy.rules if isinstance(rule, model.PcrRule) and rule.pcr == event.pcr
    ]
    if golden:
        return f"its PCR is judged as a whole by {golden[0]}"
    if event.pcr not in policy.quote.pcrs:
        return "its PCR is not quoted under this policy"
    return policy.unjudged.get(event.pcr)
