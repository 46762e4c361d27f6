"""Webhooks and deliveries as rows."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, select

from verifier.ports_events import (
    Claimed,
    DeliveryRecord,
    DeliveryStatus,
    EventFilter,
    EventKind,
    WebhookRecord,
)
from verifier.reasons import Tier
from verifier.store import event_log, values
from verifier.store.rows import Row, Values
from verifier.store.schema_events import delivery, event, webhook

WEBHOOK: Final = (
    webhook.c.id, webhook.c.tenant, webhook.c.url, webhook.c.description, webhook.c.wants, webhook.c.created_at,
    webhook.c.created_by,
)  # fmt: skip
"""What `webhook_record` reads."""
_DELIVERY: Final = (
    delivery.c.id, delivery.c.webhook_id, webhook.c.tenant, delivery.c.position, event.c.kind, delivery.c.status,
    delivery.c.attempts, delivery.c.created_at, delivery.c.due_at, delivery.c.finished_at, delivery.c.http_status,
    delivery.c.problem,
)  # fmt: skip
_JOINED: Final = delivery.join(webhook, webhook.c.id == delivery.c.webhook_id).join(
    event, event.c.position == delivery.c.position
)


def deliveries() -> Select[*tuple[Any, ...]]:
    """Every delivery; see `delivery_record`."""
    return select(*_DELIVERY).select_from(_JOINED)


def claimed() -> Select[*tuple[Any, ...]]:
    """Every delivery with its webhook and event; see `claimed_record`."""
    return select(*_DELIVERY, *WEBHOOK, *event_log.COLUMNS).select_from(_JOINED)


def webhook_values(record: WebhookRecord) -> Values:
    """Columns of a webhook."""
    wants = record.wants
    stored = {
        "kinds": sorted(kind.value for kind in wants.kinds),
        "label": None if wants.label is None else list(wants.label),
        "attester": wants.attester_id,
        "tier": None if wants.tier is None else wants.tier.value,
    }
    return {
        "id": record.id,
        "tenant": record.tenant,
        "url": record.url,
        "description": values.plain_text(record.description),
        "wants": values.json_text(stored),
        "created_at": values.micros(record.created_at),
        "created_by": record.created_by,
    }


def webhook_record(row: Row) -> WebhookRecord:
    """From `WEBHOOK`."""
    key, tenant, url, description, wants, created_at, created_by = row
    return WebhookRecord(
        id=key,
        tenant=tenant,
        url=url,
        description=description,
        wants=_filter(wants),
        created_at=values.moment(created_at),
        created_by=created_by,
    )


def _filter(stored: str) -> EventFilter:
    found = values.read_object(stored)
    try:
        label, tier = found["label"], found["tier"]
        return EventFilter(
            kinds=frozenset(map(EventKind, found["kinds"])),
            label=None if label is None else (label[0], label[1]),
            attester_id=found["attester"],
            tier=None if tier is None else Tier(tier),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise values.damaged("filter of a webhook", error) from error


def delivery_record(row: Row) -> DeliveryRecord:
    """From `deliveries`."""
    key, hook, tenant, position, kind, status, attempts, created, due, finished, http_status, problem = row
    try:
        known, stands = EventKind(kind), DeliveryStatus(status)
    except ValueError as error:
        raise values.damaged("delivery", error) from error
    return DeliveryRecord(
        id=key,
        webhook_id=hook,
        tenant=tenant,
        position=position,
        kind=known,
        status=stands,
        attempts=attempts,
        created_at=values.moment(created),
        due_at=values.moment(due),
        finished_at=values.moment_or_none(finished),
        http_status=http_status,
        problem=problem,
    )


def claimed_record(row: Row) -> Claimed:
    """From `claimed`."""
    first, second = len(_DELIVERY), len(_DELIVERY) + len(WEBHOOK)
    return Claimed(
        delivery=delivery_record(row[:first]),
        webhook=webhook_record(row[first:second]),
        event=event_log.record(row[second:]),
    )
