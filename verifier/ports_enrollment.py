"""What the service needs of the world to let machines in: enrolments, what is decided of them, and the audit log.

A part of `verifier.ports`; the same rules hold.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from verifier.ports import AttesterRecord, AttesterState, GuestIdentity, Page


class EnrollmentStatus(enum.StrEnum):
    """How far an enrolment has come. One that needs no decision ends by leaving an attester behind."""

    OFFERED = "offered"
    """A credential challenge is out: nothing is proven yet."""
    PENDING = "pending"
    """The TPM has proven that it holds both keys; a person has to decide."""
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRecord:
    """An enrolment under way or decided. Holds the proof that is expected, not the secret in the clear."""

    id: str
    tenant: str
    created_at: datetime
    expires_at: datetime
    ek_fingerprint: bytes
    """SHA-256 of the EK's SubjectPublicKeyInfo DER."""
    ek_public: bytes
    ek_certificate: bytes | None
    ek_issuer: str | None
    ek_profile: Mapping[str, object]
    """Manufacturer, model, version, virtual, warnings: as shown to people."""
    endorsed_by: str
    """How the EK is trusted: `certificate`, `inventory`, `approve`, `tofu` and so on."""
    ak_name: bytes
    ak_public: bytes
    expected_proof: bytes
    """HMAC the guest must answer with; compared in constant time."""
    identity: GuestIdentity
    token_id: str | None
    source: str | None = None
    """Network address the request came from."""
    status: EnrollmentStatus = EnrollmentStatus.OFFERED
    waits_for: str | None = None
    """Why a person has to decide: `enrollment-pending` or `identity-replaced`; None where nobody has to."""
    replaces: str | None = None
    """Attester whose place the new one takes: agreed with the inventory, or decided."""
    activated_at: datetime | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    decision_reason: str | None = None
    attester_id: str | None = None
    """What an approval led to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentBounds:
    """How many enrolments that a person has to decide may be open at once."""

    per_tenant: int
    per_source: int
    """Per network address; 0: no bound."""


class Filed(enum.Enum):
    """Whether an enrolment was kept."""

    KEPT = enum.auto()
    TENANT_FULL = enum.auto()
    SOURCE_FULL = enum.auto()
    UNPAID = enum.auto()
    """The join token has no use left, or is not good any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, when and why. Appended in the transaction of the change itself, never altered."""

    tenant: str
    at: datetime
    actor: str
    """Id of the token that asked, or `cli`, or `inventory`."""
    action: str
    """For example `enrollment.approved`."""
    subject: str
    """Id of what was changed."""
    reason: str
    """In the actor's words."""
    detail: Mapping[str, object] = field(default_factory=dict)
    sequence: int = 0
    """Assigned by the store; the value given is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided of a pending enrolment."""

    enrollment_id: str
    approved: bool
    at: datetime
    keep_until: datetime
    """How long the guest can still learn of it."""
    actor: str
    reason: str
    attester_id: str
    """For a machine that has none yet."""
    replaces: str | None = None
    overrule: bool = False
    """Approve also what was refused before."""
    ek_profile: Mapping[str, object] | None = None
    """What is recorded of the EK from now on; None leaves what is there."""


class EnrollmentStore(Protocol):
    """The part of `Store` that keeps enrolments, and the audit log."""

    async def add_enrollment(
        self, enrollment: EnrollmentRecord, bounds: EnrollmentBounds | None = None, *, spends: bool = False
    ) -> Filed:
        """Keep it, unless with `bounds` so many that wait for a person are open that it would be one too many.

        Of those that one EK has been offered and that wait for its proof, the last few stay.
        With `spends`, one use of its join token goes with it, or neither: of N at once that want the last use, one is kept.
        """

    async def has_offer(
        self, tenant: str, ek_fingerprint: bytes, ak_name: bytes, token_id: str, now: datetime
    ) -> bool:
        """Whether a challenge for these keys is out that a use of this token was spent on."""

    async def enrollment(self, enrollment_id: str) -> EnrollmentRecord | None:
        """In whatever state it is, expired or not."""

    async def complete_enrollment(
        self, enrollment_id: str, attester_id: str, now: datetime
    ) -> AttesterRecord | None:
        """Consume an offered enrolment once and create the attester, or rebind the AK of the one with this EK.

        Returns the attester as stored (an EK keeps the attester id it first got), or None when the enrolment was
        consumed or removed meanwhile, or waits for a person. A revoked attester stays revoked. With `replaces`, the
        attester named there is retired; one that is retired itself comes back only that way.

        Raises `StateMovedError` when the one to be replaced is retired already; nothing is changed then.
        """

    async def await_approval(
        self, enrollment_id: str, waits_for: str, now: datetime, expires_at: datetime
    ) -> EnrollmentRecord | None:
        """An offered enrolment is proven and becomes a pending one.

        Where one with the same EK and AK is pending already, that one stays, with the identity, profile and proof of
        this one. None when it was consumed meanwhile.
        """

    async def decide_enrollment(self, tenant: str, decision: Decision) -> EnrollmentRecord | None:
        """Decide a pending enrolment once, with an entry in the audit log; an approval binds its keys.

        None when there is nothing to decide: unknown, not proven, expired, or decided already.
        Raises `StateMovedError` when `replaces` is retired already; nothing is changed then.
        """

    async def list_enrollments(
        self, tenant: str, status: EnrollmentStatus, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[EnrollmentRecord]:
        """Oldest first; expired ones are left out."""

    async def enrollments_of_ek(
        self, tenant: str, ek_fingerprint: bytes, now: datetime
    ) -> Sequence[EnrollmentRecord]:
        """Pending, approved and refused ones with this EK that have not expired."""

    async def attester_of_ek(self, tenant: str, ek_fingerprint: bytes) -> AttesterState | None:
        """The attester with this EK."""

    async def attesters_of_uuid(self, tenant: str, spellings: Collection[str]) -> Sequence[AttesterState]:
        """Attesters that ever claimed one of these SMBIOS UUIDs, a few dozen at most, enrolled ones first."""

    async def predecessors_of(self, tenant: str, attester_id: str) -> Sequence[str]:
        """Ids of attesters whose place this one took."""

    async def add_audit(self, entry: AuditEntry) -> None:
        """Append what changed nothing else."""

    async def list_audit(
        self, tenant: str, *, subject: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """Newest first; `before` is an exclusive sequence."""
