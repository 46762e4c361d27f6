"""Policies: immutable revisions, numbered as they come."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, func, select
from sqlalchemy.exc import IntegrityError

from verifier.errors import StoreUnavailable
from verifier.ports import PolicyRecord
from verifier.ports_announcements import Topic
from verifier.ports_enrollment import AuditEntry
from verifier.ports_events import EventKind, NewEvent
from verifier.store import audit_log, event_log, rows, statements
from verifier.store.announcing import note
from verifier.store.backend import StorePart
from verifier.store.schema import policy
from verifier.store.statements import Insert

_ATTEMPTS: Final = 24
_PAUSE: Final = 0.004
"""Seconds; grows with every attempt, so that sides that met do not meet again."""


class Policies(StorePart):
    """The policy methods of the `Store` port."""

    async def add_policy(
        self, record: PolicyRecord, audit: AuditEntry | None = None, *, current: bool = True
    ) -> None:
        """Keep a revision and make it current: also one that was current before, which is how to go back to it.

        Idempotent: adding the current revision again changes nothing but its source, which may have other
        signatures around the same bytes. A revision keeps the time of its first addition. One that is not to be
        `current` is kept beside the one that is; of a new id, the first always is.
        """
        new = self._made_current(record) if current else self._beside(record)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._backend.write(lambda connection: _add(connection, new, record, audit))
            except IntegrityError:
                # Another replica took the position meanwhile: count again.
                await asyncio.sleep(random.uniform(0, _PAUSE * attempt))  # noqa: S311 - jitter
                continue
            return
        raise StoreUnavailable(f"policy {record.id!r} is being changed from too many sides; try again")

    def _made_current(self, record: PolicyRecord) -> Insert:
        new = self._new(record, func.coalesce(func.max(policy.c.position), 0) + 1)
        return new.on_conflict_do_update(
            index_elements=["tenant", "id", "revision"],
            set_={"position": new.excluded.position, "source": new.excluded.source},
        )

    def _beside(self, record: PolicyRecord) -> Insert:
        new = self._new(record, func.coalesce(func.min(policy.c.position) - 1, 1))
        return new.on_conflict_do_update(
            index_elements=["tenant", "id", "revision"], set_={"source": new.excluded.source}
        )

    def _new(self, record: PolicyRecord, position: ColumnElement[int]) -> Insert:
        of_id = (policy.c.tenant == record.tenant, policy.c.id == record.id)
        values = {**rows.policy_values(record), "position": select(position).where(*of_id).scalar_subquery()}
        return self._backend.insert(policy).values(values)

    async def policy_revision(self, tenant: str, policy_id: str, revision: str) -> PolicyRecord | None:
        """One revision, current or not."""
        query = select(*rows.POLICY_COLUMNS).where(
            policy.c.tenant == tenant, policy.c.id == policy_id, policy.c.revision == revision
        )
        row = await self._first(query)
        return None if row is None else rows.policy_record(row)

    async def policy_revisions(self, tenant: str, policy_id: str) -> tuple[PolicyRecord, ...]:
        """Every revision of an id, the current one first, then the latest."""
        query = (
            select(*rows.POLICY_COLUMNS)
            .where(policy.c.tenant == tenant, policy.c.id == policy_id)
            .order_by(policy.c.position.desc())
        )
        return tuple(rows.policy_record(row) for row in await self._backend.rows(query))

    async def current_policy(self, tenant: str, policy_id: str) -> PolicyRecord | None:
        """The revision added last."""
        row = await self._first(statements.CURRENT_POLICY, {"tenant": tenant, "policy_id": policy_id})
        return None if row is None else rows.policy_record(row)

    async def list_policies(self, tenant: str) -> tuple[PolicyRecord, ...]:
        """The current revision of every policy, by id."""
        newer = policy.alias()
        superseded = exists().where(
            newer.c.tenant == policy.c.tenant, newer.c.id == policy.c.id, newer.c.position > policy.c.position
        )
        query = (
            select(*rows.POLICY_COLUMNS).where(policy.c.tenant == tenant, ~superseded).order_by(policy.c.id)
        )
        return tuple(rows.policy_record(row) for row in await self._backend.rows(query))


def _add(connection: Connection, new: Insert, record: PolicyRecord, audit: AuditEntry | None) -> None:
    """Add it, and say so if it is new, or current now and was not; the audit log has other signatures too."""
    before = _standing(connection, record)
    connection.execute(new)
    standing = source, current = _standing(connection, record)
    if standing == before:
        return
    if audit is not None:
        audit_log.append(connection, replace(audit, detail={**audit.detail, "current": current}))
    if (source is None, current) != (before[0] is None, before[1]):
        told = NewEvent(
            tenant=record.tenant,
            kind=EventKind.POLICY_ADDED,
            subject=record.id,
            at=record.created_at,
            data={"revision": record.revision, "current": current},
        )
        event_log.append(connection, told)
        note(connection, Topic.POLICIES, record.tenant)


def _standing(connection: Connection, record: PolicyRecord) -> tuple[str | None, bool]:
    """The source of the revision, if it is known, and whether it is the current one."""
    mine = (policy.c.tenant == record.tenant, policy.c.id == record.id)
    newest = select(policy.c.revision).where(*mine).order_by(policy.c.position.desc()).limit(1)
    known = select(policy.c.source).where(*mine, policy.c.revision == record.revision)
    return connection.execute(known).scalar(), connection.execute(newest).scalar() == record.revision
