"""Rows that are leaves, hashed again into their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Connection, Select, Table, select, type_coerce
from sqlalchemy.types import NullType

from verifier.auditing.findings import MOST, Findings, Tampering
from verifier.auditing.slots import Slots
from verifier.store.schema import attestation, audit
from verifier.store.schema_log import log_batch
from verifier.transparency.entries import AuditEntry, VerdictEntry, audit_entry, verdict_entry
from verifier.transparency.merkle import HASH, leaf_hash

_CHUNK: Final = 2_000
_UNREADABLE: Final = (AttributeError, TypeError, ValueError, msgspec.MsgspecError)
"""What a column of another type than its own comes to."""
_NO_LEAF: Final = b"\xff" * HASH


@dataclass(frozen=True, slots=True)
class Logged:
    """A table whose rows are leaves."""

    title: str
    table: Table
    columns: tuple[str, ...]
    entry: Callable[[Mapping[str, Any]], bytes]
    key: tuple[str, ...]
    time: str

    def name(self, row: Mapping[str, Any]) -> str:
        """Which row it is, for people."""
        return ", ".join(f"{column} {row[column]}" for column in self.key)


VERDICTS: Final = Logged(
    "attestation",
    attestation,
    VerdictEntry.__struct_fields__,
    verdict_entry,
    ("attester_id", "sequence"),
    "judged_at",
)
DECISIONS: Final = Logged(
    "audit",
    audit,
    ("sequence", *AuditEntry.__struct_fields__),
    audit_entry,
    ("sequence", "action", "subject"),
    "at",
)


@dataclass(slots=True)
class Counted:
    """What became of the rows of a table."""

    rows: int = 0
    waiting: int = 0
    unlogged: int = 0
    displaced: dict[bytes, Tampering] = field(default_factory=dict)
    """Rows that name no place in the log, by the hash that they have; findings, unless a leaf misses them."""


def stored(column: Column[Any]) -> Any:  # noqa: ANN401 - a column of whatever type
    """A column as the driver has it: what was tampered with may not be of the column's type."""
    return type_coerce(column, NullType()).label(column.name)


def streamed(
    connection: Connection, query: Select[Any], step: Callable[[int], object] = lambda _: None
) -> Iterator[Any]:
    """Rows of a query, never all of them at once; `step` is told how many more there were."""
    for part in connection.execute(query, execution_options={"yield_per": _CHUNK}).partitions():
        yield from part
        step(len(part))


def fill(
    connection: Connection,
    logged: Logged,
    slots: Slots,
    findings: Findings,
    *,
    logged_since: int | None,
    step: Callable[[int], object] = lambda _: None,
    see: Callable[[Mapping[str, Any], int | None], object] | None = None,
) -> Counted:
    """Hash each row of a table into its slot; whatever has none that is its own is a finding.

    Args:
        connection: of the snapshot.
        logged: the table.
        slots: of the signed tree.
        findings: where findings go.
        logged_since: from when on a row must have a leaf, in microseconds; None: from the beginning.
        step: told how many rows more were read.
        see: called with each row and its index, None where it is not in the tree.
    """
    columns = (*logged.columns, "log_batch", "log_place")
    query = select(
        *(stored(logged.table.c[name]) for name in columns),
        stored(log_batch.c.leaf_count),
        stored(log_batch.c.first_index),
    ).select_from(logged.table.outerjoin(log_batch, log_batch.c.id == logged.table.c.log_batch))
    counted, waiting = Counted(), _Waiting(connection)
    for values in streamed(connection, query, step):
        row = dict(zip(columns, values, strict=False))
        place, count, first = row["log_place"], values[-2], values[-1]
        counted.rows += 1
        index = None
        problem: str | None
        if row["log_batch"] is None and place is None:
            problem = _unlogged(logged, row, counted, logged_since)
        elif not isinstance(count, int) or not isinstance(place, int) or not 0 <= place < count:
            problem = "names a place in the log that there is not"
        elif isinstance(first, int) and first + place < slots.size:
            index = first + place
            problem = _put(logged, row, index, slots)
        else:
            counted.waiting += 1
            problem = None if isinstance(first, int) else waiting.problem(logged, row)
        if problem is not None:
            _tell(counted, findings, _tampered(logged, row, problem, index), _leaf(logged, row))
        if see is not None:
            see(row, index)
    return counted


def _tell(counted: Counted, findings: Findings, one: Tampering, leaf: bytes | None) -> None:
    if one.index is None and leaf is not None and len(counted.displaced) < MOST:
        counted.displaced[leaf] = one
    else:
        findings.add(one)


def _leaf(logged: Logged, row: Mapping[str, Any]) -> bytes | None:
    """None where a column is not of its type."""
    try:
        return leaf_hash(logged.entry(row))
    except _UNREADABLE:
        return None


def _put(logged: Logged, row: Mapping[str, Any], index: int, slots: Slots) -> str | None:
    leaf = _leaf(logged, row)
    if leaf is None:
        # Something must be in its slot, which nothing hashes to: otherwise it would be missing too.
        slots.put(index, _NO_LEAF)
        return "has a column that is not of its type"
    if slots.put(index, leaf):
        return None
    return f"is said to be leaf {index}, which another row is"


def _unlogged(logged: Logged, row: Mapping[str, Any], counted: Counted, since: int | None) -> str | None:
    at = row[logged.time]
    if since is not None and isinstance(at, int) and at < since:
        counted.unlogged += 1
        return None
    return "is in no log: inserted, or written by a replica of a version from before there was one"


def _tampered(logged: Logged, row: Mapping[str, Any], problem: str, index: int | None) -> Tampering:
    at = row[logged.time]
    return Tampering(logged.title, logged.name(row), problem, index, at if isinstance(at, int) else None)


class _Waiting:
    """Batches that have no index yet, the last one remembered: rows of a batch come one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: tuple[int, bytes] | None = None

    def problem(self, logged: Logged, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row that waits; nobody has signed it yet."""
        batch, place = row["log_batch"], row["log_place"]
        if self._known is None or self._known[0] != batch:
            query = select(log_batch.c.leaves).where(log_batch.c.id == batch)
            self._known = batch, self._connection.execute(query).scalar() or b""
        leaf, hashes = _leaf(logged, row), self._known[1]
        if place >= 0 and hashes[place * HASH : (place + 1) * HASH] == leaf:
            return None
        return "is not what waits for its place in the log"


def rows_at(
    connection: Connection, logged: Logged, places: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Rows by batch and place: their keys and times."""
    table = logged.table
    columns = (*logged.key, logged.time, "log_batch", "log_place")
    wanted = set(places)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    query = select(*(stored(table.c[name]) for name in columns)).where(
        table.c.log_batch.in_({batch for batch, _ in wanted})
    )
    for values in streamed(connection, query):
        row = dict(zip(columns, values, strict=True))
        at = row["log_batch"], row["log_place"]
        if at in wanted:
            found.setdefault(at, row)
    return found
