"""Findings of policy rules, in one form for every kind."""

from __future__ import annotations

from verifier.claims import EventFact
from verifier.findings import Finding, Status
from verifier.policy.model import RuleHead
from verifier.reasons import Reason


def rule_finding(
    head: RuleHead,
    reason: Reason,
    status: Status,
    message: str,
    *,
    event: EventFact | None = None,
    pcr: int | None = None,
    expected: str | None = None,
    actual: str | None = None,
) -> Finding:
    """What a rule concluded; its own message leads where something is wrong."""
    failed = status is not Status.PASSED
    return Finding(
        reason=reason,
        status=status,
        severity=head.severity,
        claim=head.claim,
        message=f"{head.message}: {message}" if failed and head.message else message,
        rule=head.id,
        pcr=event.pcr if event is not None else pcr,
        event_index=event.index if event is not None else None,
        expected=expected,
        actual=actual,
    )
