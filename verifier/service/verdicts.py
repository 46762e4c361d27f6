"""Verdicts: from an appraisal to a record, and from a record to what it says at a given moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from verifier.appraisal.alike import of_these, of_this
from verifier.errors import StoredDataDamaged
from verifier.findings import Finding, Severity, Status
from verifier.ports import AttesterState, Lifecycle, VerdictRecord
from verifier.reasons import Claim, Reason, Tier
from verifier.service.model import AttesterView, VerdictView

_OPTIONAL: Final = ("rule", "pcr", "event_index", "expected", "actual", "quirk")


class HasStanding(Protocol):
    """What there is to know of an attester beside its verdict."""

    @property
    def lifecycle(self) -> Lifecycle:
        """As stored: never `stale`."""

    @property
    def revoked_at(self) -> datetime | None:
        """When an operator revoked it."""

    @property
    def replaced_by(self) -> str | None:
        """The attester that took its place."""


def finding_mapping(finding: Finding) -> dict[str, object]:
    """A finding as it is stored and sent; what is not there is left out."""
    result: dict[str, Any] = {
        "code": finding.reason.value,
        "status": finding.status.value,
        "severity": finding.severity.value,
        "claim": finding.claim.value,
        "message": finding.message,
    }
    if finding.remedy is not None:
        result["remedy"] = finding.remedy
    for name in _OPTIONAL:
        value = getattr(finding, name)
        if value is not None:
            result[name] = value
    return result


def _mapped(findings: tuple[Finding, ...]) -> tuple[Mapping[str, object], ...]:
    return tuple(map(finding_mapping, findings))


finding_mappings: Final = of_these(_mapped)
"""These findings as they are stored and sent. Nobody may change them."""


def vector_mapping(vector: Mapping[Claim, int]) -> Mapping[str, int]:
    """A vector as it is stored and sent. Nobody may change it: most verdicts have the same."""
    return _named(vector)


def _by_name(vector: Mapping[Claim, int]) -> Mapping[str, int]:
    return {claim.value: value for claim, value in vector.items()}


_named: Final = of_this(_by_name)


def read_finding(stored: Mapping[str, object]) -> Finding:
    """The reverse of `finding_mapping`.

    Raises:
        StoredDataDamaged: it is no finding, or has a code this version does not know.
    """
    try:
        return msgspec.convert({**stored, "reason": stored.get("code")}, Finding)
    except msgspec.ValidationError as error:
        raise StoredDataDamaged(f"a stored finding cannot be read: {error}") from error


def lifecycle_at(attester: HasStanding, verdict: VerdictRecord | None, now: datetime) -> Lifecycle:
    """Where the attester stands at `now`; `stale` once its latest verdict says nothing of the present."""
    if attester.lifecycle is not Lifecycle.ENROLLED:
        return attester.lifecycle
    return Lifecycle.STALE if verdict is not None and not verdict.holds_at(now) else Lifecycle.ENROLLED


def satisfies(lifecycle: Lifecycle, tier: Tier, least: Tier) -> bool:
    """Whether what is known of an attester now is enough for somebody who asks for `least` or better.

    Nothing is ever enough of an attester that is stale, revoked or retired, whatever its verdict was.
    """
    return lifecycle is Lifecycle.ENROLLED and tier <= least


def view(attester: HasStanding, record: VerdictRecord, now: datetime) -> VerdictView:
    """What a verdict says at `now`.

    A verdict that has run out says nothing of the present, nor does one of a TPM that was replaced: `none`, with an
    empty vector. Nothing that a revoked attester ever proved counts: contraindicated. None of them is ever green.
    """
    lifecycle = lifecycle_at(attester, record, now)
    tier, vector, findings = record.tier, record.vector, tuple(record.findings)
    if lifecycle is Lifecycle.REVOKED:
        tier, vector = Tier.CONTRAINDICATED, {Claim.INSTANCE_IDENTITY.value: 96}
        findings = (*findings, finding_mapping(_revoked(attester)))
    elif lifecycle is not Lifecycle.ENROLLED:
        tier, vector = Tier.NONE, {}
    if lifecycle is Lifecycle.RETIRED:
        findings = (*findings, finding_mapping(_replaced(attester)))
    return VerdictView(record=record, lifecycle=lifecycle, tier=tier, vector=vector, findings=findings)


def as_judged(record: VerdictRecord) -> VerdictView:
    """A verdict as it was given, for the history; it says nothing of the present."""
    return VerdictView(
        record=record,
        lifecycle=Lifecycle.ENROLLED,
        tier=record.tier,
        vector=record.vector,
        findings=tuple(record.findings),
    )


def view_attester(state: AttesterState, now: datetime) -> AttesterView:
    """One attester and its latest verdict at `now`."""
    verdict = None if state.latest is None else view(state.attester, state.latest, now)
    return AttesterView(
        attester=state.attester,
        lifecycle=lifecycle_at(state.attester, state.latest, now),
        tier=tier_of(state.attester, verdict),
        verdict=verdict,
        state=state,
    )


def _revoked(attester: HasStanding) -> Finding:
    when = f" at {attester.revoked_at:%Y-%m-%dT%H:%M:%SZ}" if attester.revoked_at is not None else ""
    return Finding(
        reason=Reason.ATTESTER_REVOKED,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.INSTANCE_IDENTITY,
        message=f"an operator revoked this attester{when}",
    )


def _replaced(attester: HasStanding) -> Finding:
    return Finding(
        reason=Reason.IDENTITY_REPLACED,
        status=Status.FAILED,
        severity=Severity.WARNING,
        claim=Claim.INSTANCE_IDENTITY,
        message=f"this machine has another TPM now: attester {attester.replaced_by}",
    )


def tier_of(attester: HasStanding, verdict: VerdictView | None) -> Tier:
    """What is known of an attester, with or without a verdict."""
    if verdict is not None:
        return verdict.tier
    return Tier.CONTRAINDICATED if attester.lifecycle is Lifecycle.REVOKED else Tier.NONE
