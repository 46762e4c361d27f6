"""The event log as it is read, and what is on its way to webhooks.

An event is written in the transaction of its change, and its database number is given out before that commits, so a
lower number can become visible after a higher one. Readers therefore go by the position, which is given afterwards:
publishers take turns by the lock on the one row of `event_head` and keep it until they have committed, so that a
position, once visible, has every lower one visible before it. The same transaction files the deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, exists, func, select, text, update

from verifier.ports_events import (
    Attempt,
    Claimed,
    DeliveryRecord,
    DeliveryStatus,
    EventRecord,
    Published,
)
from verifier.store import event_log, values, webhook_rows
from verifier.store.backend import StorePart, changed
from verifier.store.schema_events import delivery, event, event_head, webhook
from verifier.store.statements import InsertInto

_PUBLISHED_AT_ONCE: Final = 500
_PURGE_CHUNK: Final = 2_000
_PROBLEM: Final = 500
_UNPUBLISHED: Final = (
    select(event.c.sequence, *event_log.COLUMNS)
    .where(event.c.position.is_(None))
    .order_by(event.c.sequence)
    .limit(_PUBLISHED_AT_ONCE)
)
_ANY_UNPUBLISHED: Final = select(event.c.sequence).where(event.c.position.is_(None)).limit(1)
_HEAD: Final = select(event_head.c.position, event_head.c.dropped).where(event_head.c.id == 0)
_PENDING: Final = DeliveryStatus.PENDING.value
_IS_PENDING: Final = text("delivery.status = 'pending'")
"""As the partial index has it: neither database would use it for a parameter."""


class OutboxStore(StorePart):
    """`verifier.ports_events.Outbox`."""

    async def publish_events(self, now: datetime) -> Published:
        """Give committed events their positions and file them for webhooks; see the port."""
        if await self._first(_ANY_UNPUBLISHED) is None:
            return Published(events=0, head=(await self.event_bounds())[1])
        insert_into, at = self._backend.insert, values.micros(now)
        done = await self._backend.write(lambda connection: _publish(connection, insert_into, at))
        if done.events:
            self._backend.announcements.published()
        return done

    async def events(self, tenant: str, *, after: int, limit: int) -> tuple[EventRecord, ...]:
        """By position."""
        query = (
            select(*event_log.COLUMNS)
            .where(event.c.tenant == tenant, event.c.position > after)
            .order_by(event.c.position)
            .limit(limit)
        )
        return tuple(map(event_log.record, await self._backend.rows(query)))

    async def event_bounds(self) -> tuple[int, int]:
        """Highest dropped, highest given out; 0 before there was any."""
        row = await self._first(_HEAD)
        return (0, 0) if row is None else (row[1], row[0])

    async def deliveries(
        self, tenant: str, webhook_id: str, status: DeliveryStatus | None, *, before: int | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """Newest first."""
        query = webhook_rows.deliveries().where(webhook.c.tenant == tenant, webhook.c.id == webhook_id)
        if status is not None:
            query = query.where(delivery.c.status == status.value)
        if before is not None:
            query = query.where(delivery.c.id < before)
        found = await self._backend.rows(query.order_by(delivery.c.id.desc()).limit(limit))
        return tuple(map(webhook_rows.delivery_record, found))

    async def claim_deliveries(
        self, now: datetime, lease_until: datetime, *, busy: Mapping[str, int], each: int, limit: int
    ) -> tuple[Claimed, ...]:
        """Take what is due; see the port."""
        due = _due(values.micros(now))
        if await self._first(select(delivery.c.id).where(due).limit(1)) is None:
            return ()
        until, room = values.micros(lease_until), _Room(busy, each, limit)
        taken = await self._backend.write(lambda connection: _claim(connection, due, until, room))
        if not taken:
            return ()
        found = await self._backend.rows(webhook_rows.claimed().where(delivery.c.id.in_(taken)))
        return tuple(map(webhook_rows.claimed_record, found))

    async def finish_delivery(self, delivery_id: int, attempts: int, attempt: Attempt) -> bool:
        """Note how an attempt ended, unless another one has begun since."""
        status = DeliveryStatus.DELIVERED if attempt.delivered else DeliveryStatus.DEAD
        row: dict[str, object] = {
            "http_status": attempt.http_status,
            "problem": None if attempt.problem is None else values.plain_text(attempt.problem[:_PROBLEM]),
        }
        if attempt.retry_at is None:
            row |= {"status": status.value, "finished_at": values.micros(attempt.at)}
        else:
            row |= {"due_at": values.micros(attempt.retry_at)}
        mine = (
            delivery.c.id == delivery_id,
            delivery.c.attempts == attempts,
            delivery.c.status == _PENDING,
        )
        return await self._change(update(delivery).where(*mine).values(row)) == 1

    async def delivery_counts(self) -> Mapping[str, int]:
        """By status."""
        query = select(delivery.c.status, func.count()).group_by(delivery.c.status)
        counts = {status.value: 0 for status in DeliveryStatus}
        return counts | {row[0]: row[1] for row in await self._backend.rows(query)}

    async def purge_events(self, before: datetime) -> int:
        """Drop older events for which no delivery is pending, in short transactions."""
        insert_into, at, gone, last = self._backend.insert, values.micros(before), 0, _PURGE_CHUNK
        while last == _PURGE_CHUNK:
            last = await self._backend.write(lambda connection: _purge(connection, insert_into, at))
            gone += last
        return gone


def _locked_head(connection: Connection, insert_into: InsertInto) -> int:
    """The position given out last; nobody else gives out any until the transaction ends."""
    new = insert_into(event_head).values(id=0, position=0, dropped=0)
    locked = new.on_conflict_do_update(index_elements=["id"], set_={"position": event_head.c.position})
    return int(connection.execute(locked.returning(event_head.c.position)).scalar_one())


def _publish(connection: Connection, insert_into: InsertInto, at: int) -> Published:
    head = _locked_head(connection, insert_into)
    # Read only now: what a publisher before us has taken is to be seen as taken.
    found = connection.execute(_UNPUBLISHED).all()
    if not found:
        return Published(events=0, head=head)
    placed = [(row[0], head + number, row[2:]) for number, row in enumerate(found, 1)]
    connection.execute(
        update(event).where(event.c.sequence == bindparam("b_sequence")).values(position=bindparam("b_at")),
        [{"b_sequence": sequence, "b_at": position} for sequence, position, _ in placed],
    )
    records = [event_log.record((position, *rest)) for _, position, rest in placed]
    filed = _deliveries(connection, records, at)
    if filed:
        new = insert_into(delivery).values({name: bindparam(name) for name in filed[0]})
        connection.execute(
            new.on_conflict_do_nothing(index_elements=["webhook_id", "position"]),
            filed,
        )
    head += len(placed)
    connection.execute(update(event_head).where(event_head.c.id == 0).values(position=head))
    return Published(events=len(placed), head=head)


def _deliveries(connection: Connection, records: Sequence[EventRecord], at: int) -> list[dict[str, object]]:
    tenants = sorted({one.tenant for one in records})
    # Locked against removal only: a delivery must not be filed for a webhook that is just going.
    query = select(*webhook_rows.WEBHOOK).where(webhook.c.tenant.in_(tenants))
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    hooks = [webhook_rows.webhook_record(row) for row in rows]
    return [
        {
            "webhook_id": hook.id,
            "position": one.position,
            "status": _PENDING,
            "attempts": 0,
            "created_at": at,
            "due_at": at,
        }
        for one in records
        for hook in hooks
        if hook.tenant == one.tenant and hook.wants.matches(one)
    ]


def _due(at: int) -> ColumnElement[bool]:
    return and_(_IS_PENDING, delivery.c.due_at <= at)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many deliveries may be taken."""

    busy: Mapping[str, int]
    each: int
    limit: int

    def left(self, hook: str, taken: int) -> int:
        """Of one webhook."""
        return min(self.each - self.busy.get(hook, 0), self.limit - taken)


