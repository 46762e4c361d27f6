"""Partitions of PostgreSQL's table `attestation`: one a week by `judged_at`, made ahead, dropped as a whole.

Each has its own primary key (attester, sequence), so that its index is no larger than that of one table would be.
PostgreSQL lets no such key span partitions; there a sequence is given out once because it is given out under the lock
of the attester's row in `latest`. Two partitions are of no week: `attestation_before`, what was there when the table
was divided, and `attestation_rest`, the default, which holds what no other does: latest verdicts of attesters that have
been silent for longer than history is kept, and whatever a clock that was wrong has dated.

No partition has foreign keys, so that one comes and goes without a lock on any other table (docs/store.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    MetaData,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    tuple_,
)

from verifier.ports_history import HistoryPurge
from verifier.store import values
from verifier.store.backend import changed
from verifier.store.schema import attestation, latest

WEEK: Final = 7 * values.DAY
_MONDAY: Final = 4 * values.DAY
"""1970 began on a Thursday."""
AHEAD: Final = 4
"""Weeks beyond the present one: for so long nobody may be there to make them."""
_LOCK: Final = 0x76747070
"""Key of the advisory lock of whoever makes or drops partitions: "vtpp"."""
_PATIENCE: Final = "SET LOCAL lock_timeout = '500ms'"
"""Whoever comes after us in the queue for a table waits for us too, and with it every attestation."""
_BOUND: Final = re.compile(r"FOR VALUES FROM \('?(-?\w+)'?\) TO \('?(-?\w+)'?\)")
_EXTENT: Final = text(
    "SELECT greatest(reltuples, 0)::bigint, pg_total_relation_size(oid) FROM pg_class WHERE oid = to_regclass(:name)"
)
_TAKEN: Final = "dropped_"
_NAMED_LIKE: Final = text(
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace "
    "AND starts_with(relname, :prefix)"
)
CHUNK: Final = 500
"""Rows deleted in one transaction."""
_COLUMNS: Final = [column.name for column in attestation.c]
_REST: Final = attestation.to_metadata(MetaData(), name="attestation_rest")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition by time. `begins` is None where it has all that came before `ends`."""

    name: str
    begins: int | None
    ends: int


def week_of(at: int) -> int:
    """Monday, 0:00 UTC."""
    return (at - _MONDAY) // WEEK * WEEK + _MONDAY


def locked(connection: Connection) -> bool:
    """Whether this transaction is the one that may change partitions now."""
    return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}).scalar())


def partitions(connection: Connection) -> list[Partition]:
    """Those with bounds, oldest first."""
    found = connection.execute(
        text(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i "
            "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'attestation'::regclass"
        )
    )
    bounded = [_partition(name, bound) for name, bound in found if _BOUND.match(bound)]
    return sorted(bounded, key=lambda one: one.ends)


def _partition(name: str, bound: str) -> Partition:
    found = _BOUND.match(bound)
    assert found is not None  # noqa: S101 - the caller has matched it
    begins = None if found[1] == "MINVALUE" else int(found[1])
    return Partition(name, begins, int(found[2]))


def missing(existing: list[Partition], now: int) -> list[int]:
    """Mondays of the weeks, this one and those ahead, that have no partition."""
    weeks = [week_of(now) + number * WEEK for number in range(AHEAD + 1)]
    return [
        week
        for week in weeks
        if not any((one.begins is None or one.begins < week + WEEK) and week < one.ends for one in existing)
    ]


def make(connection: Connection, week: int) -> bool:
    """Make the partition of a week; False where another replica is at it."""
    if not locked(connection) or week not in missing(partitions(connection), week):
        return False
    connection.exec_driver_sql(_PATIENCE)
    name, end = f"attestation_{values.moment(week):%Y%m%d}", week + WEEK
    connection.exec_driver_sql(
        f"CREATE TABLE {name} (LIKE attestation INCLUDING DEFAULTS, "
        f"CONSTRAINT pk_{name} PRIMARY KEY (attester_id, sequence))"
    )
    connection.exec_driver_sql("LOCK TABLE attestation IN SHARE ROW EXCLUSIVE MODE")
    # What was stored before there was a partition for it.
    mine = delete(_REST).where(_REST.c.judged_at >= week, _REST.c.judged_at < end)
    moved = mine.returning(*_REST.c).cte("moved")
    connection.execute(insert(_named(name)).from_select(_COLUMNS, select(*moved.c)))
    connection.exec_driver_sql(
        f"ALTER TABLE attestation ATTACH PARTITION {name} FOR VALUES FROM ({week}) TO ({end})"
    )
    return True


def take_out(connection: Connection, one: Partition) -> HistoryPurge:
    """Take a partition out of history, but for the latest verdicts in it, which move to the rest; `drop_taken` drops it.

    Not at once: the server would delete its files, which may be many gigabytes, while everybody waits for the table.
    """
    if not locked(connection) or one not in partitions(connection):
        return HistoryPurge()
    connection.exec_driver_sql(_PATIENCE)
    connection.exec_driver_sql("LOCK TABLE attestation IN ACCESS EXCLUSIVE MODE")
    # By the key, for each verdict that stands: never a look through all of the partition.
    for other_plan in ("enable_hashjoin", "enable_mergejoin"):
        connection.exec_driver_sql(f"SET LOCAL {other_plan} = off")
    rows, size = connection.execute(_EXTENT, {"name": one.name}).one()
    connection.exec_driver_sql(f"ALTER TABLE attestation DETACH PARTITION {one.name}")
    old = _named(one.name)
    newest = select(*old.c).join_from(old, latest, _is_latest(old)).where(latest.c.judged_at < one.ends)
    stay = connection.execute(insert(attestation).from_select(_COLUMNS, newest)).rowcount
    connection.exec_driver_sql(f"ALTER TABLE {one.name} RENAME TO {_TAKEN}{one.name}")
    return HistoryPurge(rows=max(rows - stay, 0), partitions=1, size=size)


def taken(connection: Connection) -> list[str]:
    """Names of partitions that were taken out and are still to be dropped."""
    return list(connection.execute(_NAMED_LIKE, {"prefix": _TAKEN}).scalars())


def drop_taken(connection: Connection, name: str) -> None:
    """Drop one; nobody reads it any more."""
    if locked(connection):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")


def begins(connection: Connection) -> int | None:
    """Of the oldest week that has a verdict; of what was there before the table was divided, of the oldest one."""
    for one in partitions(connection):
        table = _named(one.name)
        if connection.execute(select(exists(select(table.c.sequence)))).scalar():
            oldest: int | None = one.begins
            if oldest is None:
                oldest = connection.execute(select(func.min(table.c.judged_at))).scalar()
            return oldest
    return None


def purge_rest(connection: Connection, before: int) -> int:
    """Drop a chunk of what is old and in no week, but for latest verdicts. How many rows went."""
    key = (_REST.c.attester_id, _REST.c.sequence)
    old = (
        select(*key)
        .outerjoin_from(_REST, latest, _is_latest(_REST))
        .where(_REST.c.judged_at < before, latest.c.attester_id.is_(None))
        .limit(CHUNK)
    )
    return changed(connection, delete(_REST).where(tuple_(*key).in_(old)))


def _named(name: str) -> Table:
    return attestation.to_metadata(MetaData(), name=name)


def _is_latest(table: Table) -> ColumnElement[bool]:
    return and_(table.c.attester_id == latest.c.attester_id, table.c.sequence == latest.c.sequence)
