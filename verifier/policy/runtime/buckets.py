"""An index over digests in one column: a digest's first word names its bucket, which has about one row."""

from __future__ import annotations

import itertools
import struct
from array import array
from typing import Final

WORD: Final = struct.Struct("=I")
WORD_SIZE: Final = 4
_WORD_BITS: Final = 32
_MAX_BITS: Final = 22


def bucketed(digests: bytes, size: int) -> tuple[array[int], array[int], int]:
    """Rows in the order of their buckets (stable), where each bucket starts, and by how much words are shifted."""
    count = len(digests) // size
    bits = min(max(count - 1, 1).bit_length(), _MAX_BITS)
    shift = _WORD_BITS - bits
    words = memoryview(digests).cast("I")[:: size // WORD_SIZE]
    sizes = array("I", bytes(WORD_SIZE * ((1 << bits) + 1)))
    for word in words:
        sizes[(word >> shift) + 1] += 1
    starts = array("I", itertools.accumulate(sizes))
    del sizes
    order = array("I", bytes(WORD_SIZE * count))
    free = array("I", starts)
    for row, word in enumerate(words):
        bucket = word >> shift
        place = free[bucket]
        order[place] = row
        free[bucket] = place + 1
    return order, starts, shift


class DigestContainer:
    """Digests of one size that can be asked whether they contain one: 36 bytes each for SHA-256.

    For digests that nobody chooses with a purpose (of whole template data): buckets are walked, not searched.
    """

    __slots__ = ("_digests", "_shift", "_size", "_starts")

    def __init__(self, digests: bytes, size: int) -> None:
        order, self._starts, self._shift = bucketed(digests, size)
        self._size = size
        self._digests = b"".join([digests[row * size : row * size + size] for row in order])

    def __len__(self) -> int:
        return len(self._digests) // self._size

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != self._size:
            return False
        bucket = WORD.unpack_from(digest)[0] >> self._shift
        size = self._size
        for at in range(self._starts[bucket] * size, self._starts[bucket + 1] * size, size):
            if self._digests[at : at + size] == digest:
                return True
        return False
