"""Tables of what the service does by itself, beside those of `schema`, whose conventions hold here too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table, Text

from verifier.store.tables import metadata

# One row: of nonces that expire before, the spent ones were dropped. It never goes back, as a clock may.
nonce_floor: Final = Table(
    "nonce_floor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("dropped_until", BigInteger, nullable=False),
)

# The last time that the fleet was to be judged again in the background after a change of a policy, and how far that is.
rejudging: Final = Table(
    "rejudging",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("policy_id", Text, primary_key=True),
    # Another one each time that it begins anew.
    Column("id", Text, nullable=False),
    Column("everyone", Boolean, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    # Until then a replica is at it, and no other one begins.
    Column("claimed_until", BigInteger, nullable=False),
    # Where to go on; NULL before the first page.
    Column("cursor", Text),
    # JSON: what came of it so far.
    Column("counts", Text, nullable=False),
    Column("problem", Text),
    sqlite_with_rowid=False,
)
