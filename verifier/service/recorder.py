"""The one path by which anything changes: store it, then say so.

No other use case calls a method of the store that writes (a test walks this package and checks it), so the
log, the events and, later, the audit tree see exactly what the store saw, after it was durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from verifier.appraisal.lineage import Incident, Lineage
from verifier.policy.assignment import Assignment
from verifier.ports import (
    AttesterRecord,
    EventSink,
    PolicyRecord,
    Recording,
    Store,
    TokenRecord,
    VerdictRecord,
)
from verifier.ports_enrollment import AuditEntry, Decision, EnrollmentBounds, EnrollmentRecord, Filed
from verifier.ports_events import WebhookRecord
from verifier.ports_history import HistoryPurge
from verifier.ports_inventory import InventoryUpdate
from verifier.ports_rejudge import RejudgingRecord
from verifier.ports_secrets import Changed, Released, SecretChange, SecretRelease
from verifier.ports_trust import AnchorAssignment, AnchorSetRecord, ExpiryAlarm, LostEndorsement
from verifier.service import audit_entries, trust_entries

_EVIDENCE_AT_LEAST: Final = timedelta(days=1)
"""So that no verdict on its way into the store names what is just dropped, whatever replicas' clocks differ by."""
_NAME_OF_DAMAGE: Final = 16
_SESSIONS_KEPT: Final = timedelta(days=30)
"""Tokens of sessions that are over can be looked up for so long: the audit log names them."""

_FILED: Final = {
    Filed.KEPT: "enrollment.begun",
    Filed.TENANT_FULL: "enrollment.queue-full",
    Filed.SOURCE_FULL: "enrollment.queue-full",
    Filed.UNPAID: "enrollment.unpaid",
}


