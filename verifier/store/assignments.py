"""Assignments: which policy judges the attesters with these labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, func, select

from verifier.errors import EvidenceError
from verifier.policy.assignment import Assignment, Mode
from verifier.ports_announcements import Topic
from verifier.ports_enrollment import AuditEntry
from verifier.reasons import Reason
from verifier.store import values
from verifier.store.announcing import note
from verifier.store.audit_log import append
from verifier.store.backend import StorePart, changed
from verifier.store.rows import Row
from verifier.store.schema import assignment
from verifier.store.statements import InsertInto

MAX_ASSIGNMENTS: Final = 256
"""Of one tenant: every attestation looks at all of them."""
_COLUMNS: Final = tuple(
    assignment.c[name]
    for name in ("id", "policy_id", "revision", "mode", "priority", "selector", "changed_at")
)


class Assignments(StorePart):
    """The assignment methods of the `Store` port."""

    async def list_assignments(self, tenant: str) -> tuple[Assignment, ...]:
        """All of them, the highest priority first."""
        query = (
            select(*_COLUMNS)
            .where(assignment.c.tenant == tenant)
            .order_by(assignment.c.priority.desc(), assignment.c.id)
        )
        return tuple(_record(row) for row in await self._backend.rows(query))

    async def put_assignment(
        self, tenant: str, record: Assignment, audit: AuditEntry, *, replacing: Sequence[str] = ()
    ) -> None:
        """Add an assignment or change the one with its id; those of `replacing` go in the same transaction.

        Raises:
            EvidenceError: `malformed-request`: there would be too many. Nothing was changed.
        """
        into = self._backend.insert

        def work(connection: Connection) -> None:
            _put(connection, into, tenant, record, replacing)
            append(connection, audit)
            note(connection, Topic.ASSIGNMENTS, tenant)

        await self._backend.write(work)

    async def remove_assignment(self, tenant: str, assignment_id: str, audit: AuditEntry) -> bool:
        """True when there was one."""
        gone = delete(assignment).where(assignment.c.tenant == tenant, assignment.c.id == assignment_id)

        def work(connection: Connection) -> bool:
            if not changed(connection, gone):
                return False
            append(connection, audit)
            note(connection, Topic.ASSIGNMENTS, tenant)
            return True

        return await self._backend.write(work)


def _put(
    connection: Connection, into: InsertInto, tenant: str, record: Assignment, replacing: Sequence[str]
) -> None:
    if replacing:
        changed(
            connection,
            delete(assignment).where(assignment.c.tenant == tenant, assignment.c.id.in_(tuple(replacing))),
        )
    row = {
        "policy_id": record.policy_id,
        "revision": record.revision,
        "mode": record.mode.value,
        "priority": record.priority,
        "selector": values.json_text(dict(sorted(record.selector.items()))),
        "changed_at": values.micros(record.changed_at),
    }
    new = into(assignment).values(tenant=tenant, id=record.id, **row)
    connection.execute(new.on_conflict_do_update(index_elements=["tenant", "id"], set_=row))
    count = connection.execute(
        select(func.count()).select_from(assignment).where(assignment.c.tenant == tenant)
    ).scalar_one()
    if count > MAX_ASSIGNMENTS:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, f"there are {MAX_ASSIGNMENTS} assignments already; remove one first"
        )


def _record(row: Row) -> Assignment:
    key, policy_id, revision, mode, priority, selector, changed_at = row
    try:
        known = Mode(mode)
    except ValueError as error:
        raise values.damaged("assignment", error) from error
    return Assignment(
        id=key,
        policy_id=policy_id,
        revision=revision,
        mode=known,
        priority=priority,
        selector=values.read_labels(selector),
        changed_at=values.moment(changed_at),
    )