def _claim(connection: Connection, due: ColumnElement[bool], until: int, room: _Room) -> list[int]:
    taken: list[int] = []
    waiting = select(delivery.c.webhook_id).where(due).distinct().order_by(delivery.c.webhook_id)
    for (hook,) in connection.execute(waiting).all():
        left = room.left(hook, len(taken))
        if left <= 0:
            continue
        mine = (
            select(delivery.c.id)
            .where(due, delivery.c.webhook_id == hook)
            .order_by(delivery.c.due_at, delivery.c.id)
            .limit(left)
            .with_for_update(skip_locked=True)
        )
        taken += connection.execute(mine).scalars().all()
    if taken:
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_(taken))
            .values(due_at=until, attempts=delivery.c.attempts + 1)
        )
    return taken


def _purge(connection: Connection, insert_into: InsertInto, before: int) -> int:
    _locked_head(connection, insert_into)
    waits = exists().where(delivery.c.position == event.c.position, _IS_PENDING)
    old = (
        select(event.c.position)
        .where(event.c.at < before, event.c.position.is_not(None), ~waits)
        .order_by(event.c.position)
        .limit(_PURGE_CHUNK)
    )
    positions = list(connection.execute(old).scalars())
    if not positions:
        return 0
    connection.execute(delete(delivery).where(delivery.c.position.in_(positions)))
    gone = changed(connection, delete(event).where(event.c.position.in_(positions)))
    highest = max(positions)
    connection.execute(
        update(event_head).where(event_head.c.id == 0, event_head.c.dropped < highest).values(dropped=highest)
    )
    return gone
