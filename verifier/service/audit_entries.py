"""Entries of the audit log about tokens, policies and the log itself: what there is of them can be checked against it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from verifier.ports import DEFAULT_TENANT, PolicyRecord, TokenRecord
from verifier.ports_enrollment import AuditEntry


def token_created(token: TokenRecord, actor: str) -> AuditEntry:
    """A credential exists. Its secret is not in here, nor is what the database knows it by."""
    return AuditEntry(
        tenant=token.tenant,
        at=token.created_at,
        actor=actor,
        action="token.created",
        subject=token.id,
        reason="",
        detail={
            "scopes": sorted(scope.value for scope in token.scopes),
            "label": token.label,
            "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
            "uses": token.uses_left,
            "secret_hash_sha256": hashlib.sha256(token.secret_hash).hexdigest(),
        },
    )


def token_revoked(tenant: str, token_id: str, now: datetime, actor: str) -> AuditEntry:
    """A credential is worth nothing any more."""
    return AuditEntry(tenant=tenant, at=now, actor=actor, action="token.revoked", subject=token_id, reason="")


def policy_added(policy: PolicyRecord, actor: str) -> AuditEntry:
    """A revision exists, is current again, or is signed by others; the store says which one is current."""
    return AuditEntry(
        tenant=policy.tenant,
        at=policy.created_at,
        actor=actor,
        action="policy.added",
        subject=policy.id,
        reason="",
        detail={
            "revision": policy.revision,
            "source_sha256": hashlib.sha256(policy.source.encode()).hexdigest(),
        },
    )


def log_damaged(problem: str, now: datetime) -> AuditEntry:
    """The transparency log is not what was signed."""
    return AuditEntry(
        tenant=DEFAULT_TENANT, at=now, actor="verifier", action="log.damaged", subject="log", reason=problem
    )


def key_rotated(key: str, retiring: Sequence[str], now: datetime, actor: str) -> AuditEntry:
    """Something is signed with another key from now on; the old ones stay good for a while."""
    return AuditEntry(
        tenant=DEFAULT_TENANT,
        at=now,
        actor=actor,
        action="key.rotated",
        subject=key,
        reason="",
        detail={"retiring": list(retiring)},
    )
