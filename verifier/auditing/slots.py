"""Leaf hashes by index, on disk: rows come in any order, tiles in theirs."""

from __future__ import annotations

import mmap
import tempfile
from types import TracebackType
from typing import Final, Self

from verifier.transparency.merkle import HASH

_NONE: Final = bytes(HASH)


class Slots:
    """A temporary file with a hash for each leaf of a log of `size`."""

    def __init__(self, size: int) -> None:
        self.size: Final = size
        self._file = tempfile.TemporaryFile(prefix="attest-audit-")  # noqa: SIM115 - closed with this
        self._file.truncate(max(size * HASH, mmap.PAGESIZE))
        self._map = mmap.mmap(self._file.fileno(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()
        self._file.close()

    def put(self, index: int, leaf: bytes) -> bool:
        """Keep a leaf hash; False where there is one already, or no such index."""
        if not 0 <= index < self.size:
            return False
        at = index * HASH
        if self._map[at : at + HASH] != _NONE:
            return False
        self._map[at : at + HASH] = leaf
        return True

    def get(self, first: int, count: int) -> bytes:
        """The hashes of `count` leaves, zeroes where no row came."""
        return self._map[first * HASH : (first + count) * HASH]

    @staticmethod
    def empty(leaf: bytes) -> bool:
        """Whether no row came."""
        return leaf == _NONE
