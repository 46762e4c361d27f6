"""Messages of events and webhooks."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from verifier.errors import EvidenceError
from verifier.ports_events import DeliveryRecord, EventFilter, EventKind, WebhookRecord
from verifier.reasons import Reason, Tier
from verifier.web.messages import Before, Body, Id, Label, Limit
from verifier.web.wire_codec import rfc3339

_TIERS: Final = {tier.label: tier for tier in Tier}
KindName = Literal[
    "verdict.changed",
    "attester.enrolled",
    "attester.revoked",
    "attester.retired",
    "enrollment.pending",
    "enrollment.approved",
    "enrollment.refused",
    "incident.opened",
    "incident.resolved",
    "policy.added",
    "rejudging.begun",
    "rejudging.ended",
    "expiry.near",
    "expiry.ended",
    "endorsement.lost",
    "secret.released",
    "secret.withheld",
    "log.damaged",
]
TierName = Literal["affirming", "warning", "contraindicated", "none"]
StatusName = Literal["pending", "delivered", "dead"]
Position = Annotated[str, Meta(pattern="^[0-9]{1,18}$")]


class EventsQuery(Body, frozen=True):
    """Which events a stream carries."""

    kind: Annotated[str, Meta(min_length=1, max_length=512, pattern="^[a-z.]+(,[a-z.]+)*$")] | None = None
    """One kind, or several with commas between them."""
    label: Label | None = None
    """`key=value`, as the attester had it when it happened."""
    attester: Id | None = None
    tier: TierName | None = None
    """The new tier: only `verdict.changed` has one."""
    last_event_id: Position | None = None
    """As the header `Last-Event-ID`, which counts where both are there: go on after this event."""
    follow: bool = True
    """False: end with `end`, whose id is where it stands, once all that is stored was sent."""


class NewWebhook(Body, frozen=True, kw_only=True):
    """Where to send events, and which."""

    url: Annotated[str, Meta(min_length=8, max_length=2048)]
    description: Annotated[str, Meta(max_length=256)] = ""
    kinds: Annotated[list[KindName], Meta(max_length=32)] = msgspec.field(default_factory=list)
    """Empty: all."""
    label: Label | None = None
    attester: Id | None = None
    tier: TierName | None = None


class Webhook(NewWebhook, frozen=True, kw_only=True):
    """A webhook, without its secret."""

    id: str
    created_at: str
    created_by: str


class WebhooksReply(Body, frozen=True, kw_only=True):
    """All of the tenant."""

    webhooks: list[Webhook]


class WebhookMade(Body, frozen=True, kw_only=True):
    """A new webhook with the secret its requests are signed with, which is shown here and nowhere else."""

    secret: str
    """`whsec_` and base64, as Standard Webhooks has it."""
    webhook: Webhook


class DeliveriesQuery(Body, frozen=True):
    """Filter and page."""

    status: StatusName | None = None
    before: Before | None = None
    """`before` of the last reply."""
    limit: Limit = 100


class Delivery(Body, frozen=True, kw_only=True):
    """One event on its way to one webhook."""

    id: int
    kind: KindName
    position: int
    """Of the event, the id of its stream."""
    status: StatusName
    attempts: int
    created_at: str
    due_at: str | None = None
    """When a pending one is tried next."""
    finished_at: str | None = None
    http_status: int | None = None
    problem: str | None = None
    """Of the last attempt."""


class DeliveriesReply(Body, frozen=True, kw_only=True):
    """Newest first."""

    deliveries: list[Delivery]
    before: int | None = None
    """Where to go on; absent at the end."""


class Redeliver(Body, frozen=True, kw_only=True):
    """Which dead deliveries to try again."""

    deliveries: Annotated[list[Annotated[int, Meta(ge=1, le=2**62)]], Meta(max_length=500)] | None = None
    """Absent: all of the webhook."""


class Redelivered(Body, frozen=True, kw_only=True):
    """How many are tried again."""

    count: int


def filter_of(
    kinds: list[str] | list[KindName],
    label: str | None,
    attester: str | None,
    tier: TierName | None,
) -> EventFilter:
    """Raises `EvidenceError` (`malformed-request`) for a kind that nobody knows."""
    unknown = sorted(set(kinds) - set(EventKind))
    if unknown:
        known = ", ".join(EventKind)
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, f"{unknown[0]!r} is none of the kinds {known}", structure="kind"
        )
    key, _, value = (label or "").partition("=")
    return EventFilter(
        kinds=frozenset(map(EventKind, kinds)),
        label=None if label is None else (key, value),
        attester_id=attester,
        tier=None if tier is None else _TIERS[tier],
    )


def webhook_message(record: WebhookRecord) -> Webhook:
    """A webhook as the API shows it."""
    wants = record.wants
    return Webhook(
        id=record.id,
        url=record.url,
        description=record.description,
        kinds=[kind.value for kind in EventKind if kind in wants.kinds],
        label=None if wants.label is None else "=".join(wants.label),
        attester=wants.attester_id,
        tier=None if wants.tier is None else _tier_name(wants.tier),
        created_at=rfc3339(record.created_at),
        created_by=record.created_by,
    )


def _tier_name(tier: Tier) -> TierName:
    return msgspec.convert(tier.label, TierName)  # type: ignore[no-any-return]


def delivery_message(record: DeliveryRecord) -> Delivery:
    """A delivery as the API shows it."""
    return Delivery(
        id=record.id,
        kind=record.kind.value,
        position=record.position,
        status=record.status.value,
        attempts=record.attempts,
        created_at=rfc3339(record.created_at),
        due_at=rfc3339(record.due_at) if record.finished_at is None else None,
        finished_at=None if record.finished_at is None else rfc3339(record.finished_at),
        http_status=record.http_status,
        problem=record.problem,
    )
