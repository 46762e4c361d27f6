"""What a verifier says of attesters, as frozen types. What it says of the present has an end: see `Standing.tier_at`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec


class Tier(enum.StrEnum):
    """Trust tiers of AR4SI (draft-ietf-rats-ar4si, section 2.3.2)."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    NONE = "none"
    CONTRAINDICATED = "contraindicated"

    @property
    def rank(self) -> int:
        """0 is the best; `none` (nothing is known) is worse than `warning`."""
        return tuple(Tier).index(self)

    def meets(self, minimum: Tier) -> bool:
        """Whether this is at least as good as `minimum`."""
        return self.rank <= minimum.rank


class Lifecycle(enum.StrEnum):
    """Where an attester stands."""

    PENDING = "pending"
    ENROLLED = "enrolled"
    STALE = "stale"
    REVOKED = "revoked"
    RETIRED = "retired"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all replies: fields a newer verifier adds are skipped."""


class Finding(Part, frozen=True, kw_only=True):
    """One check and how it went."""

    code: str
    status: str
    severity: str
    claim: str
    message: str
    remedy: str | None = None
    rule: str | None = None
    pcr: int | None = None
    event_index: int | None = None
    expected: str | None = None
    actual: str | None = None


class PolicyRef(Part, frozen=True, kw_only=True):
    """Which policy judged: its id, and the SHA-256 of its revision in hex."""

    id: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What counts about an attester, from a verdict or an EAR.

    It proves what the verifier concluded of the evidence it judged at `judged_at`, and nothing of what happened since.
    """

    attester_id: str
    said: Tier
    """What the verifier said when it answered; ask `tier_at` what it is worth now."""
    lifecycle: Lifecycle
    policy: PolicyRef | None
    judged_at: datetime
    valid_until: datetime
    sequence: int
    reasons: tuple[str, ...] = ()
    """Codes of what did not pass."""

    def tier_at(self, now: datetime) -> Tier:
        """The tier at `now`: past its time `none`, revoked `contraindicated`, whatever was said before."""
        if self.lifecycle is Lifecycle.REVOKED:
            return Tier.CONTRAINDICATED
        over = self.lifecycle is not Lifecycle.ENROLLED or now >= self.valid_until
        return max(self.said, Tier.NONE, key=lambda tier: tier.rank) if over else self.said


class Verdict(Part, frozen=True, kw_only=True):
    """The latest verdict of an attester, as the verifier answered it.

    `status` is what it said then. Decide by `tier(now)` or `affirming(now)`: they never pass a verdict that is over.
    """

    attester_id: str
    sequence: int
    status: Tier
    vector: dict[str, int]
    findings: tuple[Finding, ...]
    judged_at: datetime
    valid_until: datetime
    lifecycle: Lifecycle = Lifecycle.ENROLLED
    policy: PolicyRef | None = None
    evidence_sha256: str | None = None
    boot_id: str | None = None
    rejudged_at: datetime | None = None
    """When the evidence of `judged_at` was judged again, by a later policy; None where it was not."""

    @property
    def standing(self) -> Standing:
        """What counts, without the findings."""
        return Standing(
            attester_id=self.attester_id,
            said=self.status,
            lifecycle=self.lifecycle,
            policy=self.policy,
            judged_at=self.judged_at,
            valid_until=self.valid_until,
            sequence=self.sequence,
            reasons=self.reasons,
        )

    def tier(self, now: datetime) -> Tier:
        """The tier at `now` (with a time zone)."""
        return self.standing.tier_at(now)

    def affirming(self, now: datetime) -> bool:
        """Whether it is affirming at `now`: neither expired nor stale nor revoked."""
        return self.tier(now) is Tier.AFFIRMING

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of the findings that did not pass, each once."""
        return tuple(sorted({finding.code for finding in self.findings if finding.status != "passed"}))


class Summary(Part, frozen=True, kw_only=True):
    """What is known of one attester among many. As with a verdict: decide by `tier(now)` or `affirming(now)`."""

    attester_id: str
    status: Tier
    lifecycle: Lifecycle
    ek_sha256: str
    """SHA-256 of the EK's SubjectPublicKeyInfo, hex: which TPM it is."""
    sequence: int | None = None
    """None, like all below, before its first verdict."""
    vector: dict[str, int] = {}
    reasons: tuple[str, ...] = ()
    policy: str | None = None
    """Id of the policy that judged it."""
    judged_at: datetime | None = None
    rejudged_at: datetime | None = None
    """When the evidence of `judged_at` was judged again, by a later policy; None where it was not."""
    valid_until: datetime | None = None
    replaced_by: str | None = None
    """Attester of the TPM that this machine has now."""

    def tier(self, now: datetime) -> Tier:
        """The tier at `now` (with a time zone); `none` before the first verdict."""
        if self.sequence is None or self.judged_at is None or self.valid_until is None:
            return max(self.status, Tier.NONE, key=lambda tier: tier.rank)
        standing = Standing(
            attester_id=self.attester_id,
            said=self.status,
            lifecycle=self.lifecycle,
            policy=None,
            judged_at=self.judged_at,
            valid_until=self.valid_until,
            sequence=self.sequence,
        )
        return standing.tier_at(now)

    def affirming(self, now: datetime) -> bool:
        """Whether it is affirming at `now`: neither expired nor stale nor revoked."""
        return self.tier(now) is Tier.AFFIRMING


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """An EAR whose signature, issuer, audience, times and profile were verified."""

    standing: Standing
    issued_at: datetime
    submodules: dict[str, Tier]
    """Tier of every part; the standing has the worst of them."""
    boot_id: str | None
    evidence_sha256: str
    token: str
    """As it was received, to be handed on to whom it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the stream (docs/events.md)."""

    kind: str
    """`verdict.changed` and so on; `ready` begins a stream; after `gap` events are missing: read anew what matters."""
    id: str
    """The position; `events(after=id)` goes on behind it."""
    attester_id: str | None = None
    data: dict[str, Any] | None = None
    """The `data` of the CloudEvent; None for `ready` and `gap`."""
    time: datetime | None = None
