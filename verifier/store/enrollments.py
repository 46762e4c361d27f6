"""Enrolments: pending until consumed once; what they leave behind is the attester and its keys."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from verifier.errors import StoredDataDamaged
from verifier.ports import AttesterRecord, EnrollmentRecord, Lifecycle
from verifier.store import recording, rows, statements, values
from verifier.store.backend import StorePart
from verifier.store.schema import (
    attestation_key,
    attester,
    attester_uuid,
    endorsement_key,
    enrollment,
    latest,
    nonce,
)

_PURGE_CHUNK: Final = 5_000
"""Rows deleted in one transaction: whoever else wants to write waits no longer than that."""


class Enrollments(StorePart):
    """The enrolment methods of the `Store` port, and the purge of what has expired."""

    async def add_enrollment(self, record: EnrollmentRecord) -> None:
        """Keep a pending activation."""
        async with self._backend.write() as connection:
            await connection.execute(insert(enrollment).values(rows.enrollment_values(record)))

    async def enrollment(self, enrollment_id: str) -> EnrollmentRecord | None:
        """A pending activation, expired or not."""
        row = await self._first(select(*rows.ENROLLMENT_COLUMNS).where(enrollment.c.id == enrollment_id))
        return None if row is None else rows.enrollment_record(row)

    async def complete_enrollment(
        self, enrollment_id: str, attester_id: str, now: datetime
    ) -> AttesterRecord | None:
        """Consume the enrolment and bind its AK; None when it is gone or has expired."""
        async with self._backend.write() as connection:
            consumed = (
                await connection.execute(
                    delete(enrollment)
                    .where(enrollment.c.id == enrollment_id, enrollment.c.expires_at > values.micros(now))
                    .returning(*rows.ENROLLMENT_COLUMNS)
                )
            ).first()
            if consumed is None:
                return None
            record = rows.enrollment_record(consumed)
            await self._keep_ek(connection, record, now)
            bound = await self._bind_attester(connection, record, attester_id, now)
            await self._bind_ak(connection, record, bound, now)
            row = (await connection.execute(statements.ATTESTER_STATE, {"attester_id": bound})).first()
        if row is None:
            raise StoredDataDamaged(f"attester {bound} lacks its keys or its fleet row")
        return rows.attester_record(row[statements.STATE_ATTESTER])

    async def purge_expired(self, now: datetime) -> int:
        """Drop expired enrolments and nonces, in short transactions."""
        at, gone = values.micros(now), 0
        for table, key in ((enrollment, enrollment.c.id), (nonce, nonce.c.hash)):
            expired = select(key).where(table.c.expires_at < at).limit(_PURGE_CHUNK)
            while True:
                async with self._backend.write() as connection:
                    result = await connection.execute(delete(table).where(key.in_(expired)))
                gone += result.rowcount
                if result.rowcount < _PURGE_CHUNK:
                    break
        return gone

    async def _keep_ek(self, connection: AsyncConnection, record: EnrollmentRecord, now: datetime) -> None:
        """What was shown for this EK last replaces what was known; a certificate once seen is not forgotten."""
        new = self._backend.insert(endorsement_key).values(
            tenant=record.tenant,
            fingerprint=record.ek_fingerprint,
            public=record.ek_public,
            certificate=record.ek_certificate,
            issuer=values.plain_text(record.ek_issuer),
            profile=values.json_text(record.ek_profile),
            endorsed_by=record.endorsed_by,
            first_seen_at=values.micros(now),
            last_seen_at=values.micros(now),
        )
        seen = new.excluded
        await connection.execute(
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

    async def _bind_attester(
        self, connection: AsyncConnection, record: EnrollmentRecord, attester_id: str, now: datetime
    ) -> str:
        """The id of the attester with this EK: the one it had, or `attester_id`."""
        same_ek = and_(attester.c.tenant == record.tenant, attester.c.ek_fingerprint == record.ek_fingerprint)
        await connection.execute(
            self._backend.insert(attester)
            .values(
                id=attester_id,
                tenant=record.tenant,
                ek_fingerprint=record.ek_fingerprint,
                ak_name=record.ak_name,
                identity="{}",
                smbios_uuids="[]",
                labels="{}",
                enrolled_at=values.micros(now),
                search_text="",
            )
            .on_conflict_do_nothing(index_elements=["tenant", "ek_fingerprint"])
        )
        found = await connection.execute(
            select(attester.c.id, attester.c.smbios_uuids).where(same_ek).with_for_update()
        )
        bound, stored = found.one()
        uuids, claimed = frozenset(values.read_strings(stored)), record.identity.smbios_uuid
        if claimed is not None and claimed not in uuids and len(uuids) < recording.MAX_UUIDS:
            uuids |= {claimed}
            await connection.execute(
                self._backend.insert(attester_uuid)
                .values(recording.uuid_values(bound, record.tenant, claimed))
                .on_conflict_do_nothing(index_elements=["attester_id", "smbios_uuid"])
            )
        await connection.execute(update(attester).where(same_ek).values(ak_name=record.ak_name))
        await connection.execute(
            statements.CHANGE_IDENTITY, recording.identity_values(bound, record.identity, uuids)
        )
        await connection.execute(
            self._backend.insert(latest)
            .values(attester_id=bound, tenant=record.tenant, sequence=0, lifecycle=Lifecycle.ENROLLED.value)
            .on_conflict_do_nothing(index_elements=["attester_id"])
        )
        return str(bound)

    async def _bind_ak(
        self, connection: AsyncConnection, record: EnrollmentRecord, attester_id: str, now: datetime
    ) -> None:
        """The AK that speaks from now on; those before it stay on record as retired."""
        at = values.micros(now)
        await connection.execute(
            update(attestation_key)
            .where(
                attestation_key.c.attester_id == attester_id,
                attestation_key.c.name != record.ak_name,
                attestation_key.c.retired_at.is_(None),
            )
            .values(retired_at=at)
        )
        key = self._backend.insert(attestation_key).values(
            attester_id=attester_id,
            name=record.ak_name,
            tenant=record.tenant,
            public=record.ak_public,
            activated_at=at,
        )
        await connection.execute(
            key.on_conflict_do_update(
                index_elements=["attester_id", "name"], set_={"activated_at": at, "retired_at": None}
            )
        )
