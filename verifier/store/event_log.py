"""Events as rows: appended to in the transaction of what they tell of."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, insert, select

from verifier.ports_announcements import Topic
from verifier.ports_enrollment import AuditEntry
from verifier.ports_events import EventKind, EventRecord, NewEvent
from verifier.reasons import Tier
from verifier.store import values
from verifier.store.announcing import note
from verifier.store.rows import Row, Values
from verifier.store.schema import attester
from verifier.store.schema_events import event

COLUMNS: Final = (
    event.c.position, event.c.tenant, event.c.kind, event.c.subject, event.c.attester_id, event.c.tier, event.c.at,
    event.c.labels, event.c.data,
)  # fmt: skip
"""What `record` reads."""
INSERTED: Final = ("tenant", "kind", "subject", "attester_id", "tier", "at", "labels", "data")
_KINDS: Final = frozenset(EventKind)


def append(connection: Connection, new: NewEvent) -> None:
    """Add an event to the caller's transaction, with the labels its attester has now."""
    labels = "{}"
    if new.attester_id is not None:
        of_attester = select(attester.c.labels).where(
            attester.c.tenant == new.tenant, attester.c.id == new.attester_id
        )
        labels = connection.execute(of_attester).scalar() or "{}"
    connection.execute(insert(event), row(new, labels=labels))
    note(connection, Topic.EVENTS, "")


def append_audited(connection: Connection, entry: AuditEntry) -> None:
    """Add the event that an entry of the audit log stands for, if it stands for one."""
    if entry.action not in _KINDS:
        return
    known = entry.detail.get("attester")
    if entry.action == EventKind.ENDORSEMENT_LOST:
        known = entry.subject
    new = NewEvent(
        tenant=entry.tenant,
        kind=EventKind(entry.action),
        subject=entry.subject,
        at=entry.at,
        attester_id=known if isinstance(known, str) else None,
        data={**entry.detail, **({"reason": entry.reason} if entry.reason else {})},
    )
    append(connection, new)


def row(new: NewEvent, *, labels: str, tier: int | None = None) -> Values:
    """The columns of `INSERTED`."""
    return {
        "tenant": new.tenant,
        "kind": new.kind.value,
        "subject": new.subject,
        "attester_id": new.attester_id,
        "tier": tier,
        "at": values.micros(new.at),
        "labels": labels,
        "data": values.json_text(new.data),
    }


def record(found: Row) -> EventRecord:
    """From `COLUMNS`."""
    position, tenant, kind, subject, attester_id, tier, at, labels, data = found
    try:
        known, new_tier = EventKind(kind), None if tier is None else Tier(tier)
    except ValueError as error:
        raise values.damaged("event", error) from error
    return EventRecord(
        position=position,
        tenant=tenant,
        kind=known,
        subject=subject,
        attester_id=attester_id,
        tier=new_tier,
        labels=values.read_labels(labels),
        at=values.moment(at),
        data=values.read_object(data),
    )
