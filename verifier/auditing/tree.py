"""Tiles held against the signed root, and what the rows hash to held against the tiles."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, func, select

from verifier.auditing.findings import MOST, Findings, Tampering
from verifier.auditing.leaves import streamed
from verifier.auditing.slots import Slots
from verifier.auditing.states import tile_reader
from verifier.store.log_batches import id_at, made_at
from verifier.store.schema_log import log_batch, log_tile
from verifier.transparency import tiles
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.errors import TileError
from verifier.transparency.merkle import HASH, MAX_SIZE, fold
from verifier.transparency.tiles import HEIGHT, TILE

_SLACK: Final = 60_000_000
"""Microseconds between a verdict and its transaction, at most: history ends by the time of the one, not the other."""
Uppers = dict[int, bytes]
"""Hashes of the tiles of level 1 by number."""


@dataclass(slots=True)
class Leaves:
    """Indices whose rows are not what was logged.

    Attributes:
        changed: index and the hash that was logged; the first ones.
        missing: index and hash of leaves that no row came for; the first ones.
        rejudged: the same, of verdicts that were judged again: they may go before others of their time; the first ones.
        not_kept: no row came, and none has to be there any more.
        more: further ones that are not listed.
    """

    changed: list[tuple[int, bytes]] = field(default_factory=list)
    missing: list[tuple[int, bytes]] = field(default_factory=list)
    rejudged: list[tuple[int, bytes]] = field(default_factory=list)
    not_kept: int = 0
    more: int = 0


def first_needed(
    connection: Connection, slots: Slots, oldest: tuple[int, int] | None, since: int | None
) -> int:
    """The first index whose row has to be there.

    Args:
        connection: of the snapshot.
        slots: filled with the hashes of all rows.
        oldest: index and time of the oldest verdict that history has.
        since: from when on the auditor says that history is kept; None: as the oldest verdict tells.
    """
    if since is None:
        if oldest is None or not any(Slots.empty(slots.get(index, 1)) for index in range(oldest[0])):
            return 0
        since = oldest[1]
    query = select(func.min(log_batch.c.first_index)).where(log_batch.c.id >= id_at(since + _SLACK))
    found = connection.execute(query).scalar()
    return slots.size if found is None else int(found)


def check_edge(connection: Connection, state: Checkpoint, findings: Findings) -> None:
    """The tiles that lead to the signed root have to be there; whether they do, `states.check_growth` tells."""
    try:
        tiles.root(state.size, tile_reader(connection))
    except TileError as error:
        findings.add(Tampering("log_tile", "the edge of the tree", str(error), state.size - 1))


def check_batches(connection: Connection, size: int, findings: Findings) -> None:
    """No transaction has leaves beyond the signed tree."""
    beyond = log_batch.c.first_index + log_batch.c.leaf_count > size
    query = select(log_batch.c.id, log_batch.c.first_index).where(beyond).order_by(log_batch.c.first_index)
    for batch, first in connection.execute(query.limit(MOST)):
        problem = f"has leaves beyond the {size} that were signed"
        findings.add(Tampering("log_batch", f"id {batch}", problem, first, made_at(batch)))


@dataclass(frozen=True, slots=True)
class Needed:
    """Which leaves have to have their row.

    Attributes:
        first: the first index of history as it is kept.
        rejudged: first indices and ends of the transactions in which verdicts were judged again, in order.
    """

    first: int
    rejudged: tuple[tuple[int, int], ...] = ()

    def missing(self, index: int, logged: bytes, found: Leaves) -> None:
        """Take note that no row came for a leaf."""
        at = bisect_right(self.rejudged, (index, MAX_SIZE)) - 1
        again = at >= 0 and index < self.rejudged[at][1]
        kept = found.rejudged if again else found.missing
        if index < self.first:
            found.not_kept += 1
        elif len(kept) < MOST:
            kept.append((index, logged))
        else:
            found.more += 1


def check_tiles(connection: Connection, slots: Slots, needed: Needed, findings: Findings) -> Leaves:
    """Hold every tile against the one above it, and the rows' hashes against the lowest ones."""
    uppers = _uppers(connection, slots.size, findings)
    found, expected = Leaves(), 0
    for number, hashes in _lowest(connection, slots.size):
        for dropped in range(expected, number):
            _without_tile(dropped, slots, uppers, needed, found, findings)
        _tile(number, hashes, slots, uppers, needed, found, findings)
        expected = number + 1
    for dropped in range(expected, -(-slots.size // TILE)):
        _without_tile(dropped, slots, uppers, needed, found, findings)
    return found


def _lowest(connection: Connection, size: int) -> Iterator[tuple[int, bytes]]:
    query = (
        select(log_tile.c.number, log_tile.c.hashes)
        .where(log_tile.c.level == 0, log_tile.c.number < -(-size // TILE))
        .order_by(log_tile.c.number)
    )
    return streamed(connection, query)


def _uppers(connection: Connection, size: int, findings: Findings) -> Uppers:
    """Tiles of level 1, each level held against the one above; the root holds the last tiles of all."""
    query = select(log_tile.c.level, log_tile.c.number, log_tile.c.hashes).where(log_tile.c.level > 0)
    stored = {(level, number): hashes for level, number, hashes in streamed(connection, query)}
    for level, whole, _ in tiles.widths(size)[1:]:
        for number in range(whole):
            hashes = stored.get((level, number), b"")
            above = stored.get((level + 1, number >> HEIGHT), b"")
            at = number % TILE * HASH
            if len(hashes) != TILE * HASH or fold(hashes) != above[at : at + HASH]:
                first = number << (HEIGHT * (level + 1))
                key, problem = f"tile {level}/{number}", "is not what the tile above it has the hash of"
                findings.add(Tampering("log_tile", key, problem, first))
    return {number: hashes for (level, number), hashes in stored.items() if level == 1}


def _above(number: int, uppers: Uppers) -> bytes:
    at = number % TILE * HASH
    return uppers.get(number >> HEIGHT, b"")[at : at + HASH]


def _tile(
    number: int,
    hashes: bytes,
    slots: Slots,
    uppers: Uppers,
    needed: Needed,
    found: Leaves,
    findings: Findings,
) -> None:
    first = number * TILE
    width = min(TILE, slots.size - first)
    have, hashes = slots.get(first, width), hashes[: width * HASH]
    # What the last tile holds is in the root.
    signed = width < TILE or fold(hashes) == _above(number, uppers)
    if signed and have == hashes:
        return
    key = f"tile 0/{number}, leaves {first} to {first + width - 1}"
    if not signed and fold(have) == _above(number, uppers):
        problem = "is not what was signed; the rows are"
        findings.add(Tampering("log_tile", key, problem, first))
        return
    if not signed:
        problem = "was changed, and its rows with it" if have == hashes else "was changed, as rows were"
        findings.add(Tampering("log_tile", key, problem, first))
    _compare(first, have, hashes, needed, found)


def _compare(first: int, have: bytes, hashes: bytes, needed: Needed, found: Leaves) -> None:
    for at in range(0, len(hashes), HASH):
        row, logged, index = have[at : at + HASH], hashes[at : at + HASH], first + at // HASH
        if row == logged:
            continue
        if Slots.empty(row):
            needed.missing(index, logged, found)
        elif len(found.changed) < MOST:
            found.changed.append((index, logged))
        else:
            found.more += 1


def _without_tile(
    number: int,
    slots: Slots,
    uppers: Uppers,
    needed: Needed,
    found: Leaves,
    findings: Findings,
) -> None:
    """A tile that is gone, as those of a history that is not kept may be: the one above still has its hash."""
    first = number * TILE
    if first + TILE > needed.first:
        findings.add(Tampering("log_tile", f"tile 0/{number}", "is missing", first))
    have = slots.get(first, TILE)
    if fold(have) == _above(number, uppers):
        return
    for at in range(0, len(have), HASH):
        if Slots.empty(have[at : at + HASH]):
            needed.missing(first + at // HASH, b"", found)
