"""Records to rows and back. Reading is by position, in the order of the `*_COLUMNS` here: half the cost by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Column

from verifier.ports import (
    AttesterRecord,
    BootRecord,
    Lifecycle,
    PolicyRecord,
    TokenRecord,
    VerdictRecord,
)
from verifier.ports_enrollment import AuditEntry, EnrollmentRecord, EnrollmentStatus
from verifier.reasons import Tier
from verifier.store import schema, values
from verifier.tcg.attest import ClockInfo

Row = Sequence[Any]
Values = dict[str, Any]

TOKEN_COLUMNS: Final = tuple(schema.token.c)
AUDIT_COLUMNS: Final = tuple(
    schema.audit.c[name]
    for name in ("sequence", "tenant", "at", "actor", "action", "subject", "reason", "detail")
)
ENROLLMENT_COLUMNS: Final = tuple(schema.enrollment.c)
POLICY_COLUMNS: Final = tuple(
    schema.policy.c[name] for name in ("id", "tenant", "revision", "source", "created_at")
)


def _attester_columns() -> tuple[Column[Any], ...]:
    machine, ek, ak = schema.attester.c, schema.endorsement_key.c, schema.attestation_key.c
    return (
        machine.id,
        machine.tenant,
        machine.ek_fingerprint,
        ek.public,
        ek.certificate,
        ek.issuer,
        ek.profile,
        ek.endorsed_by,
        machine.ak_name,
        ak.public,
        machine.identity,
        machine.smbios_uuids,
        machine.labels,
        machine.policy_id,
        schema.latest.c.lifecycle,
        machine.enrolled_at,
        machine.revoked_at,
        ak.activated_at,
        machine.replaced_by,
    )


ATTESTER_COLUMNS: Final = _attester_columns()
_VERDICT_NAMES: Final = (
    "attester_id",
    "tenant",
    "sequence",
    "tier",
    "judgement",
    "policy_id",
    "policy_revision",
    "evidence_sha256",
    "clock",
    "reset_count",
    "restart_count",
    "safe",
    "boot_id",
    "judged_at",
    "valid_until",
    "rejudged_at",
)
LATEST_COLUMNS: Final = tuple(schema.latest.c[name] for name in _VERDICT_NAMES)
HISTORY_COLUMNS: Final = tuple(schema.attestation.c[name] for name in _VERDICT_NAMES)
VERDICT_SEQUENCE: Final = _VERDICT_NAMES.index("sequence")
VERDICT_JUDGEMENT: Final = _VERDICT_NAMES.index("judgement")
BOOT_COLUMNS: Final = (
    schema.boot.c.reset_count,
    schema.boot.c.restart_count,
    schema.boot.c.firmware_version,
    schema.boot.c.boot_log_sha256,
    schema.boot.c.boot_id,
    schema.boot.c.userspace_log_sha256,
    schema.boot.c.ima,
    # Of a boot that goes on, only `latest` is kept current.
    schema.latest.c.clock,
    schema.latest.c.safe,
    schema.latest.c.judged_at,
)


class Judgement(msgspec.Struct, frozen=True):
    """What a verdict says, apart from when and about whom. Shared by every verdict that says the same."""

    vector: dict[str, int]
    findings: tuple[dict[str, Any], ...]
    endorsement: dict[str, Any] | None = None
    """What was known of the EK. Not part of the evidence, and the same for machines that are told the same."""


def _plain(value: object) -> object:
    """A mapping that is no dict, for example a read-only view of one."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a finding holds a {type(value).__name__}, which is not a JSON value")


_judgement_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)
_judgement_decoder: Final = msgspec.json.Decoder(Judgement)


def judgement_bytes(verdict: VerdictRecord) -> tuple[bytes, bytes]:
    """The content, and the SHA-256 that names it."""
    said: dict[str, object] = {"findings": verdict.findings, "vector": verdict.vector}
    if verdict.endorsement is not None:
        said["endorsement"] = verdict.endorsement
    content = _judgement_encoder.encode(said)
    return hashlib.sha256(content).digest(), content


