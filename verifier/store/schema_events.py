"""The tables of events and webhooks, beside those of `schema`, whose conventions hold here too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, SmallInteger, Table, Text, text

from verifier.store.tables import metadata

# What happened, written in the transaction of the change; its position is given afterwards, in the order of commits.
event: Final = Table(
    "event",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("position", BigInteger),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("attester_id", Text),
    Column("tier", SmallInteger),
    Column("at", BigInteger, nullable=False),
    Column("labels", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_event_position", "position", unique=True),
    Index("ix_event_tenant_position", "tenant", "position"),
    Index("ix_event_at", "at"),
    Index(
        "ix_event_unpublished",
        "sequence",
        sqlite_where=text("position IS NULL"),
        postgresql_where=text("position IS NULL"),
    ),
)

# One row: the last position given out, and the highest that was dropped. Its lock makes publishers take turns.
event_head: Final = Table(
    "event_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
)

webhook: Final = Table(
    "webhook",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("wants", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("ix_webhook_tenant", "tenant", "id"),
)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("webhook_id", Text, ForeignKey("webhook.id", ondelete="CASCADE"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("http_status", Integer),
    Column("problem", Text),
    Index("ix_delivery_webhook_position", "webhook_id", "position", unique=True),
    Index("ix_delivery_position", "position"),
    Index(
        "ix_delivery_due",
        "webhook_id",
        "due_at",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
)
