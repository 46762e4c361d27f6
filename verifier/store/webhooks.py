"""Webhooks: where events are sent, as people set it up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from verifier.ports_enrollment import AuditEntry
from verifier.ports_events import DeliveryStatus, WebhookRecord
from verifier.store import values, webhook_rows
from verifier.store.audit_log import append
from verifier.store.backend import StorePart, changed
from verifier.store.schema_events import delivery, webhook


class Webhooks(StorePart):
    """The webhooks of the `Store` port."""

    async def webhooks(self, tenant: str) -> tuple[WebhookRecord, ...]:
        """By id."""
        query = select(*webhook_rows.WEBHOOK).where(webhook.c.tenant == tenant).order_by(webhook.c.id)
        return tuple(map(webhook_rows.webhook_record, await self._backend.rows(query)))

    async def add_webhook(self, record: WebhookRecord, audit: AuditEntry, *, at_most: int) -> bool:
        """Keep it. Those that arrive in the same instant on several replicas may exceed the bound by their number."""
        row = webhook_rows.webhook_values(record)

        def work(connection: Connection) -> bool:
            counted = select(func.count()).select_from(webhook).where(webhook.c.tenant == record.tenant)
            if connection.execute(counted).scalar_one() >= at_most:
                return False
            connection.execute(insert(webhook).values(row))
            append(connection, audit)
            return True

        return await self._backend.write(work)

    async def remove_webhook(self, tenant: str, webhook_id: str, audit: AuditEntry) -> bool:
        """Its deliveries go with it."""
        gone = delete(webhook).where(webhook.c.tenant == tenant, webhook.c.id == webhook_id)

        def work(connection: Connection) -> bool:
            if not changed(connection, gone):
                return False
            append(connection, audit)
            return True

        return await self._backend.write(work)

    async def redeliver(
        self,
        tenant: str,
        webhook_id: str,
        deliveries: Sequence[int] | None,
        now: datetime,
        audit: AuditEntry,
    ) -> int:
        """Dead ones are pending again, from the first attempt on."""
        mine = select(webhook.c.id).where(webhook.c.tenant == tenant, webhook.c.id == webhook_id)
        again = update(delivery).where(
            delivery.c.webhook_id.in_(mine), delivery.c.status == DeliveryStatus.DEAD.value
        )
        if deliveries is not None:
            again = again.where(delivery.c.id.in_(tuple(deliveries)))
        again = again.values(
            status=DeliveryStatus.PENDING.value,
            attempts=0,
            due_at=values.micros(now),
            finished_at=None,
        )

        def work(connection: Connection) -> int:
            count = changed(connection, again)
            if count:
                append(connection, audit)
            return count

        return await self._backend.write(work)
