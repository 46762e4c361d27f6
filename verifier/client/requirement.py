"""What a relying party demands of a caller, and what it answers to who does not meet it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, assert_never

import msgspec

from verifier.client.results import Standing, Tier

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


class Refusal(enum.StrEnum):
    """Why a caller is not let in; stable, the `code` of the problem document."""

    REQUIRED = "attestation-required"
    INVALID = "attestation-invalid"
    AMBIGUOUS = "attestation-ambiguous"
    UNKNOWN = "attester-unknown"
    TIER = "attestation-tier"
    POLICY = "attestation-policy"
    AGE = "attestation-age"
    UNAVAILABLE = "verifier-unavailable"

    @property
    def status(self) -> HTTPStatus:
        """Of the reply."""
        match self:
            case Refusal.REQUIRED | Refusal.INVALID:
                return HTTPStatus.UNAUTHORIZED
            case Refusal.AMBIGUOUS | Refusal.UNKNOWN | Refusal.TIER | Refusal.POLICY | Refusal.AGE:
                return HTTPStatus.FORBIDDEN
            case Refusal.UNAVAILABLE:
                return HTTPStatus.SERVICE_UNAVAILABLE
            case _:
                assert_never(self)


_TITLES: Final = {
    Refusal.REQUIRED: "This service lets only attested callers in",
    Refusal.INVALID: "The attestation result is not believed",
    Refusal.AMBIGUOUS: "It is not clear who is calling",
    Refusal.UNKNOWN: "The verifier knows no verdict of the caller",
    Refusal.TIER: "The caller's verdict is not good enough",
    Refusal.POLICY: "The caller was judged by another policy",
    Refusal.AGE: "The caller's evidence is too old",
    Refusal.UNAVAILABLE: "The verifier cannot be asked, so nobody can be let in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A caller that is not let in: why, and what it may do about it."""

    refusal: Refusal
    detail: str
    remedy: str
    cause: str | None = None
    """Code of the client's or the verifier's error beneath."""
    attester_id: str | None = None
    reasons: tuple[str, ...] = ()
    """Codes of what did not pass (docs/reasons.md)."""
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """Of the HTTP reply."""
        return int(self.refusal.status)

    def document(self) -> bytes:
        """The RFC 9457 problem document."""
        members: dict[str, Any] = {
            "type": f"urn:vtpm-attest:problem:{self.refusal.value}",
            "title": _TITLES[self.refusal],
            "status": self.status,
            "code": self.refusal.value,
            "detail": self.detail,
            "remedy": self.remedy,
            "cause": self.cause,
            "reasons": list(self.reasons) or None,
        }
        return msgspec.json.encode({name: value for name, value in members.items() if value is not None})

    def headers(self) -> dict[str, str]:
        """Headers of the reply; a denial is never kept by a cache."""
        found = {"Content-Type": PROBLEM_MEDIA_TYPE, "Cache-Control": "no-store"}
        if self.refusal.status is HTTPStatus.UNAUTHORIZED:
            found["WWW-Authenticate"] = 'Bearer realm="attestation result"'
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A caller that is let in, and what is known of it."""

    standing: Standing
    sources: tuple[str, ...]
    """How it was learned who is calling: `ear`, `certificate`, `proxy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What the verdict of a caller must be.

    Attributes:
        min_tier: `affirming` or `warning`; who is let in with `none` need not be asked.
        policies: ids of policies, one of which must have judged it; empty: any.
        max_age: how long ago its evidence may have been judged; None: as long as the verdict is valid.
    """

    min_tier: Tier = Tier.AFFIRMING
    policies: frozenset[str] = frozenset()
    max_age: timedelta | None = None

    def __post_init__(self) -> None:
        if not self.min_tier.meets(Tier.WARNING):
            raise ValueError(
                f"min_tier {self.min_tier} would let in who proved nothing; use affirming or warning"
            )

    def denial(self, standing: Standing, now: datetime) -> Denied | None:
        """Why this standing is not enough at `now`; None: it is."""
        tier = standing.tier_at(now)
        if not tier.meets(self.min_tier):
            over = "" if tier is standing.said else f" (it ended at {standing.valid_until.isoformat()})"
            return self._denied(
                standing,
                Refusal.TIER,
                f"the verdict is {tier}, and {self.min_tier} is required{over}",
                "Look at the reasons and their remedies (attestctl explain, docs/reasons.md), mend, attest again.",
            )
        if self.policies and (standing.policy is None or standing.policy.id not in self.policies):
            judged = "no policy" if standing.policy is None else standing.policy.id
            return self._denied(
                standing,
                Refusal.POLICY,
                f"it was judged by {judged}, and {', '.join(sorted(self.policies))} is required",
                "Have the verifier's operator assign a policy that this service requires, then attest again.",
            )
        if self.max_age is not None and now - standing.judged_at > self.max_age:
            return self._denied(
                standing,
                Refusal.AGE,
                f"its evidence was judged at {standing.judged_at.isoformat()}, longer ago than {self.max_age}",
                "Attest again (attest-agent attest --once), and get a new EAR where one is presented.",
            )
        return None

    @staticmethod
    def _denied(standing: Standing, refusal: Refusal, detail: str, remedy: str) -> Denied:
        return Denied(
            refusal=refusal,
            detail=detail,
            remedy=remedy,
            attester_id=standing.attester_id,
            reasons=standing.reasons,
        )
