"""The transparency log in the database: leaves that wait, the tree as tiles, what was signed.

Batches are written in the transactions of their rows and wait here. Whoever extends the log holds the lock on the one
row of `log_head` until it has committed, so that a checkpoint, once visible, has every leaf below it in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, bindparam, func, select, tuple_, update

from verifier.errors import LogDamagedError, StoredDataDamaged
from verifier.ports_log import (
    Extended,
    Grow,
    Growth,
    LogFigures,
    StoredCheckpoint,
    StoredHead,
    StoredLeaf,
)
from verifier.store import log_batches, log_purge, values
from verifier.store.backend import StorePart
from verifier.store.rows import Row
from verifier.store.schema import attestation, audit, latest
from verifier.store.schema_log import log_batch, log_checkpoint, log_cosignature, log_head, log_tile
from verifier.store.statements import InsertInto
from verifier.transparency.entries import audit_entry, verdict_entry
from verifier.transparency.errors import TileError
from verifier.transparency.merkle import HASH
from verifier.transparency.tiles import TileReader

_BATCHES_AT_ONCE: Final = 500
_LEAVES_AT_ONCE: Final = 4_096
"""In one transaction: hashing that many holds the event loop up for some milliseconds."""
_HEAD_ID: Final = 1
_WAITS: Final = log_batch.c.first_index.is_(None)
_WAITING: Final = (
    select(log_batch.c.id, log_batch.c.leaf_count, log_batch.c.leaves)
    .where(_WAITS)
    .order_by(log_batch.c.id)
    .limit(_BATCHES_AT_ONCE)
)
_OLDEST: Final = select(log_batch.c.id).where(_WAITS).order_by(log_batch.c.id).limit(1)
_NEWEST: Final = select(log_checkpoint).order_by(log_checkpoint.c.size.desc()).limit(1)
_SIGNED_AT: Final = select(log_checkpoint.c.at).order_by(log_checkpoint.c.size.desc()).limit(1)
_LOOK: Final = select(_OLDEST.scalar_subquery(), _SIGNED_AT.scalar_subquery())
_SIZE: Final = select(log_head.c.size).where(log_head.c.id == _HEAD_ID)
_WITNESSED: Final = select(func.max(log_cosignature.c.size))
_FIGURES: Final = select(
    func.coalesce(func.sum(log_batch.c.leaf_count), 0),
    func.min(log_batch.c.id),
    _SIZE.scalar_subquery(),
    _SIGNED_AT.scalar_subquery(),
    select(func.count())
    .select_from(log_cosignature)
    .where(log_cosignature.c.size == _WITNESSED.scalar_subquery())
    .scalar_subquery(),
).where(_WAITS)
_TILE: Final = select(log_tile.c.hashes).where(
    log_tile.c.level == bindparam("level"), log_tile.c.number == bindparam("number")
)


class LogTree(StorePart):
    """`verifier.ports_log.LogStore`."""

    async def extend_log(self, grow: Grow, now: datetime, pause: timedelta) -> Extended:
        """See the port."""
        ((oldest, signed_at),) = await self._backend.rows(_LOOK)
        at = values.micros(now)
        # Also where the clock was set back: what lies ahead does not hold anybody up.
        rests = signed_at is not None and 0 <= at - signed_at < pause // timedelta(microseconds=1)
        if oldest is None or rests:
            return Extended(leaves=0, size=0, more=False)
        insert_into = self._backend.insert
        return await self._backend.write(lambda connection: _extend(connection, insert_into, grow, at))

    async def sign_log(self, grow: Grow, now: datetime) -> bool:
        """See the port."""
        insert_into, at = self._backend.insert, values.micros(now)
        return await self._backend.write(lambda connection: _sign(connection, insert_into, grow, at))

    async def log_figures(self) -> LogFigures:
        """See the port."""
        ((waiting, oldest, size, signed_at, witnesses),) = await self._backend.rows(_FIGURES)
        return LogFigures(
            waiting=int(waiting),
            oldest_waiting=None if oldest is None else values.moment(log_batches.made_at(oldest)),
            size=size or 0,
            checkpoint_at=values.moment_or_none(signed_at),
            witnesses=witnesses,
        )

    async def log_checkpoint(
        self, *, size: int | None = None, cosigned: bool = False
    ) -> StoredCheckpoint | None:
        """See the port."""
        query = _NEWEST
        if size is not None:
            query = query.where(log_checkpoint.c.size == size)
        if cosigned:
            query = query.where(log_checkpoint.c.size.in_(select(log_cosignature.c.size)))
        row = await self._first(query)
        if row is None:
            return None
        found = await self._backend.rows(
            select(log_cosignature.c.witness, log_cosignature.c.line)
            .where(log_cosignature.c.size == row[0])
            .order_by(log_cosignature.c.witness)
        )
        return StoredCheckpoint(
            size=row[0],
            root=row[1],
            at=values.moment(row[2]),
            note=row[3] + "".join(line for _, line in found),
            witnesses=tuple(witness for witness, _ in found),
        )

    async def log_tiles(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """See the port."""
        query = select(log_tile).where(tuple_(log_tile.c.level, log_tile.c.number).in_(wanted))
        return {(level, number): hashes for level, number, hashes in await self._backend.rows(query)}

    async def leaf_of_verdict(self, tenant: str, attester_id: str, sequence: int | None) -> StoredLeaf | None:
        """See the port."""
        newest = select(latest.c.sequence).where(latest.c.attester_id == attester_id).scalar_subquery()
        query = _leaf(attestation).where(
            attestation.c.tenant == tenant,
            attestation.c.attester_id == attester_id,
            attestation.c.sequence == (newest if sequence is None else sequence),
        )
        row = await self._first(query)
        return None if row is None else _stored_leaf(row, verdict_entry(_named(row, attestation)))

    async def leaf_of_audit(self, tenant: str, sequence: int) -> StoredLeaf | None:
        """See the port."""
        row = await self._first(_leaf(audit).where(audit.c.tenant == tenant, audit.c.sequence == sequence))
        return None if row is None else _stored_leaf(row, audit_entry(_named(row, audit)))

    async def add_cosignature(self, size: int, witness: str, line: str, now: datetime) -> None:
        """See the port."""
        new = self._backend.insert(log_cosignature).values(
            size=size, witness=witness, line=line, at=values.micros(now)
        )
        await self._change(
            new.on_conflict_do_update(
                index_elements=["size", "witness"], set_={"line": new.excluded.line, "at": new.excluded.at}
            )
        )

    async def purge_log(self, before: datetime, now: datetime) -> int:
        """See the port."""
        backend, moment = self._backend, values.micros(before)
        await backend.write(partial(log_purge.thin_checkpoints, at=values.micros(now)))
        purge = await backend.write(partial(log_purge.begin, before=moment, partitioned=backend.partitioned))
        gone = 0
        while purge is not None:
            purge, leaves = await backend.write(purge.chunk)
            gone += leaves
        return gone


def _leaf(table: Table) -> Select[*tuple[Any, ...]]:
    """Rows of a table that are leaves, each with the first index of its batch."""
    return (
        select(log_batch.c.id, log_batch.c.first_index, *table.c)
        .select_from(table.outerjoin(log_batch, log_batch.c.id == table.c.log_batch))
        .where(table.c.log_batch.is_not(None))
    )


def _named(row: Row, table: Table) -> dict[str, Any]:
    return dict(zip((column.name for column in table.c), row[2:], strict=True))


def _stored_leaf(row: Row, entry: bytes) -> StoredLeaf:
    batch, first, place = row[0], row[1], row[-1]
    if batch is None:
        raise StoredDataDamaged("a row names a batch of the transparency log that is not there")
    return StoredLeaf(entry=entry, index=None if first is None else first + place)


def _locked_size(connection: Connection, insert_into: InsertInto) -> int:
    """Leaves in the tree; nobody else adds any until the transaction ends."""
    new = insert_into(log_head).values(id=_HEAD_ID, size=0)
    locked = new.on_conflict_do_update(index_elements=["id"], set_={"size": log_head.c.size})
    return int(connection.execute(locked.returning(log_head.c.size)).scalar_one())


def _extend(connection: Connection, insert_into: InsertInto, grow: Grow, at: int) -> Extended:
    size = _locked_size(connection, insert_into)
    # Read only now: what somebody before us has taken is to be seen as taken.
    found = connection.execute(_WAITING).all()
    taken, leaves = _taken(found)
    if not taken:
        return Extended(leaves=0, size=size, more=False)
    growth = _grown(connection, grow, size, leaves)
    if growth is None:
        return Extended(leaves=0, size=size, more=False)
    placed = []
    for batch, count, _ in taken:
        placed.append({"b_id": batch, "b_first": size})
        size += count
    connection.execute(
        update(log_batch)
        .where(log_batch.c.id == bindparam("b_id"))
        .values(first_index=bindparam("b_first"), leaves=None),
        placed,
    )
    _write(connection, insert_into, growth, at)
    more = len(taken) < len(found) or len(found) == _BATCHES_AT_ONCE
    return Extended(leaves=len(leaves) // HASH, size=size, more=more)


def _sign(connection: Connection, insert_into: InsertInto, grow: Grow, at: int) -> bool:
    growth = _grown(connection, grow, _locked_size(connection, insert_into), b"")
    if growth is not None:
        _write(connection, insert_into, growth, at)
    return growth is not None


def _grown(connection: Connection, grow: Grow, size: int, leaves: bytes) -> Growth | None:
    newest = connection.execute(_NEWEST).mappings().first()
    stored = StoredHead(size=size, checkpoint=None if newest is None else newest["note"])
    return grow(stored, leaves, _reader(connection))


def _taken(found: Sequence[Row]) -> tuple[Sequence[Row], bytes]:
    """As many batches as fit one transaction, at least one; and their leaves."""
    parts: list[bytes] = []
    room = _LEAVES_AT_ONCE
    for batch, count, leaves in found:
        if parts and count > room:
            break
        if leaves is None or len(leaves) != count * HASH:
            raise LogDamagedError(f"batch {batch} of leaves that wait does not have the {count} it had")
        parts.append(leaves)
        room -= count
    return found[: len(parts)], b"".join(parts)


def _reader(connection: Connection) -> TileReader:
    def read(level: int, number: int) -> bytes:
        hashes = connection.execute(_TILE, {"level": level, "number": number}).scalar()
        if hashes is None:
            raise TileError(f"tile {level}/{number} of the log is missing")
        return bytes(hashes)

    return read


def _write(connection: Connection, insert_into: InsertInto, growth: Growth, at: int) -> None:
    tile = insert_into(log_tile).values({name: bindparam(name) for name in ("level", "number", "hashes")})
    if growth.tiles:
        connection.execute(
            tile.on_conflict_do_update(
                index_elements=["level", "number"], set_={"hashes": tile.excluded.hashes}
            ),
            [{"level": one.level, "number": one.number, "hashes": one.hashes} for one in growth.tiles],
        )
    signed = insert_into(log_checkpoint).values(
        size=growth.size, root=growth.root, at=at, note=growth.checkpoint
    )
    connection.execute(
        signed.on_conflict_do_update(
            index_elements=["size"], set_={"note": signed.excluded.note, "at": signed.excluded.at}
        )
    )
    connection.execute(update(log_head).where(log_head.c.id == _HEAD_ID).values(size=growth.size))
