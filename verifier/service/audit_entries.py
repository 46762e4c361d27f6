"""Entries of the audit log about what the recorder is told alone: one form for all of them. Pure.

What there is of tokens and policies can be checked against theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from verifier.policy.assignment import Assignment
from verifier.ports import DEFAULT_TENANT, PolicyRecord, TokenRecord, VerdictRecord
from verifier.ports_enrollment import AuditEntry


def token_created(token: TokenRecord, actor: str) -> AuditEntry:
    """A credential exists. Its secret is not in here, nor is what the database knows it by."""
    return _entry(
        token.tenant,
        token.created_at,
        actor,
        "token.created",
        token.id,
        scopes=sorted(scope.value for scope in token.scopes),
        label=token.label,
        expires_at=None if token.expires_at is None else token.expires_at.isoformat(),
        uses=token.uses_left,
        secret_hash_sha256=hashlib.sha256(token.secret_hash).hexdigest(),
    )


def token_revoked(tenant: str, token_id: str, now: datetime, actor: str) -> AuditEntry:
    """A credential is worth nothing any more."""
    return _entry(tenant, now, actor, "token.revoked", token_id)


def policy_added(policy: PolicyRecord, actor: str) -> AuditEntry:
    """A revision exists, is current again, or is signed by others; the store says which one is current."""
    return _entry(
        policy.tenant,
        policy.created_at,
        actor,
        "policy.added",
        policy.id,
        revision=policy.revision,
        source_sha256=hashlib.sha256(policy.source.encode()).hexdigest(),
    )


def policy_assigned(
    tenant: str, attester_id: str, policy_id: str | None, now: datetime, actor: str
) -> AuditEntry:
    """An attester has a policy of its own, or none any more."""
    return _entry(tenant, now, actor, "policy.assigned", attester_id, policy=policy_id)


def assignment_put(tenant: str, assignment: Assignment, replacing: Sequence[str], actor: str) -> AuditEntry:
    """A policy judges the attesters with these labels."""
    return _entry(
        tenant,
        assignment.changed_at,
        actor,
        "assignment.put",
        assignment.id,
        policy=assignment.policy_id,
        revision=assignment.revision,
        mode=assignment.mode.value,
        priority=assignment.priority,
        selector=dict(assignment.selector),
        replacing=list(replacing),
    )


def assignment_removed(tenant: str, removed: Assignment, now: datetime, actor: str) -> AuditEntry:
    """It no longer does."""
    return _entry(
        tenant,
        now,
        actor,
        "assignment.removed",
        removed.id,
        policy=removed.policy_id,
        mode=removed.mode.value,
        selector=dict(removed.selector),
    )


def attester_labelled(
    tenant: str, attester_id: str, labels: Mapping[str, str], now: datetime, actor: str
) -> AuditEntry:
    """An attester has these labels."""
    return _entry(tenant, now, actor, "attester.labelled", attester_id, labels=dict(labels))


def attester_revoked(tenant: str, attester_id: str, now: datetime, actor: str) -> AuditEntry:
    """An attester's word counts for nothing."""
    return _entry(tenant, now, actor, "attester.revoked", attester_id)


def evidence_read(verdict: VerdictRecord, now: datetime, actor: str) -> AuditEntry:
    """Somebody was given the evidence of a verdict."""
    return _entry(
        verdict.tenant,
        now,
        actor,
        "evidence.read",
        verdict.attester_id,
        sequence=verdict.sequence,
        evidence_sha256=verdict.evidence_sha256.hex(),
    )


def log_damaged(problem: str, now: datetime) -> AuditEntry:
    """The transparency log is not what was signed."""
    return AuditEntry(
        tenant=DEFAULT_TENANT, at=now, actor="verifier", action="log.damaged", subject="log", reason=problem
    )


def key_rotated(key: str, retiring: Sequence[str], now: datetime, actor: str) -> AuditEntry:
    """Something is signed with another key from now on; the old ones stay good for a while."""
    return _entry(DEFAULT_TENANT, now, actor, "key.rotated", key, retiring=list(retiring))


def _entry(tenant: str, at: datetime, actor: str, action: str, subject: str, **detail: object) -> AuditEntry:
    return AuditEntry(
        tenant=tenant, at=at, actor=actor, action=action, subject=subject, reason="", detail=detail
    )
