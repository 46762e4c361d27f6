"""What a completed enrolment leaves behind, within one transaction: the attester, its keys, and whose place it takes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, insert, literal, select, update

from verifier.appraisal.lineage import Lineage, begun_anew
from verifier.errors import StateMovedError
from verifier.ports import Lifecycle
from verifier.ports_enrollment import AuditEntry, EnrollmentRecord
from verifier.ports_events import EventKind, NewEvent
from verifier.store import audit_log, binding_statements, event_log, identities, recording, statements, values
from verifier.store.backend import changed
from verifier.store.binding_statements import inserts
from verifier.store.schema import (
    attestation_key,
    attester,
    attester_label,
    latest,
)
from verifier.store.statements import InsertInto


@dataclass(frozen=True, slots=True)
class Binding:
    """The steps that turn an enrolment into an attester.

    Each holds under concurrency: the attester's row is made or found under the unique key of its EK, and what is
    merged is read under the lock of that row.

    Attributes:
        insert: of the database's dialect.
        attester_id: for an EK that has none yet.
        at: microseconds.
        actor: on whose word.
        reason: in the actor's words.
        authority: a person, a join token or the inventory let this machine in, so that its past is not held against it
            any more.
        may_return: the word of the one who decided also brings back an attester that was retired.
    """

    insert: InsertInto
    attester_id: str
    at: int
    actor: str
    reason: str
    authority: bool
    may_return: bool

    def run(self, connection: Connection, record: EnrollmentRecord) -> str:
        """The id of the attester that speaks with these keys from now on.

        Raises:
            StateMovedError: it, or the one it shall replace, was retired meanwhile. The transaction must be undone.
        """
        self._keep_ek(connection, record)
        bound = self._bind_attester(connection, record)
        self._bring_back(connection, bound)
        self._bind_ak(connection, record, bound)
        if self.authority:
            self._begin_anew(connection, bound)
        if record.replaces is not None and record.replaces != bound:
            self._take_over(connection, record, bound)
        return bound

    def _keep_ek(self, connection: Connection, record: EnrollmentRecord) -> None:
        """What was shown for this EK last replaces what was known; a certificate once seen is not forgotten."""
        new = {
            "tenant": record.tenant,
            "fingerprint": record.ek_fingerprint,
            "public": record.ek_public,
            "certificate": record.ek_certificate,
            "issuer": values.plain_text(record.ek_issuer),
            "profile": values.json_text(record.ek_profile),
            "endorsed_by": record.endorsed_by,
            "first_seen_at": self.at,
            "last_seen_at": self.at,
        }
        connection.execute(inserts(self.insert).keep_ek, new)

    def _bind_attester(self, connection: Connection, record: EnrollmentRecord) -> str:
        """The id of the attester with this EK: the one it had, or the new one."""
        # `latest` before `attester`, the order in which recordings lock them.
        same_ek = {"b_tenant": record.tenant, "b_fingerprint": record.ek_fingerprint}
        connection.execute(binding_statements.LOCK_OF_EK, same_ek)
        write = inserts(self.insert)
        new = {
            "id": self.attester_id,
            "tenant": record.tenant,
            "ek_fingerprint": record.ek_fingerprint,
            "ak_name": record.ak_name,
            "identity": "{}",
            "smbios_uuids": "[]",
            "labels": "{}",
            "policy_id": None,
            "enrolled_at": self.at,
            "revoked_at": None,
            "search_text": "",
            "replaced_by": None,
        }
        bound, stored = connection.execute(write.bind_attester, new).one()
        uuids, claimed = frozenset(values.read_strings(stored)), record.identity.smbios_uuid
        if claimed is not None and claimed not in uuids and len(uuids) < identities.MAX_UUIDS:
            uuids |= {claimed}
            connection.execute(write.add_uuid, identities.uuid_values(bound, record.tenant, claimed))
        connection.execute(
            statements.CHANGE_IDENTITY, identities.identity_values(bound, record.identity, uuids)
        )
        begun = {
            "attester_id": bound,
            "tenant": record.tenant,
            "sequence": 0,
            "lifecycle": Lifecycle.ENROLLED.value,
        }
        if connection.execute(write.begin_latest, begun).rowcount == 0:
            # Evidence that is being judged by the keys and the EK's facts of before is judged again.
            connection.execute(binding_statements.MOVE_ON, {"b_attester_id": bound})
        return str(bound)

    def _bring_back(self, connection: Connection, attester_id: str) -> None:
        """A retired attester comes back only on the word of somebody who decides over replacements."""
        if connection.execute(binding_statements.BRING_BACK, {"b_attester_id": attester_id}).rowcount == 0:
            return
        if not self.may_return:
            raise StateMovedError(f"attester {attester_id} was retired")
        connection.execute(update(attester).where(attester.c.id == attester_id).values(replaced_by=None))

    def _begin_anew(self, connection: Connection, attester_id: str) -> None:
        """Somebody with authority let the machine in again: its past is not held against it any more."""
        this = {"b_attester_id": attester_id}
        position, stored = connection.execute(binding_statements.PAST, this).one()
        line = recording.lineage_values(begun_anew(values.read_lineage(stored) or Lineage()))
        changes = {f"b_{name}": value for name, value in line.items()} | {"b_position": position + 1}
        connection.execute(binding_statements.BEGIN_ANEW, this | changes)

    def _bind_ak(self, connection: Connection, record: EnrollmentRecord, attester_id: str) -> None:
        """The AK that speaks from now on; those before it stay on record as retired."""
        others = {"b_attester_id": attester_id, "b_name": record.ak_name, "b_at": self.at}
        connection.execute(binding_statements.RETIRE_OTHER_AKS, others)
        bound = {
            "attester_id": attester_id,
            "name": record.ak_name,
            "tenant": record.tenant,
            "public": record.ak_public,
            "activated_at": self.at,
            "retired_at": None,
        }
        connection.execute(inserts(self.insert).bind_ak, bound)

    def _take_over(self, connection: Connection, record: EnrollmentRecord, attester_id: str) -> None:
        """Retire the predecessor with all its keys. Its history stays; its labels and policy go on with the new one."""
        old = record.replaces
        of_old = (latest.c.tenant == record.tenant, latest.c.attester_id == old)
        revoked = latest.c.lifecycle == Lifecycle.REVOKED.value
        lifecycle = case((revoked, latest.c.lifecycle), else_=literal(Lifecycle.RETIRED.value))
        connection.execute(
            update(latest).where(*of_old).values(lifecycle=lifecycle, position=latest.c.position + 1)
        )
        linked = update(attester).where(
            attester.c.tenant == record.tenant, attester.c.id == old, attester.c.replaced_by.is_(None)
        )
        if not changed(connection, linked.values(replaced_by=attester_id)):
            raise StateMovedError(f"attester {old} was replaced already")
        told = NewEvent(
            tenant=record.tenant,
            kind=EventKind.ATTESTER_RETIRED,
            subject=str(old),
            attester_id=old,
            at=values.moment(self.at),
            data={"replaced_by": attester_id},
        )
        event_log.append(connection, told)
        connection.execute(
            update(attestation_key)
            .where(attestation_key.c.attester_id == old, attestation_key.c.retired_at.is_(None))
            .values(retired_at=self.at)
        )
        self._inherit(connection, str(old), attester_id)
        audit_log.append(
            connection,
            AuditEntry(
                tenant=record.tenant,
                at=values.moment(self.at),
                actor=self.actor,
                action="identity.replaced",
                subject=str(old),
                reason=self.reason,
                detail={"replaced_by": attester_id, "enrollment": record.id},
            ),
        )

    @staticmethod
    def _inherit(connection: Connection, old: str, new: str) -> None:
        """Labels and policy, where the new attester has none of its own."""
        labels, policy_id = connection.execute(
            select(attester.c.labels, attester.c.policy_id).where(attester.c.id == old)
        ).one()
        fresh = (attester.c.id == new, attester.c.labels == "{}", attester.c.policy_id.is_(None))
        taken = update(attester).where(*fresh).values(labels=labels, policy_id=policy_id)
        if changed(connection, taken):
            columns = [attester_label.c.key, attester_label.c.value, attester_label.c.tenant]
            rows = select(literal(new), *columns).where(attester_label.c.attester_id == old)
            connection.execute(
                insert(attester_label).from_select(["attester_id", "key", "value", "tenant"], rows)
            )
