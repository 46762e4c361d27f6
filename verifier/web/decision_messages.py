"""Messages of what a person decides: enrolments that wait, incidents, and the audit log of both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from verifier.appraisal.lineage import Guest
from verifier.ports_enrollment import AuditEntry
from verifier.service.approvals import MAX_REASON, EnrollmentView
from verifier.service.incidents import IncidentView
from verifier.web.messages import Before, Body, Cursor, Endorsement, Id, Limit
from verifier.web.wire_codec import Identity, identity_message, rfc3339

Words = Annotated[str, Meta(max_length=MAX_REASON)]
GuestName = Annotated[str, Meta(min_length=1, max_length=256)]


class EnrollmentsQuery(Body, frozen=True):
    """Which enrolments to list."""

    status: Literal["pending", "approved", "refused"] = "pending"
    cursor: Cursor | None = None
    limit: Limit = 100


class EnrollmentConflict(Body, frozen=True):
    """Something on record that does not fit; `code` is an entry of the reasons dictionary."""

    code: str
    message: str
    subject: str | None = None
    """Attester or enrolment concerned."""


class Enrollment(Body, frozen=True):
    """A machine that has proven its keys, and what speaks for and against letting it in."""

    id: str
    status: Literal["pending", "approved", "refused"]
    code: str
    """Why a person decides: `enrollment-pending`, or `identity-replaced` for a machine known with another TPM."""
    created_at: str
    proven_at: str
    """When its TPM last proved that it holds both keys."""
    expires_at: str
    identity: Identity
    """What the guest says of itself; unproven."""
    endorsement: Endorsement
    ak_name: str
    source: str | None = None
    """Network address the request came from."""
    token: str | None = None
    """Id of the join token it brought."""
    conflicts: list[EnrollmentConflict] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    """Attesters whose place it could take."""
    decided_at: str | None = None
    decided_by: str | None = None
    decision_reason: str | None = None
    attester: str | None = None
    """What the approval led to."""
    replaces: str | None = None
    """Whose place it took."""


class EnrollmentsReply(Body, frozen=True):
    """One page, oldest first; `cursor` leads to the next and is absent on the last."""

    enrollments: list[Enrollment]
    cursor: str | None = None


class ApproveEnrollment(Body, frozen=True):
    """Let the machine in, with exactly the keys it has proven."""

    reason: Words = ""
    replaces: Id | None = None
    """Attester whose place it takes; absent: that of the only candidate, if it waits as `identity-replaced`."""
    as_new: bool = False
    """It takes nobody's place, although its SMBIOS UUID is known of another."""
    overrule: bool = False
    """Although it was refused before."""


class RefuseEnrollment(Body, frozen=True):
    """Keep the machine out; the reason is shown to it."""

    reason: Words = ""


class IncidentsQuery(Body, frozen=True):
    """Page through open incidents."""

    cursor: Cursor | None = None
    limit: Limit = 100


class IncidentGuest(Body, frozen=True):
    """A machine that showed this TPM's state. Clock and ratchet are proven, the rest is its own word."""

    id: str
    seen_at: str
    clock: int
    reset_count: int
    restart_count: int
    parted: bool
    """It showed a state that does not come after the one known before it."""
    smbios_uuid: str | None = None
    boot_id: str | None = None
    hostname: str | None = None
    ratchet: str | None = None
    """Content of its ratchet, hex."""
    address: str | None = None
    """Where its connection came from; a proxy's, where there is one."""


class OpenIncident(Body, frozen=True):
    """One TPM, and machines that cannot all be it."""

    id: str
    attester: str
    kind: Literal["clone-suspected", "ratchet-foreign", "rollback", "clone-proven"]
    since: str
    guests: list[IncidentGuest]
    """Last seen last."""
    hostname: str | None = None


class IncidentsReply(Body, frozen=True):
    """One page; `cursor` leads to the next and is absent on the last."""

    incidents: list[OpenIncident]
    cursor: str | None = None


class ResolveIncident(Body, frozen=True):
    """Say which guest goes on, and which has to enrol with a new vTPM."""

    keep: GuestName | None = None
    """Id, SMBIOS UUID, boot id or host name of one of the guests."""
    reenroll: GuestName | None = None
    """The same; or `all`: nobody with this TPM is heard until it has enrolled again."""
    reason: Words = ""


class AuditQuery(Body, frozen=True):
    """Page through the audit log, newest first."""

    subject: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """Only entries about this enrolment, attester or incident."""
    before: Before | None = None
    limit: Limit = 50


class AuditRecord(Body, frozen=True):
    """Who did what, when and why."""

    sequence: int
    at: str
    actor: str
    """Id of the token that asked, or `inventory`."""
    action: str
    subject: str
    reason: str
    detail: dict[str, Any]


class AuditReply(Body, frozen=True):
    """Entries, newest first; `before` leads to older ones and is absent at the end."""

    entries: list[AuditRecord]
    before: int | None = None


def enrollment_message(view: EnrollmentView) -> Enrollment:
    """An enrolment as an operator sees it."""
    record = view.record
    return Enrollment(
        id=record.id,
        status=record.status.value,  # type: ignore[arg-type]  # offered ones are never shown
        code=record.waits_for or "",
        created_at=rfc3339(record.created_at),
        proven_at=rfc3339(record.activated_at or record.created_at),
        expires_at=rfc3339(record.expires_at),
        identity=identity_message(record.identity),
        endorsement=Endorsement(
            method=record.endorsed_by,
            ek_sha256=record.ek_fingerprint.hex(),
            issuer=record.ek_issuer,
            profile=dict(record.ek_profile),
        ),
        ak_name=record.ak_name.hex(),
        source=record.source,
        token=record.token_id,
        conflicts=[
            EnrollmentConflict(code=one.reason.value, message=one.message, subject=one.subject)
            for one in view.conflicts
        ],
        candidates=list(view.candidates),
        decided_at=None if record.decided_at is None else rfc3339(record.decided_at),
        decided_by=record.decided_by,
        decision_reason=record.decision_reason,
        attester=record.attester_id,
        replaces=record.replaces,
    )


def incident_message(view: IncidentView) -> OpenIncident:
    """An incident with its guests."""
    return OpenIncident(
        id=view.id,
        attester=view.state.attester.id,
        kind=view.incident.kind.value,
        since=rfc3339(view.incident.since),
        hostname=view.state.attester.identity.hostname,
        guests=[_guest_message(key, guest) for key, guest in view.guests],
    )


def _guest_message(key: str, guest: Guest) -> IncidentGuest:
    return IncidentGuest(
        id=key,
        seen_at=rfc3339(guest.seen_at),
        smbios_uuid=guest.smbios_uuid,
        boot_id=guest.boot_id,
        hostname=guest.hostname,
        clock=guest.clock.clock,
        reset_count=guest.clock.reset_count,
        restart_count=guest.clock.restart_count,
        ratchet=None if guest.ratchet is None else guest.ratchet.hex(),
        address=guest.address,
        parted=guest.parted,
    )


def audit_message(entry: AuditEntry) -> AuditRecord:
    """An audit entry as the API shows it."""
    return AuditRecord(
        sequence=entry.sequence,
        at=rfc3339(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        detail=dict(entry.detail),
    )
