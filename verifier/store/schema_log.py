"""Tables of the transparency log, beside those of `schema`, whose conventions hold here too.

Rows that are leaves name their batch and their place in it; the index of a row's leaf is the batch's first one plus the
place. Indices are given out after the commit, in one order for all replicas: nothing is written per row then.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)

from verifier.store.tables import metadata

_WAITING: Final = text("first_index IS NULL")

# Leaves of one transaction, written in it.
log_batch: Final = Table(
    "log_batch",
    metadata,
    # Made by the writer: microseconds since 1970, then twelve random bits.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf_count", Integer, nullable=False),
    # Their hashes, one after the other; NULL once they are in tiles.
    Column("leaves", LargeBinary),
    # NULL until it is in the tree.
    Column("first_index", BigInteger),
    # Whether it has more than verdicts, which go with their history.
    Column("lasting", Boolean, nullable=False),
    Index("ix_log_batch_first_index", "first_index"),
    Index("ix_log_batch_waiting", "id", sqlite_where=_WAITING, postgresql_where=_WAITING),
)

# Hashes of the tree, 256 a row as in c2sp.org/tlog-tiles; the last row of a level may have fewer.
log_tile: Final = Table(
    "log_tile",
    metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# What was signed. Older ones are thinned out.
log_checkpoint: Final = Table(
    "log_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

# Signature lines of witnesses, each below the checkpoint of its size.
log_cosignature: Final = Table(
    "log_cosignature",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("witness", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
)

# One row: leaves in the tree. Its lock makes sequencers take turns.
log_head: Final = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
)


def place_columns() -> tuple[Column[int], Column[int]]:
    """Where the leaf of a row is; NULL in rows from before there was a log."""
    return Column("log_batch", BigInteger), Column("log_place", Integer)
