"""How far the fleet is judged again in the background: a row for each policy, which any replica goes on from."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select, update

from verifier.ports_enrollment import AuditEntry
from verifier.ports_rejudge import RejudgingRecord
from verifier.store import audit_log, event_log, values
from verifier.store.backend import StorePart
from verifier.store.rows import Row, Values
from verifier.store.schema_background import rejudging

_COLUMNS: Final = (
    rejudging.c.tenant, rejudging.c.policy_id, rejudging.c.id, rejudging.c.everyone, rejudging.c.actor, rejudging.c.reason,
    rejudging.c.started_at, rejudging.c.finished_at, rejudging.c.cursor, rejudging.c.counts, rejudging.c.problem,
)  # fmt: skip
_KEY: Final = ("tenant", "policy_id")


class BackgroundRejudgings(StorePart):
    """Those parts of `verifier.ports_rejudge` that are about going through the fleet in the background."""

    async def begin_rejudging(self, record: RejudgingRecord, not_before: datetime, audit: AuditEntry) -> None:
        """See `verifier.ports_rejudge`."""
        said = {**_values(record), "claimed_until": values.micros(not_before)}
        statement = (
            self._backend.insert(rejudging)
            .values(said)
            .on_conflict_do_update(
                index_elements=_KEY, set_={name: said[name] for name in said if name not in _KEY}
            )
        )

        def run(connection: Connection) -> None:
            connection.execute(statement)
            _tell(connection, audit)

        await self._backend.write(run)

    async def rejudging(self, tenant: str, policy_id: str) -> RejudgingRecord | None:
        """The last one of this policy."""
        query = select(*_COLUMNS).where(rejudging.c.tenant == tenant, rejudging.c.policy_id == policy_id)
        found = await self._backend.rows(query)
        return _record(found[0]) if found else None

    async def unfinished_rejudgings(self, tenant: str) -> tuple[RejudgingRecord, ...]:
        """Those under way, by policy."""
        query = select(*_COLUMNS).where(rejudging.c.tenant == tenant, rejudging.c.finished_at.is_(None))
        return tuple(map(_record, await self._backend.rows(query.order_by(rejudging.c.policy_id))))

    async def claim_rejudging(self, now: datetime, until: datetime) -> RejudgingRecord | None:
        """See `verifier.ports_rejudge`."""
        at, end = values.micros(now), values.micros(until)
        free = or_(rejudging.c.claimed_until <= at, rejudging.c.claimed_until > 2 * end - at)
        query = (
            select(*_COLUMNS)
            .where(rejudging.c.finished_at.is_(None), free)
            .order_by(rejudging.c.started_at)
            .limit(1)
        )

        # Most of the time there is nothing, and whoever only looks shall not wait for writers.
        if not await self._backend.rows(query):
            return None

        def run(connection: Connection) -> RejudgingRecord | None:
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            record = _record(row)
            connection.execute(update(rejudging).where(_same(record)).values(claimed_until=end))
            return record

        return await self._backend.write(run)

    async def advance_rejudging(
        self, before: RejudgingRecord, after: RejudgingRecord, until: datetime, audit: AuditEntry | None
    ) -> bool:
        """See `verifier.ports_rejudge`."""
        there = rejudging.c.cursor.is_(None) if before.cursor is None else rejudging.c.cursor == before.cursor
        statement = (
            update(rejudging)
            .where(_same(before), rejudging.c.finished_at.is_(None), there)
            .values({**_values(after), "claimed_until": values.micros(until)})
        )

        def run(connection: Connection) -> bool:
            done = connection.execute(statement).rowcount == 1
            if done and audit is not None:
                _tell(connection, audit)
            return done

        return await self._backend.write(run)


def _tell(connection: Connection, audit: AuditEntry) -> None:
    audit_log.append(connection, audit)
    event_log.append_audited(connection, audit)


def _same(record: RejudgingRecord) -> Any:  # noqa: ANN401 - a condition
    return and_(
        rejudging.c.tenant == record.tenant,
        rejudging.c.policy_id == record.policy_id,
        rejudging.c.id == record.id,
    )


def _values(record: RejudgingRecord) -> Values:
    return {
        "tenant": record.tenant,
        "policy_id": record.policy_id,
        "id": record.id,
        "everyone": record.everyone,
        "actor": record.actor,
        "reason": values.plain_text(record.reason) or "",
        "started_at": values.micros(record.started_at),
        "finished_at": None if record.finished_at is None else values.micros(record.finished_at),
        "cursor": record.cursor,
        "counts": values.json_text(dict(record.counts)),
        "problem": values.plain_text(record.problem),
    }


def _record(row: Row) -> RejudgingRecord:
    tenant, policy_id, key, everyone, actor, reason, started, finished, cursor, counts, problem = row
    return RejudgingRecord(
        tenant=tenant,
        policy_id=policy_id,
        id=key,
        everyone=bool(everyone),
        actor=actor,
        reason=reason,
        started_at=values.moment(started),
        finished_at=values.moment_or_none(finished),
        cursor=cursor,
        counts={name: int(count) for name, count in values.read_object(counts).items()},
        problem=problem,
    )
