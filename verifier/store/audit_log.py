"""The audit log: appended to in the transaction of what it tells of, read newest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from verifier.ports_enrollment import AuditEntry
from verifier.ports_observe import request_id
from verifier.store import event_log, log_batches, rows
from verifier.store.backend import StorePart
from verifier.store.schema import audit


def append(connection: Connection, entry: AuditEntry) -> None:
    """Add an entry to the caller's transaction, a leaf of the log, with the id of the request that caused it, where one did."""
    caused_by = request_id()
    if caused_by:
        entry = dataclasses.replace(entry, detail={**entry.detail, "request_id": caused_by})
    row = rows.audit_values(entry)
    log_batches.of(connection).add_audit(row)
    connection.execute(insert(audit), row)


class AuditLog(StorePart):
    """The audit log by itself."""

    async def add_audit(self, entry: AuditEntry) -> None:
        """Append an entry in a transaction of its own, and the event that it stands for."""

        def work(connection: Connection) -> None:
            append(connection, entry)
            event_log.append_audited(connection, entry)

        await self._backend.write(work)

    async def list_audit(
        self, tenant: str, *, subject: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """Newest first; `before` is an exclusive sequence."""
        query = select(*rows.AUDIT_COLUMNS).where(audit.c.tenant == tenant)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        if before is not None:
            query = query.where(audit.c.sequence < before)
        found = await self._backend.rows(query.order_by(audit.c.sequence.desc()).limit(limit))
        return tuple(map(rows.audit_entry, found))
