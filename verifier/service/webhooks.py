"""Webhooks as operators set them up. Each signs with a secret of its own, which is shown once and stored nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.errors import EvidenceError, NotFoundError, RefusedError
from verifier.ports import Clock, Random
from verifier.ports_enrollment import AuditEntry
from verifier.ports_events import (
    DeliveryRecord,
    DeliveryStatus,
    EventFilter,
    Outbox,
    WebhookRecord,
    WebhookSender,
)
from verifier.reasons import Reason
from verifier.service.cloud_events import secret_text
from verifier.service.ids import new_id
from verifier.service.recorder import Recorder

MAX_WEBHOOKS: Final = 32
"""Of one tenant: every event is compared with all of them."""
SecretOf = Callable[[str], bytes]
"""The signing secret of the webhook with this id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCommand:
    """What an operator asks for."""

    url: str
    description: str
    wants: EventFilter


class WebhookService:
    """Make, list and remove webhooks; look after what did not arrive. Always within one tenant."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        recorder: Recorder,
        clock: Clock,
        random: Random,
        sender: WebhookSender,
        secret_of: SecretOf,
    ) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._clock = clock
        self._random = random
        self._sender = sender
        self._secret_of = secret_of

    async def list(self, tenant: str) -> tuple[WebhookRecord, ...]:
        """By id."""
        return await self._outbox.webhooks(tenant)

    async def get(self, tenant: str, webhook_id: str) -> WebhookRecord:
        """One; raises `NotFoundError`."""
        found = {one.id: one for one in await self.list(tenant)}.get(webhook_id)
        if found is None:
            raise NotFoundError("webhook", webhook_id)
        return found

    async def add(self, tenant: str, command: WebhookCommand, actor: str) -> tuple[WebhookRecord, str]:
        """Make one; gives its secret (`whsec_…`), which nobody can ask for again.

        Raises:
            EvidenceError: `malformed-request`: the URL cannot be used, or is not allowed.
            RefusedError: `conflict`: there are too many.
        """
        refused = self._sender.refused(command.url)
        if refused is not None:
            raise EvidenceError(Reason.MALFORMED_REQUEST, refused, structure="url")
        record = WebhookRecord(
            id=new_id("whk", self._random),
            tenant=tenant,
            url=command.url,
            description=command.description,
            wants=command.wants,
            created_at=self._clock.now(),
            created_by=actor,
        )
        audit = self._audit(tenant, "webhook.added", record.id, actor, {"url": record.url})
        if not await self._recorder.webhook_added(record, audit, at_most=MAX_WEBHOOKS):
            raise RefusedError(
                Reason.CONFLICT, f"there are {MAX_WEBHOOKS} webhooks already; remove one first"
            )
        return record, secret_text(self._secret_of(record.id))

    async def remove(self, tenant: str, webhook_id: str, actor: str) -> None:
        """Forget it, and what was on its way; raises `NotFoundError`."""
        audit = self._audit(tenant, "webhook.removed", webhook_id, actor, {})
        if not await self._recorder.webhook_removed(tenant, webhook_id, audit):
            raise NotFoundError("webhook", webhook_id)

    async def deliveries(
        self, tenant: str, webhook_id: str, status: DeliveryStatus | None, before: int | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """What was or is to be sent, newest first; raises `NotFoundError`."""
        await self.get(tenant, webhook_id)
        return await self._outbox.deliveries(tenant, webhook_id, status, before=before, limit=limit)

    async def redeliver(
        self, tenant: str, webhook_id: str, deliveries: Sequence[int] | None, actor: str
    ) -> int:
        """Try dead deliveries again: these, or all. How many are; raises `NotFoundError`."""
        await self.get(tenant, webhook_id)
        named: object = "all" if deliveries is None else sorted(deliveries)
        audit = self._audit(tenant, "webhook.redelivered", webhook_id, actor, {"deliveries": named})
        return await self._recorder.redelivered(tenant, webhook_id, deliveries, audit)

    def _audit(
        self, tenant: str, action: str, subject: str, actor: str, detail: Mapping[str, object]
    ) -> AuditEntry:
        return AuditEntry(
            tenant=tenant,
            at=self._clock.now(),
            actor=actor,
            action=action,
            subject=subject,
            reason="",
            detail=detail,
        )
