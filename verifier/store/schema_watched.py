"""The tables of inventories, alarms and samples of the fleet, beside those of `schema`, whose conventions hold here too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, Table, Text, UniqueConstraint

from verifier.store.tables import metadata

# What the inventories said last, to begin with after a restart.
inventory_machine: Final = Table(
    "inventory_machine",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    # JSON of `verifier.appraisal.inventory.InventoryMachine`.
    Column("document", Text, nullable=False),
    Column("kept_at", BigInteger, nullable=False),
)

inventory_source: Final = Table(
    "inventory_source",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("synced_at", BigInteger, nullable=False),
)

# What happened to machines, as their sources told it; each event once, whichever replica read it first.
inventory_event: Final = Table(
    "inventory_event",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    # `source/id`; `origin` is that of the machine this one was copied from.
    Column("machine", Text, nullable=False),
    Column("origin", Text),
    # JSON of `verifier.appraisal.inventory.InventoryEvent`.
    Column("document", Text, nullable=False),
    UniqueConstraint("tenant", "id"),
    Index(None, "tenant", "machine", "sequence"),
    Index(None, "tenant", "origin", "sequence"),
)

alarm: Final = Table(
    "alarm",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("threshold_days", SmallInteger, primary_key=True),
    Column("raised_at", BigInteger, nullable=False),
)

# What the fleet looked like, once a minute: for plots. The counts are JSON.
fleet_sample: Final = Table(
    "fleet_sample",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("counts", Text, nullable=False),
)
