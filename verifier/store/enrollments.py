"""Enrolments: pending until consumed once; what they leave behind is the attester and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from verifier.appraisal.lineage import Lineage, begun_anew
from verifier.ports import AttesterRecord, EnrollmentRecord, Lifecycle
from verifier.store import recording, rows, statements, values
from verifier.store.backend import StorePart
from verifier.store.rows import Row
from verifier.store.schema import (
    attestation_key,
    attester,
    attester_uuid,
    endorsement_key,
    enrollment,
    latest,
    nonce,
)
from verifier.store.statements import InsertInto

_PURGE_CHUNK: Final = 5_000
"""Rows deleted in one transaction: whoever else wants to write waits no longer than that."""


class Enrollments(StorePart):
    """The enrolment methods of the `Store` port, and the purge of what has expired."""

    async def add_enrollment(self, record: EnrollmentRecord) -> None:
        """Keep a pending activation."""
        await self._change(insert(enrollment).values(rows.enrollment_values(record)))

    async def enrollment(self, enrollment_id: str) -> EnrollmentRecord | None:
        """A pending activation, expired or not."""
        row = await self._first(select(*rows.ENROLLMENT_COLUMNS).where(enrollment.c.id == enrollment_id))
        return None if row is None else rows.enrollment_record(row)

    async def complete_enrollment(
        self, enrollment_id: str, attester_id: str, now: datetime
    ) -> AttesterRecord | None:
        """Consume the enrolment and bind its AK; None when it is gone or has expired."""
        completion = _Completion(self._backend.insert, attester_id, values.micros(now))
        row = await self._backend.write(lambda connection: completion.run(connection, enrollment_id))
        return None if row is None else rows.attester_record(row[statements.STATE_ATTESTER])

    async def purge_expired(self, now: datetime) -> int:
        """Drop expired enrolments and nonces, in short transactions."""
        at, gone = values.micros(now), 0
        for table, key in ((enrollment, enrollment.c.id), (nonce, nonce.c.hash)):
            expired = select(key).where(table.c.expires_at < at).limit(_PURGE_CHUNK)
            dropped = _PURGE_CHUNK
            while dropped == _PURGE_CHUNK:
                dropped = await self._change(delete(table).where(key.in_(expired)))
                gone += dropped
        return gone


@dataclass(frozen=True, slots=True)
class _Completion:
    """The one transaction that turns an enrolment into an attester.

    Each step holds under concurrency: whoever deletes the enrolment has it, the attester's row is made or found
    under the unique key of its EK, and what is merged is read under the lock of that row.
    """

    insert: InsertInto
    attester_id: str
    at: int

    def run(self, connection: Connection, enrollment_id: str) -> Row | None:
        """The attester's row as `statements.ATTESTER_STATE` gives it, or None where nothing was consumed."""
        consumed = connection.execute(
            delete(enrollment)
            .where(enrollment.c.id == enrollment_id, enrollment.c.expires_at > self.at)
            .returning(*rows.ENROLLMENT_COLUMNS)
        ).first()
        if consumed is None:
            return None
        record = rows.enrollment_record(consumed)
        self._keep_ek(connection, record)
        bound = self._bind_attester(connection, record)
        self._bind_ak(connection, record, bound)
        return connection.execute(statements.ATTESTER_STATE.one, {"key": bound}).one()

    def _keep_ek(self, connection: Connection, record: EnrollmentRecord) -> None:
        """What was shown for this EK last replaces what was known; a certificate once seen is not forgotten."""
        new = self.insert(endorsement_key).values(
            tenant=record.tenant,
            fingerprint=record.ek_fingerprint,
            public=record.ek_public,
            certificate=record.ek_certificate,
            issuer=values.plain_text(record.ek_issuer),
            profile=values.json_text(record.ek_profile),
            endorsed_by=record.endorsed_by,
            first_seen_at=self.at,
            last_seen_at=self.at,
        )
        seen = new.excluded
        connection.execute(
            new.on_conflict_do_update(
                index_elements=["tenant", "fingerprint"],
                set_={
                    "certificate": func.coalesce(seen.certificate, endorsement_key.c.certificate),
                    "issuer": func.coalesce(seen.issuer, endorsement_key.c.issuer),
                    "profile": seen.profile,
                    "endorsed_by": seen.endorsed_by,
                    "last_seen_at": seen.last_seen_at,
                },
            )
        )

    def _bind_attester(self, connection: Connection, record: EnrollmentRecord) -> str:
        """The id of the attester with this EK: the one it had, or the new one."""
        # `latest` before `attester`, the order in which recordings lock them.
        same_ek = (attester.c.tenant == record.tenant, attester.c.ek_fingerprint == record.ek_fingerprint)
        machine = select(attester.c.id).where(*same_ek).scalar_subquery()
        connection.execute(
            select(latest.c.attester_id)
            .where(latest.c.attester_id == machine)
            .with_for_update(key_share=True)
        )
        new = self.insert(attester).values(
            id=self.attester_id,
            tenant=record.tenant,
            ek_fingerprint=record.ek_fingerprint,
            ak_name=record.ak_name,
            identity="{}",
            smbios_uuids="[]",
            labels="{}",
            enrolled_at=self.at,
            search_text="",
        )
        # An attester that is there already is locked by the update, so that its UUIDs are read as they stay.
        bound, stored = connection.execute(
            new.on_conflict_do_update(
                index_elements=["tenant", "ek_fingerprint"], set_={"ak_name": new.excluded.ak_name}
            ).returning(attester.c.id, attester.c.smbios_uuids)
        ).one()
        uuids, claimed = frozenset(values.read_strings(stored)), record.identity.smbios_uuid
        if claimed is not None and claimed not in uuids and len(uuids) < recording.MAX_UUIDS:
            uuids |= {claimed}
            connection.execute(
                self.insert(attester_uuid)
                .values(recording.uuid_values(bound, record.tenant, claimed))
                .on_conflict_do_nothing(index_elements=["attester_id", "smbios_uuid"])
            )
        connection.execute(
            statements.CHANGE_IDENTITY, recording.identity_values(bound, record.identity, uuids)
        )
        connection.execute(
            self.insert(latest)
            .values(attester_id=bound, tenant=record.tenant, sequence=0, lifecycle=Lifecycle.ENROLLED.value)
            .on_conflict_do_nothing(index_elements=["attester_id"])
        )
        if record.token_id is not None:
            self._begin_anew(connection, bound)
        return str(bound)

    def _begin_anew(self, connection: Connection, attester_id: str) -> None:
        """Somebody with authority let the machine in again: its past is not held against it any more."""
        known = select(latest.c.position, latest.c.lineage).where(latest.c.attester_id == attester_id)
        position, stored = connection.execute(known).one()
        line = begun_anew(values.read_lineage(stored) or Lineage())
        changes = {name.removeprefix("b_"): value for name, value in recording.lineage_values(line).items()}
        connection.execute(
            update(latest).where(latest.c.attester_id == attester_id).values(position=position + 1, **changes)
        )

    def _bind_ak(self, connection: Connection, record: EnrollmentRecord, attester_id: str) -> None:
        """The AK that speaks from now on; those before it stay on record as retired."""
        connection.execute(
            update(attestation_key)
            .where(
                attestation_key.c.attester_id == attester_id,
                attestation_key.c.name != record.ak_name,
                attestation_key.c.retired_at.is_(None),
            )
            .values(retired_at=self.at)
        )
        connection.execute(
            self.insert(attestation_key)
            .values(
                attester_id=attester_id,
                name=record.ak_name,
                tenant=record.tenant,
                public=record.ak_public,
                activated_at=self.at,
            )
            .on_conflict_do_update(
                index_elements=["attester_id", "name"], set_={"activated_at": self.at, "retired_at": None}
            )
        )
