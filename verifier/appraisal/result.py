"""What an appraisal gives out. Pure data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.claims import ProvenClaims
from verifier.reasons import Claim, Reason, Tier


class Status(enum.StrEnum):
    """Outcome of one check. NOT_EVALUATED is as far from affirming as FAILED is, but says why."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUATED = "not-evaluated"


class Severity(enum.StrEnum):
    """How bad a check is when it does not pass."""

    INFO = "info"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason of a verdict."""

    reason: Reason
    status: Status
    severity: Severity
    claim: Claim
    message: str
    rule: str | None = None
    pcr: int | None = None
    event_index: int | None = None
    expected: str | None = None
    actual: str | None = None

    @property
    def remedy(self) -> str | None:
        """What to do next; None where nothing is wrong."""
        return None if self.status is Status.PASSED else self.reason.entry.remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """The judgement of one attestation.

    Attributes:
        authenticated: the evidence is proven to come from the expected AK over the expected nonce. When
            False the sender may be anyone: a service refuses it and stores nothing.
        tier: overall status; never better than the worst claim.
        vector: AR4SI claim to value.
        claims: what was proven, or None where the quote itself was not.
    """

    authenticated: bool
    tier: Tier
    vector: Mapping[Claim, int]
    findings: tuple[Finding, ...]
    claims: ProvenClaims | None
    policy_id: str | None
    policy_revision: str | None
