"""Trust anchors: immutable sets by digest, and which of them a tenant trusts under which name."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from verifier.errors import StoredDataDamaged
from verifier.ports_enrollment import AuditEntry
from verifier.ports_trust import AnchorAssignment, AnchorPurpose, AnchorSetRecord
from verifier.store import blobs, values
from verifier.store.audit_log import append
from verifier.store.backend import StorePart, changed
from verifier.store.event_log import append_audited
from verifier.store.schema import anchor_assignment, anchor_set
from verifier.store.schema_watched import alarm


class Anchors(StorePart):
    """The trust anchor methods of the `Store` port."""

    async def assign_anchors(
        self,
        record: AnchorSetRecord,
        assignment: AnchorAssignment,
        audit: AuditEntry,
        *,
        instead_of: bytes | None = None,
    ) -> bool:
        """Keep the set and let the name stand for it; see the port."""
        packed = blobs.pack(record.digest, record.content)
        keep = self._backend.insert(anchor_set).values(
            tenant=record.tenant,
            digest=record.digest,
            codec=packed.codec,
            size=packed.size,
            content=packed.content,
            created_at=values.micros(record.created_at),
        )
        row = {
            "tenant": assignment.tenant,
            "name": assignment.name,
            "digest": assignment.digest,
            "purposes": values.json_text(sorted(purpose.value for purpose in assignment.purposes)),
            "source": values.plain_text(assignment.source),
            "assigned_at": values.micros(assignment.assigned_at),
            "assigned_by": assignment.assigned_by,
        }
        named = self._backend.insert(anchor_assignment).values(row)
        named = named.on_conflict_do_update(index_elements=["tenant", "name"], set_=row)
        moved = (
            update(anchor_assignment)
            .where(
                anchor_assignment.c.tenant == assignment.tenant,
                anchor_assignment.c.name == assignment.name,
                anchor_assignment.c.digest == instead_of,
            )
            .values(row)
        )

        def work(connection: Connection) -> bool:
            connection.execute(keep.on_conflict_do_nothing(index_elements=["tenant", "digest"]))
            if instead_of is None:
                connection.execute(named)
            elif changed(connection, moved) != 1:
                return False
            append(connection, audit)
            return True

        return await self._backend.write(work)

    async def unassign_anchors(
        self, tenant: str, name: str, audit: AuditEntry, *, instead_of: bytes | None = None
    ) -> bool:
        """Forget the name; the set stays, so that what was trusted once can be looked up."""
        forget = delete(anchor_assignment).where(
            anchor_assignment.c.tenant == tenant, anchor_assignment.c.name == name
        )
        if instead_of is not None:
            forget = forget.where(anchor_assignment.c.digest == instead_of)

        def work(connection: Connection) -> bool:
            if not changed(connection, forget):
                return False
            append(connection, audit)
            return True

        return await self._backend.write(work)

    async def raise_alarm(self, key: str, threshold_days: int, audit: AuditEntry) -> bool:
        """One row per alarm; who makes it writes the entry."""
        note = self._backend.insert(alarm).values(
            tenant=audit.tenant, key=key, threshold_days=threshold_days, raised_at=values.micros(audit.at)
        )
        once = note.on_conflict_do_nothing(index_elements=["tenant", "key", "threshold_days"])

        def work(connection: Connection) -> bool:
            if not changed(connection, once):
                return False
            append(connection, audit)
            append_audited(connection, audit)
            return True

        return await self._backend.write(work)

    async def anchor_assignments(self, tenant: str) -> tuple[AnchorAssignment, ...]:
        """By name."""
        query = (
            select(*anchor_assignment.c)
            .where(anchor_assignment.c.tenant == tenant)
            .order_by(anchor_assignment.c.name)
        )
        return tuple(
            AnchorAssignment(
                tenant=owner,
                name=name,
                digest=digest,
                purposes=_purposes(purposes),
                source=source,
                assigned_at=values.moment(assigned_at),
                assigned_by=assigned_by,
            )
            for owner, name, digest, purposes, source, assigned_at, assigned_by in await self._backend.rows(
                query
            )
        )

    async def anchor_set(self, tenant: str, digest: bytes) -> AnchorSetRecord | None:
        """The set, proven to have this digest."""
        row = await self._first(
            select(
                anchor_set.c.codec, anchor_set.c.size, anchor_set.c.content, anchor_set.c.created_at
            ).where(anchor_set.c.tenant == tenant, anchor_set.c.digest == digest)
        )
        if row is None:
            return None
        codec, size, content, created_at = row
        return AnchorSetRecord(
            tenant=tenant,
            digest=digest,
            content=blobs.unpack(blobs.PackedBlob(digest, codec, size, content)),
            created_at=values.moment(created_at),
        )


def _purposes(stored: str) -> frozenset[AnchorPurpose]:
    try:
        return frozenset(map(AnchorPurpose, values.read_strings(stored)))
    except ValueError as error:
        raise StoredDataDamaged(f"a stored anchor purpose does not parse: {error}") from error