def read_judgement(content: bytes) -> Judgement:
    """The reverse. The digest was checked before, so a failure is a bug or another version's row."""
    try:
        return _judgement_decoder.decode(content)
    except values.UNREADABLE as error:
        raise values.damaged("judgement", error) from error


def token_values(token: TokenRecord) -> Values:
    """Columns of a token."""
    return {
        "id": token.id,
        "tenant": token.tenant,
        "secret_hash": token.secret_hash,
        "scopes": values.scopes_text(token.scopes),
        "label": values.plain_text(token.label),
        "created_at": values.micros(token.created_at),
        "expires_at": values.micros_or_none(token.expires_at),
        "uses_left": token.uses_left,
        "revoked_at": values.micros_or_none(token.revoked_at),
        "last_used_at": values.micros_or_none(token.last_used_at),
    }


def token_record(row: Row) -> TokenRecord:
    """A token, from `TOKEN_COLUMNS`."""
    token_id, tenant, secret_hash, scopes, label, created, expires, uses_left, revoked, used = row
    return TokenRecord(
        id=token_id,
        tenant=tenant,
        secret_hash=secret_hash,
        scopes=values.read_scopes(scopes),
        label=label,
        created_at=values.moment(created),
        expires_at=values.moment_or_none(expires),
        uses_left=uses_left,
        revoked_at=values.moment_or_none(revoked),
        last_used_at=values.moment_or_none(used),
    )


def enrollment_values(enrollment: EnrollmentRecord) -> Values:
    """Columns of an enrolment."""
    return {
        "id": enrollment.id,
        "tenant": enrollment.tenant,
        "created_at": values.micros(enrollment.created_at),
        "expires_at": values.micros(enrollment.expires_at),
        "ek_fingerprint": enrollment.ek_fingerprint,
        "ek_public": enrollment.ek_public,
        "ek_certificate": enrollment.ek_certificate,
        "ek_issuer": values.plain_text(enrollment.ek_issuer),
        "ek_profile": values.json_text(enrollment.ek_profile),
        "endorsed_by": enrollment.endorsed_by,
        "ak_name": enrollment.ak_name,
        "ak_public": enrollment.ak_public,
        "expected_proof": enrollment.expected_proof,
        "identity": values.json_text(enrollment.identity),
        "token_id": enrollment.token_id,
        "source": values.plain_text(enrollment.source),
        "status": enrollment.status.value,
        "waits_for": enrollment.waits_for,
        "replaces": enrollment.replaces,
        "activated_at": values.micros_or_none(enrollment.activated_at),
        "decided_at": values.micros_or_none(enrollment.decided_at),
        "decided_by": enrollment.decided_by,
        "decision_reason": values.plain_text(enrollment.decision_reason),
        "attester_id": enrollment.attester_id,
    }


def enrollment_record(row: Row) -> EnrollmentRecord:
    """An enrolment, from `ENROLLMENT_COLUMNS`."""
    (key, tenant, created, expires, fingerprint, ek_public, certificate, issuer, profile) = row[:9]
    (endorsed_by, ak_name, ak_public, proof, identity, token_id) = row[9:15]
    (source, status, waits_for, replaces, activated, decided, decided_by, reason, attester_id) = row[15:]
    return EnrollmentRecord(
        id=key,
        tenant=tenant,
        created_at=values.moment(created),
        expires_at=values.moment(expires),
        ek_fingerprint=fingerprint,
        ek_public=ek_public,
        ek_certificate=certificate,
        ek_issuer=issuer,
        ek_profile=values.read_object(profile),
        endorsed_by=endorsed_by,
        ak_name=ak_name,
        ak_public=ak_public,
        expected_proof=proof,
        identity=values.read_identity(identity),
        token_id=token_id,
        source=source,
        status=EnrollmentStatus(status),
        waits_for=waits_for,
        replaces=replaces,
        activated_at=values.moment_or_none(activated),
        decided_at=values.moment_or_none(decided),
        decided_by=decided_by,
        decision_reason=reason,
        attester_id=attester_id,
    )


