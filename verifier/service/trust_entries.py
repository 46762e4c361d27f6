"""Entries of the audit log about trust: what was imported and removed, what ends, what no longer holds. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from verifier.ports_enrollment import AuditEntry
from verifier.ports_trust import AnchorAssignment, ExpiryAlarm, LostEndorsement

_VERIFIER: Final = "verifier"
"""Who acts where nobody asked."""


def assigned(assignment: AnchorAssignment, count: int, instead_of: bytes | None) -> AuditEntry:
    """A name stands for a set of anchors."""
    return AuditEntry(
        tenant=assignment.tenant,
        at=assignment.assigned_at,
        actor=assignment.assigned_by,
        action="anchors.assigned",
        subject=assignment.name,
        reason="",
        detail={
            "digest": assignment.digest.hex(),
            "instead_of": None if instead_of is None else instead_of.hex(),
            "purposes": sorted(assignment.purposes),
            "anchors": count,
            "source": assignment.source,
        },
    )


def removed(assignment: AnchorAssignment, actor: str, now: datetime) -> AuditEntry:
    """A set is trusted no longer."""
    return AuditEntry(
        tenant=assignment.tenant,
        at=now,
        actor=actor,
        action="anchors.removed",
        subject=assignment.name,
        reason="",
        detail={"digest": assignment.digest.hex()},
    )


def alarm_name(alarm: ExpiryAlarm) -> str:
    """What the log and the audit log call it."""
    return "expiry.ended" if alarm.threshold_days == 0 else "expiry.near"


def expiring(alarm: ExpiryAlarm, now: datetime) -> tuple[str, int, AuditEntry]:
    """Key, threshold and entry of an alarm."""
    ending = alarm.ending
    audit = AuditEntry(
        tenant=alarm.tenant,
        at=now,
        actor=_VERIFIER,
        action=alarm_name(alarm),
        subject=ending.holder,
        reason="",
        detail={
            "kind": ending.kind.value,
            "sha256": ending.sha256,
            "certificate": ending.subject,
            "ends_at": ending.ends_at.isoformat(),
            "within_days": alarm.threshold_days,
        },
    )
    return f"{ending.kind.value}:{ending.holder}:{ending.sha256}", alarm.threshold_days, audit


def endorsement_lost(tenant: str, lost: LostEndorsement, now: datetime) -> AuditEntry:
    """The certificate of an enrolled machine's EK or AK would not be accepted now."""
    return AuditEntry(
        tenant=tenant,
        at=now,
        actor=_VERIFIER,
        action="endorsement.lost",
        subject=lost.attester_id,
        reason="",
        detail={"code": lost.reason.value, "detail": lost.detail, "hostname": lost.hostname},
    )
