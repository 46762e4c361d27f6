"""A log's tree as tiles: C2SP tlog-tiles (c2sp.org/tlog-tiles), 256 hashes each.

A tile of level L holds the hashes of level 8 L of the tree, so that everything between is computed from one tile.
Only the last tile of a level may hold fewer. Whoever keeps the tiles keeps the tree; nothing else is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.transparency.errors import ProofError, TileError
from verifier.transparency.merkle import EMPTY_ROOT, HASH, MAX_SIZE, fold, node_hash

TILE: Final = 256
TILE_BYTES: Final = TILE * HASH
HEIGHT: Final = 8
MAX_LEVEL: Final = 63 // HEIGHT

TileReader = Callable[[int, int], bytes]
"""Hashes of the tile with this level and number: as many as there are, concatenated. Raises `TileError` where there
is none. More than were asked for do no harm: the hashes of a tile never change."""

_PATH: Final = re.compile(r"tile/(0|[1-9]\d?)/((?:x\d{3}/){0,6}\d{3})(?:\.p/([1-9]\d{0,2}))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, whole or the last of its level."""

    level: int
    number: int
    hashes: bytes

    @property
    def width(self) -> int:
        """Hashes in it."""
        return len(self.hashes) // HASH


@dataclass(frozen=True, slots=True)
class Grown:
    """A log with new leaves: the tiles that are new or longer than they were, lowest level first."""

    size: int
    root: bytes
    tiles: tuple[Tile, ...]


def append(size: int, leaves: bytes | Sequence[bytes], read: TileReader) -> Grown:
    """Add hashes of leaves, concatenated or one by one, to a log of `size` leaves.

    Raises:
        TileError: a tile at the right edge is missing or too short; there are hashes of another length.
    """
    hashes = leaves if isinstance(leaves, bytes) else b"".join(leaves)
    if len(hashes) % HASH:
        raise TileError(f"{len(hashes)} bytes are not hashes of {HASH} bytes each")
    grown = size + len(hashes) // HASH
    changed: dict[tuple[int, int], bytes] = {}
    level, held = 0, size
    while hashes:
        longer = _extended(level, held, hashes, read)
        changed.update(((each.level, each.number), each.hashes) for each in longer)
        hashes = b"".join([fold(each.hashes) for each in longer if each.width == TILE])
        level, held = level + 1, held >> HEIGHT

    def reading(level: int, number: int) -> bytes:
        found = changed.get((level, number))
        return read(level, number) if found is None else found

    tiles = tuple(Tile(*key, hashes) for key, hashes in changed.items())
    return Grown(grown, root(grown, reading), tiles)


def _extended(level: int, held: int, hashes: bytes, read: TileReader) -> list[Tile]:
    """The tiles of a level that has `held` hashes and gets more."""
    number, width = held >> HEIGHT, held % TILE
    if width:
        hashes = _tile(level, number, width, read)[: width * HASH] + hashes
    parts = [hashes[at : at + TILE_BYTES] for at in range(0, len(hashes), TILE_BYTES)]
    return [Tile(level, number + further, part) for further, part in enumerate(parts)]


def root(size: int, read: TileReader) -> bytes:
    """Root over the first `size` leaves.

    Raises:
        TileError: a tile is missing or too short.
    """
    return _range(0, _checked(size), read) if size else EMPTY_ROOT


def inclusion(index: int, size: int, read: TileReader) -> tuple[bytes, ...]:
    """Proof that the leaf at `index` is in the tree of `size` leaves; from the leaf upward.

    Raises:
        ProofError: there is no such index.
        TileError: a tile is missing or too short.
    """
    if not 0 <= index < _checked(size):
        raise ProofError(f"index {index} is not in a tree of {size} leaves")
    begin, end, siblings = 0, size, list[tuple[int, int]]()
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((begin, middle))
            begin = middle
    once = _once(read)
    return tuple(_range(*sibling, once) for sibling in reversed(siblings))


def consistency(old: int, new: int, read: TileReader) -> tuple[bytes, ...]:
    """Proof that the tree of `new` leaves begins with that of `old` leaves.

    Raises:
        ProofError: it has fewer.
        TileError: a tile is missing or too short.
    """
    if not 0 <= old <= _checked(new):
        raise ProofError(f"a log of {new} leaves is no later state of one of {old}")
    if old in (0, new):
        return ()
    begin, end, parts = 0, new, list[tuple[int, int]]()
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((begin, middle))
            begin = middle
    if begin:  # otherwise the old tree is one subtree of the new one, and its root is known
        parts.append((begin, end))
    once = _once(read)
    return tuple(_range(*part, once) for part in reversed(parts))


def tile_path(level: int, number: int, width: int = TILE) -> str:
    """`tile/0/x001/x234/067`, with `.p/12` behind it where the tile has only 12 hashes."""
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03}")
    return f"tile/{level}/{'/'.join(groups)}" + ("" if width == TILE else f".p/{width}")


def parse_tile_path(path: str) -> tuple[int, int, int]:
    """Level, number and width of a tile's path.

    Raises:
        TileError: no tile's path, or not in its only form.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise TileError(
            f"{path[:80]!r} is no path of a tile: tile/LEVEL/NUMBER[.p/WIDTH], c2sp.org/tlog-tiles"
        )
    level, number = int(found[1]), int(found[2].replace("x", "").replace("/", ""))
    width = TILE if found[3] is None else int(found[3])
    if level > MAX_LEVEL or number > MAX_SIZE or tile_path(level, number, width) != path:
        raise TileError(
            f"{path[:80]!r} names no tile: a level or width out of range, or a number with zeroes ahead"
        )
    return level, number, width


def widths(size: int) -> tuple[tuple[int, int, int], ...]:
    """Level, whole tiles and width of the partial tile behind them (0: none), for each level of a log of `size`."""
    levels: list[tuple[int, int, int]] = []
    while size:
        levels.append((len(levels), size >> HEIGHT, size % TILE))
        size >>= HEIGHT
    return tuple(levels)


def _range(begin: int, end: int, read: TileReader) -> bytes:
    """Root over leaves that begin at a multiple of the largest whole subtree among them, as those of a proof do."""
    parts: list[bytes] = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        parts.append(_subtree(height, begin >> height, read))
        begin += 1 << height
    result = parts.pop()
    while parts:
        result = node_hash(parts.pop(), result)
    return result


def _subtree(height: int, number: int, read: TileReader) -> bytes:
    """Hash of one node over 2**height leaves."""
    level, inside = divmod(height, HEIGHT)
    first = number << inside
    tile, at = first >> HEIGHT, first % TILE
    end = at + (1 << inside)
    return fold(_tile(level, tile, end, read)[at * HASH : end * HASH])


def _tile(level: int, number: int, width: int, read: TileReader) -> bytes:
    found = read(level, number)
    if len(found) < width * HASH:
        raise TileError(
            f"tile {level}/{number} holds {len(found) // HASH} hashes where a log of this size has {width}"
        )
    return found


def _once(read: TileReader) -> TileReader:
    """Read no tile twice."""
    known: dict[tuple[int, int], bytes] = {}

    def reading(level: int, number: int) -> bytes:
        if (level, number) not in known:
            known[level, number] = read(level, number)
        return known[level, number]

    return reading


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _checked(size: int) -> int:
    if not 0 <= size <= MAX_SIZE:
        raise ProofError(f"no log has {size} leaves")
    return size