def audit_values(entry: AuditEntry) -> Values:
    """Columns of an audit entry, but for its sequence."""
    return {
        "tenant": entry.tenant,
        "at": values.micros(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "reason": values.plain_text(entry.reason),
        "detail": values.json_text(entry.detail),
    }


def audit_entry(row: Row) -> AuditEntry:
    """An audit entry, from `AUDIT_COLUMNS`."""
    sequence, tenant, at, actor, action, subject, reason, detail = row
    return AuditEntry(
        sequence=sequence,
        tenant=tenant,
        at=values.moment(at),
        actor=actor,
        action=action,
        subject=subject,
        reason=reason,
        detail=values.read_object(detail),
    )


def attester_record(row: Row) -> AttesterRecord:
    """An attester, from `ATTESTER_COLUMNS`."""
    (key, tenant, fingerprint, ek_public, certificate, issuer, profile, endorsed_by, ak_name) = row[:9]
    (ak_public, identity, uuids, labels, policy_id, lifecycle, enrolled, revoked, activated) = row[9:18]
    return AttesterRecord(
        id=key,
        tenant=tenant,
        ek_fingerprint=fingerprint,
        ek_public=ek_public,
        ek_certificate=certificate,
        ek_issuer=issuer,
        ek_profile=values.read_object(profile),
        endorsed_by=endorsed_by,
        ak_name=ak_name,
        ak_public=ak_public,
        identity=values.read_identity(identity),
        smbios_uuids=frozenset(values.read_strings(uuids)),
        labels=values.read_labels(labels),
        policy_id=policy_id,
        lifecycle=Lifecycle(lifecycle),
        enrolled_at=values.moment(enrolled),
        revoked_at=values.moment_or_none(revoked),
        ak_activated_at=values.moment(activated),
        replaced_by=row[18],
    )


def verdict_record(row: Row, judgement: Judgement) -> VerdictRecord:
    """A verdict, from `LATEST_COLUMNS` or `HISTORY_COLUMNS` and what its judgement holds."""
    (attester_id, tenant, sequence, tier, _, policy_id, revision, evidence) = row[:8]
    (clock, resets, restarts, safe, boot_id, judged, valid_until, rejudged) = row[8:]
    return VerdictRecord(
        attester_id=attester_id,
        tenant=tenant,
        sequence=sequence,
        tier=Tier(tier),
        vector=judgement.vector,
        findings=judgement.findings,
        policy_id=policy_id,
        policy_revision=revision,
        evidence_sha256=evidence,
        clock=ClockInfo(values.unsigned64(clock), resets, restarts, bool(safe)),
        boot_id=boot_id,
        judged_at=values.moment(judged),
        valid_until=values.moment(valid_until),
        endorsement=judgement.endorsement,
        rejudged_at=values.moment_or_none(rejudged),
    )


def boot_record(row: Row) -> BootRecord:
    """A boot, from `BOOT_COLUMNS`."""
    resets, restarts, firmware, log, boot_id, userspace_log, ima, clock, safe, seen = row
    return BootRecord(
        clock=ClockInfo(values.unsigned64(clock), resets, restarts, bool(safe)),
        firmware_version=values.unsigned64(firmware),
        boot_log_sha256=log or None,
        boot_id=boot_id,
        seen_at=values.moment(seen),
        userspace_log_sha256=userspace_log,
        ima=ima,
    )


def policy_record(row: Row) -> PolicyRecord:
    """A policy revision, from `POLICY_COLUMNS`."""
    key, tenant, revision, source, created = row
    return PolicyRecord(
        id=key, tenant=tenant, revision=revision, source=source, created_at=values.moment(created)
    )


def policy_values(policy: PolicyRecord) -> Mapping[str, Any]:
    """Columns of a policy revision, but for its position."""
    return {
        "id": policy.id,
        "tenant": policy.tenant,
        "revision": policy.revision,
        "source": policy.source,
        "created_at": values.micros(policy.created_at),
    }