class Recorder:
    """Every change of state. `actor` is the id of the token that asked, or `cli`, `start` or the attester."""

    def __init__(self, store: Store, events: EventSink) -> None:
        self._store = store
        self._events = events
        # Bound at once: what is looked up at every line costs more than the line that nobody reads.
        self._log = structlog.get_logger("vtpm_attest.record").bind()

    async def enrollment_begun(
        self, enrollment: EnrollmentRecord, bounds: EnrollmentBounds | None = None, *, spends: bool = False
    ) -> Filed:
        """A credential challenge is out, unless that would exceed the bounds or a use of its token cannot be spent."""
        filed = await self._store.add_enrollment(enrollment, bounds, spends=spends)
        tell = self._log.info if filed is Filed.KEPT else self._log.warning
        tell(
            _FILED[filed],
            enrollment=enrollment.id,
            endorsed_by=enrollment.endorsed_by,
            ek=enrollment.ek_fingerprint.hex(),
            token=enrollment.token_id,
            spent=spends and filed is Filed.KEPT,
            source=enrollment.source,
            waits_for=enrollment.waits_for,
        )
        return filed

    async def enrollment_pending(
        self, enrollment_id: str, waits_for: str, now: datetime, expires_at: datetime
    ) -> EnrollmentRecord | None:
        """A machine has proven its keys and waits for a person; None when its challenge is gone."""
        pending = await self._store.await_approval(enrollment_id, waits_for, now, expires_at)
        if pending is not None:
            self._log.warning(
                "enrollment.pending",
                enrollment=pending.id,
                waits_for=waits_for,
                ek=pending.ek_fingerprint.hex(),
                hostname=pending.identity.hostname,
                source=pending.source,
            )
        return pending

    async def enrollment_decided(self, tenant: str, decision: Decision) -> EnrollmentRecord | None:
        """A person has decided; None when there was nothing to decide any more."""
        decided = await self._store.decide_enrollment(tenant, decision)
        if decided is not None:
            for attester_id in {decided.attester_id, decided.replaces} - {None}:
                self._events.changed(tenant, str(attester_id))
            self._log.warning(
                f"enrollment.{decided.status.value}",
                enrollment=decided.id,
                attester=decided.attester_id,
                replaces=decided.replaces,
                reason=decision.reason,
                actor=decision.actor,
            )
        return decided

    async def enrolled(
        self, enrollment_id: str, attester_id: str, now: datetime, replaces: str | None = None
    ) -> AttesterRecord | None:
        """An AK is bound to its EK, and takes the place of `replaces`; None when the enrolment was consumed meanwhile."""
        attester = await self._store.complete_enrollment(enrollment_id, attester_id, now)
        if attester is not None:
            for changed in {attester.id, replaces} - {None}:
                self._events.changed(attester.tenant, str(changed))
            self._log.info(
                "attester.enrolled",
                attester=attester.id,
                enrollment=enrollment_id,
                hostname=attester.identity.hostname,
                lifecycle=attester.lifecycle.value,
            )
        return attester

    async def verdict(
        self, recording: Recording, previous: VerdictRecord | None, opened: Incident | None = None
    ) -> VerdictRecord | None:
        """Spend the nonce and append the verdict; None when the nonce was spent before.

        `opened`: the clone or rollback that came to light with it.
        """
        stored = await self._store.record(recording)
        if stored is not None:
            level = "info" if previous is None or previous.tier is not stored.tier else "debug"
            getattr(self._log, level)(
                "verdict.recorded",
                attester=stored.attester_id,
                sequence=stored.sequence,
                status=stored.tier.label,
            )
            if opened is not None:
                self._incident_opened(stored, recording, opened)
            await self._events.verdict(stored, previous)
        return stored

    def _incident_opened(self, stored: VerdictRecord, recording: Recording, incident: Incident) -> None:
        guests = () if recording.lineage is None else recording.lineage.guests
        self._log.warning(
            "incident.opened",
            attester=stored.attester_id,
            sequence=stored.sequence,
            kind=incident.kind.value,
            guests=[
                {
                    "smbios_uuid": one.smbios_uuid,
                    "hostname": one.hostname,
                    "address": one.address,
                    "parted": one.parted,
                }
                for one in guests
            ],
        )

    async def rejudged(
        self,
        verdicts: Sequence[VerdictRecord],
        replaced: Mapping[str, VerdictRecord | None],
        audit: AuditEntry,
    ) -> tuple[VerdictRecord, ...]:
        """Verdicts were judged again from stored evidence; those that still replace the one they were made from.

        `replaced` has that one by attester.
        """
        done = [record for record in await self._store.rejudge(verdicts, audit) if record is not None]
        changed = 0
        for record in done:
            before = replaced.get(record.attester_id)
            changed += before is None or before.tier is not record.tier
            await self._events.verdict(record, before)
        self._log.warning(
            audit.action,
            policy=audit.subject,
            verdicts=len(done),
            changed=changed,
            actor=audit.actor,
            reason=audit.reason,
        )
        return tuple(done)

    async def rejudging_begun(self, record: RejudgingRecord, not_before: datetime, audit: AuditEntry) -> None:
        """The fleet is to be judged again in the background."""
        await self._store.begin_rejudging(record, not_before, audit)
        self._log.warning(audit.action, policy=record.policy_id, actor=audit.actor, reason=audit.reason)

    async def rejudging_claimed(self, now: datetime, until: datetime) -> RejudgingRecord | None:
        """This replica goes on with one of them; None: there is nothing to be done."""
        return await self._store.claim_rejudging(now, until)

    async def rejudging_advanced(
        self,
        before: RejudgingRecord,
        after: RejudgingRecord,
        until: datetime,
        audit: AuditEntry | None = None,
    ) -> bool:
        """A page more is done, or all; False where somebody else went on, or began anew."""
        done = await self._store.advance_rejudging(before, after, until, audit)
        if done and audit is not None:
            self._log.warning(audit.action, policy=after.policy_id, problem=after.problem, **after.counts)
        return done

    async def blob_mended(self, digest: bytes, content: bytes) -> None:
        """Content that was damaged in the store is what it was again: a guest has sent it once more."""
        await self._store.mend_blob(digest, content)
        self._log.warning("blob.mended", sha256=digest.hex(), size=len(content))

    async def evidence_read(self, verdict: VerdictRecord, now: datetime, actor: str) -> None:
        """Somebody is given the evidence of a verdict."""
        await self._store.add_audit(audit_entries.evidence_read(verdict, now, actor))
        self._log.info("evidence.read", attester=verdict.attester_id, sequence=verdict.sequence, actor=actor)

    async def lineage_resolved(
        self, attester_id: str, position: int, lineage: Lineage, audit: AuditEntry
    ) -> bool:
        """An operator said which machine a TPM's state belongs to; False when evidence came in between."""
        done = await self._store.resolve_lineage(audit.tenant, attester_id, position, lineage, audit)
        if done:
            self._events.changed(audit.tenant, attester_id)
            self._log.warning(
                audit.action,
                attester=attester_id,
                incident=audit.subject,
                reason=audit.reason,
                actor=audit.actor,
                detail=dict(audit.detail),
            )
        return done

    async def attester_revoked(self, tenant: str, attester_id: str, now: datetime, actor: str) -> bool:
        """The attester's word counts for nothing from now on."""
        audit = audit_entries.attester_revoked(tenant, attester_id, now, actor)
        done = await self._store.revoke_attester(tenant, attester_id, now, audit)
        if done:
            self._events.changed(tenant, attester_id)
            self._log.warning(audit.action, attester=attester_id, actor=actor)
        return done

    async def policy_assigned(
        self, tenant: str, attester_id: str, policy_id: str | None, actor: str, now: datetime
    ) -> bool:
        """Which policy judges an attester; None: the default."""
        audit = audit_entries.policy_assigned(tenant, attester_id, policy_id, now, actor)
        done = await self._store.assign_policy(tenant, attester_id, policy_id, audit)
        if done:
            self._events.changed(tenant, attester_id)
            self._log.info(audit.action, attester=attester_id, policy=policy_id, actor=actor)
        return done

    async def policy_added(self, policy: PolicyRecord, actor: str, *, current: bool = True) -> None:
        """A policy revision exists; with `current` it is the one that its id stands for."""
        entry = audit_entries.policy_added(policy, actor)
        await self._store.add_policy(policy, entry, current=current)
        self._log.info(
            "policy.added", policy=policy.id, revision=policy.revision, current=current, actor=actor
        )

    async def assignment_put(
        self, tenant: str, assignment: Assignment, replacing: Sequence[str], actor: str
    ) -> None:
        """A policy judges the attesters with these labels from their next attestation on."""
        audit = audit_entries.assignment_put(tenant, assignment, replacing, actor)
        await self._store.put_assignment(tenant, assignment, audit, replacing=replacing)
        self._log.info(audit.action, assignment=assignment.id, actor=actor, **audit.detail)

    async def assignment_removed(self, tenant: str, removed: Assignment, actor: str, now: datetime) -> bool:
        """An assignment no longer holds; False where it was gone already."""
        audit = audit_entries.assignment_removed(tenant, removed, now, actor)
        done = await self._store.remove_assignment(tenant, removed.id, audit)
        if done:
            self._log.info(audit.action, assignment=removed.id, actor=actor, **audit.detail)
        return done

    async def labelled(
        self, tenant: str, attester_id: str, labels: Mapping[str, str], actor: str, now: datetime
    ) -> bool:
        """An attester has these labels, which choose its policies."""
        audit = audit_entries.attester_labelled(tenant, attester_id, labels, now, actor)
        done = await self._store.set_labels(tenant, attester_id, labels, audit)
        if done:
            self._events.changed(tenant, attester_id)
            self._log.info(audit.action, attester=attester_id, labels=dict(labels), actor=actor)
        return done

    async def token_added(self, token: TokenRecord, actor: str) -> None:
        """A credential exists; its secret is neither stored nor logged."""
        await self._store.add_token(token, audit_entries.token_created(token, actor))
        self._log.info(
            "token.added",
            token=token.id,
            scopes=sorted(s.value for s in token.scopes),
            label=token.label,
            actor=actor,
        )

    async def token_revoked(self, tenant: str, token_id: str, now: datetime, actor: str) -> bool:
        """A credential is worth nothing any more."""
        audit = audit_entries.token_revoked(tenant, token_id, now, actor)
        done = await self._store.revoke_token(tenant, token_id, now, audit)
        if done:
            self._log.warning("token.revoked", token=token_id, actor=actor)
        return done

    async def anchors_assigned(
        self,
        record: AnchorSetRecord,
        assignment: AnchorAssignment,
        *,
        count: int,
        instead_of: bytes | None = None,
    ) -> bool:
        """A name stands for this set of trust anchors; False where it was to replace another than stands there."""
        audit = trust_entries.assigned(assignment, count, instead_of)
        done = await self._store.assign_anchors(record, assignment, audit, instead_of=instead_of)
        if done:
            self._log.warning(
                "anchors.assigned",
                name=assignment.name,
                digest=assignment.digest.hex(),
                purposes=sorted(assignment.purposes),
                anchors=count,
                source=assignment.source,
                actor=assignment.assigned_by,
            )
        return done

    async def anchors_unassigned(self, assignment: AnchorAssignment, actor: str, now: datetime) -> bool:
        """A set is trusted no longer; False where its name stands for another meanwhile."""
        audit = trust_entries.removed(assignment, actor, now)
        done = await self._store.unassign_anchors(
            assignment.tenant, assignment.name, audit, instead_of=assignment.digest
        )
        if done:
            self._log.warning(
                "anchors.removed", name=assignment.name, digest=assignment.digest.hex(), actor=actor
            )
        return done

    def ak_certificate_issued(self, attester: AttesterRecord, serial: int, not_after: datetime) -> None:
        """An AK certificate exists. Stores nothing: the certificate is in the hands of whoever asked."""
        self._log.info(
            "ak-certificate.issued",
            attester=attester.id,
            ak=attester.ak_name.hex(),
            serial=f"{serial:x}",
            not_after=not_after.isoformat(),
        )

    async def expiring(self, alarms: Sequence[ExpiryAlarm], now: datetime) -> tuple[ExpiryAlarm, ...]:
        """Something passed a threshold before its end. Gives the alarms that nobody was told of before."""
        fresh = [
            alarm for alarm in alarms if await self._store.raise_alarm(*trust_entries.expiring(alarm, now))
        ]
        for alarm in fresh:
            self._log.warning(
                trust_entries.alarm_name(alarm),
                kind=alarm.ending.kind.value,
                holder=alarm.ending.holder,
                sha256=alarm.ending.sha256,
                subject=alarm.ending.subject,
                ends_at=alarm.ending.ends_at.isoformat(),
                within_days=alarm.threshold_days,
            )
        if fresh:
            await self._events.expiring(fresh)
        return tuple(fresh)

    async def endorsement_lost(self, tenant: str, lost: LostEndorsement, now: datetime) -> bool:
        """An enrolled machine's EK certificate no longer holds; False where that was told before. Changes nothing."""
        audit = trust_entries.endorsement_lost(tenant, lost, now)
        fresh = await self._store.raise_alarm(f"endorsement:{lost.attester_id}:{lost.reason.value}", 0, audit)
        if fresh:
            self._log.warning(
                "endorsement.lost", attester=lost.attester_id, code=lost.reason.value, detail=lost.detail
            )
        return fresh

    async def key_rotated(self, key: str, retiring: Sequence[str], now: datetime, actor: str) -> None:
        """Something is signed with another key from now on."""
        await self._store.add_audit(audit_entries.key_rotated(key, retiring, now, actor))
        self._log.warning("key.rotated", key=key, retiring=list(retiring), actor=actor)

    async def log_damaged(self, problem: str, now: datetime) -> bool:
        """The transparency log is not what was signed; False where that was told before."""
        digest = hashlib.sha256(problem.encode()).hexdigest()[:_NAME_OF_DAMAGE]
        return await self._store.raise_alarm(
            f"log:damaged:{digest}", 0, audit_entries.log_damaged(problem, now)
        )

    async def checkpoint_cosigned(self, size: int, witness: str, line: str, now: datetime) -> None:
        """A witness stands by a checkpoint too."""
        await self._store.add_cosignature(size, witness, line, now)
        self._log.info("log.cosigned", size=size, witness=witness)

    async def fleet_sample(self, tenant: str, at: datetime, counts: Mapping[str, int]) -> None:
        """What the fleet looked like; for plots, and no change of anything."""
        await self._store.add_fleet_sample(tenant, at, counts)

    async def purge_fleet_samples(self, before: datetime) -> int:
        """Drop older samples."""
        return await self._store.purge_fleet_samples(before)

    async def inventory_kept(self, tenant: str, update: InventoryUpdate, now: datetime) -> None:
        """What the inventories say now is what is known after a restart; each event is told of once."""
        fresh = await self._store.keep_inventory(tenant, update, now)
        for event, _ in update.events:
            if event.id in fresh:
                self._log.info(
                    f"inventory.{event.kind.value}",
                    machine=str(event.machine),
                    origin=None if event.origin is None else str(event.origin),
                    at=event.at.isoformat(),
                    before=event.before,
                    after=event.after,
                )

    async def purge_inventory_events(self, now: datetime, keep: timedelta) -> int:
        """Drop events of inventories that are older than `keep`. What the audit log has of them stays."""
        return await self._store.purge_inventory_events(now - keep)

    async def webhook_added(self, webhook: WebhookRecord, audit: AuditEntry, *, at_most: int) -> bool:
        """Events are sent somewhere from now on; False where there are `at_most` webhooks already."""
        done = await self._store.add_webhook(webhook, audit, at_most=at_most)
        if done:
            self._log.warning(audit.action, webhook=webhook.id, url=webhook.url, actor=audit.actor)
        return done

    async def webhook_removed(self, tenant: str, webhook_id: str, audit: AuditEntry) -> bool:
        """They are not any more; False where there is no such webhook."""
        done = await self._store.remove_webhook(tenant, webhook_id, audit)
        if done:
            self._log.warning(audit.action, webhook=webhook_id, actor=audit.actor)
        return done

    async def redelivered(
        self, tenant: str, webhook_id: str, deliveries: Sequence[int] | None, audit: AuditEntry
    ) -> int:
        """What was given up is tried again; how many deliveries."""
        count = await self._store.redeliver(tenant, webhook_id, deliveries, audit.at, audit)
        if count:
            self._log.info(audit.action, webhook=webhook_id, deliveries=count, actor=audit.actor)
        return count

    async def secret_changed(self, change: SecretChange, audit: AuditEntry) -> Changed:
        """A secret, or who may have it, is another from now on."""
        done = await self._store.change_secret(change, audit)
        if done is Changed.DONE:
            self._log.warning(audit.action, secret=audit.subject, actor=audit.actor, **audit.detail)
        return done

    async def secret_released(self, release: SecretRelease, audit: AuditEntry) -> Released:
        """A secret may leave: it is in the audit log before it does."""
        done = await self._store.release_secret(release, audit)
        if done is Released.RECORDED:
            self._log.info(audit.action, secret=audit.subject, **audit.detail)
        return done

    async def secret_refused(self, audit: AuditEntry) -> None:
        """A secret was asked for by a machine that does not get it."""
        await self._store.add_audit(audit)
        self._log.warning(audit.action, secret=audit.subject, why=audit.reason, **audit.detail)

    async def purge(self, now: datetime) -> int:
        """Drop what has expired."""
        return await self._store.purge_expired(now) + await self._store.purge_sessions(now - _SESSIONS_KEPT)

    async def prepare_history(self, now: datetime) -> None:
        """Make room for the verdicts of the next weeks."""
        made = await self._store.prepare_history(now)
        if made:
            self._log.info("history.partitions-made", partitions=made)

    async def purge_history(self, before: datetime) -> HistoryPurge:
        """Drop older verdicts, but for latest ones."""
        purged = await self._store.purge_history(before)
        if purged != HistoryPurge():
            self._log.info(
                "history.purged",
                before=before.isoformat(),
                verdicts=purged.rows,
                partitions=purged.partitions,
                partition_bytes=purged.size,
                judgements=purged.judgements,
            )
        return purged

    async def purge_log(self, before: datetime, now: datetime) -> int:
        """Drop what the transparency log has of verdicts that are gone; the tree stays."""
        gone = await self._store.purge_log(before, now)
        if gone:
            self._log.info("log.purged", before=before.isoformat(), leaves=gone)
        return gone

    async def purge_evidence(self, now: datetime, keep: timedelta) -> int:
        """Drop evidence older than `keep` that a newer verdict has replaced; at least a whole day is kept."""
        gone = await self._store.purge_evidence(now - max(keep, _EVIDENCE_AT_LEAST))
        if gone:
            self._log.info("evidence.purged", blobs=gone, keep=str(keep))
        return gone
