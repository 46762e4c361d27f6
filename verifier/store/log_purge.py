"""What of the transparency log goes with the history it is about: batches of verdicts, and hashes of their leaves.

The tree stays: its levels above the leaves are kept for ever, so its root and its growth stay provable. A tile of
leaves goes when each of its leaves is of a verdict that went; of the entries of the audit log none ever goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, or_, select

from verifier.store import log_batches, partitions, values
from verifier.store.schema import attestation
from verifier.store.schema_log import log_batch, log_checkpoint, log_cosignature, log_head, log_tile
from verifier.transparency.tiles import TILE

_CHUNK: Final = 2_000
_HOUR: Final = 3_600_000_000
_MONTH: Final = 30 * values.DAY


def thin_checkpoints(connection: Connection, at: int) -> None:
    """Keep every checkpoint of the last hour, then one an hour, after a month one a day; and as many cosigned ones."""
    for older_than, period in ((_HOUR, _HOUR), (_MONTH, values.DAY)):
        old = log_checkpoint.c.at < at - older_than
        cosigned = log_checkpoint.c.size.in_(select(log_cosignature.c.size))
        kept = [_last_of(period, old), _last_of(period, old & cosigned)]
        newest = select(func.max(log_checkpoint.c.size)).scalar_subquery()
        spare = old & (log_checkpoint.c.size != newest)
        for one in kept:
            spare &= log_checkpoint.c.size.not_in(one)
        connection.execute(delete(log_checkpoint).where(spare))
    orphaned = log_cosignature.c.size.not_in(select(log_checkpoint.c.size))
    connection.execute(delete(log_cosignature).where(orphaned))


def _last_of(period: int, which: ColumnElement[bool]) -> Select[tuple[int]]:
    number = log_checkpoint.c.at.op("/")(period)
    return select(func.max(log_checkpoint.c.size)).where(which).group_by(number)


@dataclass(frozen=True, slots=True)
class Purge:
    """A purge as far as it has come.

    Attributes:
        below: ids of batches that are old enough are lower.
        named: batches of verdicts that stay although they are old: each attester's latest.
        after: ids up to here have been looked at.
    """

    below: int
    named: frozenset[int]
    after: int = 0

    def chunk(self, connection: Connection) -> tuple[Purge | None, int]:
        """Drop some, in the caller's transaction: what is left to be done, and how many leaves went."""
        batch = log_batch.c
        found = connection.execute(
            select(batch.id, batch.first_index, batch.leaf_count)
            .where(batch.id > self.after, batch.id < self.below, batch.lasting.is_(False))
            .where(batch.first_index.is_not(None))
            .order_by(batch.id)
            .limit(_CHUNK)
        ).all()
        gone = [row for row in found if row[0] not in self.named]
        if gone:
            connection.execute(delete(log_batch).where(batch.id.in_([row[0] for row in gone])))
            touched = {tile for _, first, count in gone for tile in _tiles(first, count)}
            _drop_tiles(connection, touched)
        rest = replace(self, after=found[-1][0]) if len(found) == _CHUNK else None
        return rest, sum(row[2] for row in gone)


def begin(connection: Connection, before: int, *, partitioned: bool) -> Purge | None:
    """After the verdicts from before went; None: there is nothing of the log that is old enough."""
    if partitioned:
        # Weeks go as a whole: only what is before all that are left.
        left = partitions.partitions(connection)
        if not left or left[0].begins is None:
            return None
        before = min(before, left[0].begins)
    still = select(attestation.c.log_batch).where(
        attestation.c.judged_at < before, attestation.c.log_batch.is_not(None)
    )
    # A day: a batch is dated by another clock than its verdicts.
    below = log_batches.id_at(max(before - values.DAY, 0))
    return Purge(below, frozenset(connection.execute(still).scalars()))


def _tiles(first: int, count: int) -> range:
    return range(first // TILE, (first + count - 1) // TILE + 1)


def _drop_tiles(connection: Connection, touched: set[int]) -> None:
    """Drop the hashes of leaves in these tiles, as far as nobody can ask for them any more."""
    size = connection.execute(select(func.coalesce(func.max(log_head.c.size), 0))).scalar_one()
    # What was signed may be what somebody kept: the growth from there is proven with the tile it ends in.
    ends = {one // TILE for one in connection.execute(select(log_checkpoint.c.size)).scalars()}
    whole = {tile for tile in touched if tile < size // TILE} - ends
    spare = sorted(whole - _pinned(connection, whole))
    connection.execute(delete(log_tile).where(log_tile.c.level == 0, log_tile.c.number.in_(spare)))


def _pinned(connection: Connection, tiles: Iterable[int]) -> set[int]:
    """Those that have a leaf of a batch that is there."""
    pinned: set[int] = set()
    for begin, end in _runs(sorted(tiles)):
        batch = log_batch.c
        before = select(func.max(batch.first_index)).where(batch.first_index < begin * TILE).scalar_subquery()
        inside = (batch.first_index >= begin * TILE) & (batch.first_index < end * TILE)
        query = select(batch.first_index, batch.leaf_count).where(or_(inside, batch.first_index == before))
        for first, count in connection.execute(query):
            pinned.update(_tiles(first, count))
    return pinned


def _runs(numbers: list[int]) -> Iterable[tuple[int, int]]:
    """Numbers without a gap between them, as ranges."""
    begin = end = None
    for number in numbers:
        if begin is None or number != end:
            if begin is not None and end is not None:
                yield begin, end
            begin = number
        end = number + 1
    if begin is not None and end is not None:
        yield begin, end
