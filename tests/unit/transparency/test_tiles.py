"""Tiles: a log that is appended to in pieces, of which each proof and root is read again."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.transparency.reference import Reference
from verifier.transparency import merkle, tiles
from verifier.transparency.errors import ProofError, TileError
from verifier.transparency.tiles import TILE, Tile


class Kept:
    """Tiles as a store keeps them."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], Tile] = {}
        self.size = 0
        self.reads: list[tuple[int, int]] = []

    def read(self, level: int, number: int) -> bytes:
        self.reads.append((level, number))
        if (level, number) not in self.tiles:
            raise TileError(f"tile {level}/{number} is missing")
        return self.tiles[level, number].hashes

    def append(self, *leaves: bytes) -> bytes:
        grown = tiles.append(self.size, leaves, self.read)
        assert grown.size == self.size + len(leaves)
        self.size = grown.size
        self.tiles.update(((each.level, each.number), each) for each in grown.tiles)
        return grown.root


def hashes(count: int, first: int = 0) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(8)) for number in range(first, first + count)]


@pytest.mark.parametrize("step", [1, 3, 255, 256, 257, 700])
def test_a_log_is_the_same_however_it_grew(step: int) -> None:
    leaves, kept = hashes(1000), Kept()
    reference = Reference(leaves)
    for at in range(0, len(leaves), step):
        root = kept.append(*leaves[at : at + step])
        if kept.size % 97 < step:
            assert root == reference.root(kept.size)
    assert tiles.root(1000, kept.read) == reference.root(len(leaves))
    stored = {key: tile.width for key, tile in kept.tiles.items()}
    assert stored == {(0, 0): 256, (0, 1): 256, (0, 2): 256, (0, 3): 232, (1, 0): 3}


def test_three_levels() -> None:
    leaves, kept = hashes(TILE * TILE + 300), Kept()
    reference = Reference(leaves)
    root = kept.append(*leaves)
    assert root == reference.root(len(leaves))
    assert {level for level, _ in kept.tiles} == {0, 1, 2}
    assert tiles.widths(kept.size) == ((0, 257, 44), (1, 1, 1), (2, 0, 1))
    for index in (0, TILE * TILE - 1, TILE * TILE, kept.size - 1):
        proof = tiles.inclusion(index, kept.size, kept.read)
        merkle.verify_inclusion(leaves[index], index, kept.size, proof, root)
    for old in (1, 255, 256, 65535, 65536, 65537):
        proof = tiles.consistency(old, kept.size, kept.read)
        merkle.verify_consistency(old, reference.root(old), kept.size, root, proof)


def test_only_tiles_that_grew_are_written_again() -> None:
    kept = Kept()
    kept.append(*hashes(600))
    grown = tiles.append(600, hashes(1, 600), kept.read)
    assert [(each.level, each.number, each.width) for each in grown.tiles] == [(0, 2, 89)]
    grown = tiles.append(600, hashes(168, 600), kept.read)
    assert [(each.level, each.number, each.width) for each in grown.tiles] == [(0, 2, 256), (1, 0, 3)]


def test_a_proof_reads_no_tile_twice() -> None:
    kept = Kept()
    kept.append(*hashes(3000))
    kept.reads.clear()
    tiles.inclusion(1234, 3000, kept.read)
    assert len(kept.reads) == len(set(kept.reads))
    kept.reads.clear()
    tiles.consistency(1235, 3000, kept.read)
    assert len(kept.reads) == len(set(kept.reads))


def test_nothing_appended_is_nothing_written() -> None:
    kept = Kept()
    root = kept.append(*hashes(5))
    grown = tiles.append(5, b"", kept.read)
    assert (grown.size, grown.root, grown.tiles) == (5, root, ())
    assert tiles.append(0, (), kept.read).root == merkle.EMPTY_ROOT


def test_old_states_are_proven_without_the_leaves_they_had() -> None:
    """Full tiles of level 0 may be dropped: what is above them still proves that nothing was changed."""
    kept = Kept()
    early = kept.append(*hashes(768))
    root = kept.append(*hashes(1000, 768))
    for number in range(3):
        del kept.tiles[0, number]
    assert tiles.root(768, kept.read) == early
    merkle.verify_consistency(768, early, 1768, root, tiles.consistency(768, 1768, kept.read))
    with pytest.raises(TileError, match="tile 0/0 is missing"):
        tiles.inclusion(5, 1768, kept.read)


def test_a_tile_that_was_cut_is_named() -> None:
    kept = Kept()
    kept.append(*hashes(300))
    kept.tiles[0, 1] = Tile(0, 1, kept.tiles[0, 1].hashes[:-32])
    with pytest.raises(TileError, match="tile 0/1 holds 43 hashes where a log of this size has 44"):
        tiles.append(300, hashes(1), kept.read)
    with pytest.raises(TileError, match="tile 0/1 holds 43"):
        tiles.root(300, kept.read)
    with pytest.raises(TileError, match="33 bytes are not hashes"):
        tiles.append(300, b"x" * 33, kept.read)


def test_there_are_no_proofs_of_what_is_not_there() -> None:
    kept = Kept()
    kept.append(*hashes(3))
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ProofError):
            tiles.inclusion(index, size, kept.read)
    for old, new in ((4, 3), (-1, 3)):
        with pytest.raises(ProofError):
            tiles.consistency(old, new, kept.read)
    assert tiles.consistency(0, 3, kept.read) == tiles.consistency(3, 3, kept.read) == ()


# From c2sp.org/tlog-tiles: number 1234067 is x001/x234/067.
PATHS = {
    (0, 1234067, 256): "tile/0/x001/x234/067",
    (0, 0, 256): "tile/0/000",
    (1, 5, 12): "tile/1/005.p/12",
    (2, 999, 255): "tile/2/999.p/255",
    (3, 1000, 1): "tile/3/x001/000.p/1",
    (7, 67, 256): "tile/7/067",
}


@pytest.mark.parametrize("tile", PATHS)
def test_paths_of_tiles(tile: tuple[int, int, int]) -> None:
    assert tiles.tile_path(*tile) == PATHS[tile]
    assert tiles.parse_tile_path(PATHS[tile]) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/8/000",
        "tile/0/x000/001",
        "tile/0/001/",
        "tile/0/x1/000",
        "tile/0/000.p/0",
        "tile/0/" + "x001/" * 2000 + "000",  # more digits than Python reads as a number
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/1000",
        "tile/0/000\n",
        "tile/0/\u0661\u0662\u0663",
        "/tile/0/000",
        "tile/entries/000",
        f"tile/0/{'x999/' * 10}999",
    ],
)
def test_a_tile_has_one_path(path: str) -> None:
    with pytest.raises(TileError):
        tiles.parse_tile_path(path)


def test_every_tile_of_a_log_has_its_own_path() -> None:
    numbers = itertools.chain(range(2048), range(999_990, 1_000_010))
    paths = {tiles.tile_path(0, number) for number in numbers}
    assert len(paths) == 2048 + 20
