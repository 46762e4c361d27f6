"""What the service needs of the world to tell others what happened: the event log, webhooks, their deliveries.

A part of `verifier.ports`; the same rules hold. An event is written by the store in the transaction of the change
it tells of, so there is none of what did not happen and none is missing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from verifier.reasons import Tier

if TYPE_CHECKING:
    from verifier.ports_enrollment import AuditEntry


class EventKind(enum.StrEnum):
    """What an event tells of. Append-only: the values are on the wire."""

    VERDICT_CHANGED = "verdict.changed"
    """An attester's tier is another than before, or it has its first verdict."""
    ATTESTER_ENROLLED = "attester.enrolled"
    """An AK was bound without anybody having to decide."""
    ATTESTER_REVOKED = "attester.revoked"
    ATTESTER_RETIRED = "attester.retired"
    """Another attester took its place."""
    ENROLLMENT_PENDING = "enrollment.pending"
    ENROLLMENT_APPROVED = "enrollment.approved"
    ENROLLMENT_REFUSED = "enrollment.refused"
    INCIDENT_OPENED = "incident.opened"
    """A clone or rollback came to light, or a graver one than before."""
    INCIDENT_RESOLVED = "incident.resolved"
    POLICY_ADDED = "policy.added"
    """A policy revision is new, or is current now."""
    REJUDGING_BEGUN = "rejudging.begun"
    """After a change of this policy the fleet is judged again in the background."""
    REJUDGING_ENDED = "rejudging.ended"
    """Everyone was looked at, or it was stopped."""
    EXPIRY_NEAR = "expiry.near"
    EXPIRY_ENDED = "expiry.ended"
    ENDORSEMENT_LOST = "endorsement.lost"
    SECRET_RELEASED = "secret.released"  # noqa: S105 - a kind of event
    """An affirming attester was given a secret."""
    SECRET_WITHHELD = "secret.withheld"  # noqa: S105 - a kind of event
    """An attester that may have a secret is not in the state in which it gets it."""
    LOG_DAMAGED = "log.damaged"
    """The transparency log in the database is not what was signed."""


FOR_RELYING_PARTIES = frozenset(
    {EventKind.VERDICT_CHANGED, EventKind.ATTESTER_ENROLLED, EventKind.ATTESTER_REVOKED, EventKind.ATTESTER_RETIRED}
)  # fmt: skip
"""What a relying party may see: whom to believe, and nothing of how the fleet is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened. `position` orders the events of all tenants and never changes."""

    position: int
    tenant: str
    kind: EventKind
    subject: str
    """Id of what changed."""
    attester_id: str | None
    tier: Tier | None
    """The new one; only of `verdict.changed`."""
    labels: Mapping[str, str]
    """Of the attester, when it happened."""
    at: datetime
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events somebody wants. What an event does not have, a label or a tier, it does not match."""

    kinds: frozenset[EventKind] = frozenset()
    """Empty: all."""
    label: tuple[str, str] | None = None
    attester_id: str | None = None
    tier: Tier | None = None

    def matches(self, event: EventRecord) -> bool:
        """Whether an event is wanted."""
        return (
            (not self.kinds or event.kind in self.kinds)
            and (self.label is None or event.labels.get(self.label[0]) == self.label[1])
            and (self.attester_id is None or event.attester_id == self.attester_id)
            and (self.tier is None or event.tier is self.tier)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """Where events are sent. Its secret is derived from the id and stored nowhere."""

    id: str
    tenant: str
    url: str
    description: str
    wants: EventFilter
    created_at: datetime
    created_by: str


class DeliveryStatus(enum.StrEnum):
    """How far one event has come on its way to one webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up after the last attempt, until somebody asks for it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One event for one webhook."""

    id: int
    webhook_id: str
    tenant: str
    position: int
    """Of the event."""
    kind: EventKind
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    due_at: datetime
    """When it is tried next; of one that is being tried, when another replica may take it over."""
    finished_at: datetime | None = None
    http_status: int | None = None
    """Of the last answer."""
    problem: str | None = None
    """Of the last attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery that nobody else tries until its lease is over."""

    delivery: DeliveryRecord
    webhook: WebhookRecord
    event: EventRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How an attempt ended. `retry_at` None: it is over, delivered or dead."""

    delivered: bool
    at: datetime
    retry_at: datetime | None = None
    http_status: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the event log came to."""

    events: int
    """How many were given their position now."""
    head: int
    """The highest position."""


class WebhookStore(Protocol):
    """The part of `Store` by which people change webhooks."""

    async def add_webhook(self, record: WebhookRecord, audit: AuditEntry, *, at_most: int) -> bool:
        """Keep it, with its audit entry; False where the tenant has `at_most` already."""

    async def remove_webhook(self, tenant: str, webhook_id: str, audit: AuditEntry) -> bool:
        """Forget it with all its deliveries; False where there is none."""

    async def redeliver(
        self,
        tenant: str,
        webhook_id: str,
        deliveries: Sequence[int] | None,
        now: datetime,
        audit: AuditEntry,
    ) -> int:
        """Try these dead deliveries again, from the first attempt on; None: all of them. How many there are."""


class Outbox(Protocol):
    """The event log and what is on its way. Changes nothing but the bookkeeping of what was recorded before."""

    async def publish_events(self, now: datetime) -> Published:
        """Give committed events their positions, in one order for every replica, and file them for the webhooks
        that want them, in the same transaction. Any number of replicas may call it at once."""  # noqa: D205, D209 - one sentence

    async def events(self, tenant: str, *, after: int, limit: int) -> tuple[EventRecord, ...]:
        """In the order of their positions, which have no gap that could be filled later."""

    async def event_bounds(self) -> tuple[int, int]:
        """The highest position of an event that was dropped, and the highest given out, over all tenants."""

    async def webhooks(self, tenant: str) -> tuple[WebhookRecord, ...]:
        """By id."""

    async def deliveries(
        self, tenant: str, webhook_id: str, status: DeliveryStatus | None, *, before: int | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """Newest first; `before` is an exclusive id."""

    async def claim_deliveries(
        self, now: datetime, lease_until: datetime, *, busy: Mapping[str, int], each: int, limit: int
    ) -> tuple[Claimed, ...]:
        """Take deliveries that are due, counting the attempt: of one webhook at most `each`, less those that are `busy`."""

    async def finish_delivery(self, delivery_id: int, attempts: int, attempt: Attempt) -> bool:
        """Note how it ended; False where the lease was over and another attempt has begun."""

    async def delivery_counts(self) -> Mapping[str, int]:
        """Over all tenants, by status."""

    async def purge_events(self, before: datetime) -> int:
        """Drop older events that wait for nobody, and their deliveries. Returns how many events went."""


class WebhookSender(Protocol):
    """Makes one HTTP request to a place that somebody named."""

    def refused(self, url: str) -> str | None:
        """Why this URL is not sent to, as far as it can be told without resolving its name."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST, and what came of it; never raises for what the other side does."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request."""

    status: int | None = None
    """None: there was no answer."""
    problem: str | None = None
    """Why it does not count as delivered; None: it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event as the store writes it: neither position nor labels are known yet."""

    tenant: str
    kind: EventKind
    subject: str
    at: datetime
    attester_id: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
