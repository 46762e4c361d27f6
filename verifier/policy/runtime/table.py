"""Digests of one kind in columns: 1,000,000 of them in about 120 MB, found in well under a microsecond."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from verifier.policy.runtime.buckets import WORD, bucketed
from verifier.policy.runtime.entry import DigestKind

_SHORT: Final = 8
"""Places that are looked through one by one; longer buckets (one digest under thousands of paths) are searched."""


class Columns:
    """Growing columns of one kind; rows are appended in the order of (path, digest)."""

    __slots__ = ("digests", "kind", "offsets", "origins", "paths")

    def __init__(self, kind: DigestKind) -> None:
        self.kind = kind
        self.digests = bytearray()
        self.paths = bytearray()
        self.offsets = array("I", [0])
        self.origins = array("I")

    def append(self, path: bytes, digest: bytes, origin: int) -> None:
        """Add a row; `origin` is a number that the set gives a meaning."""
        self.digests += digest
        self.paths += path
        self.offsets.append(len(self.paths))
        self.origins.append(origin)


class DigestTable:
    """Rows of one kind, in the order of (path, digest), with an index by digest.

    The first word of a digest names a bucket of the index: digests are evenly spread, so a bucket has about one row
    and an exact look-up touches it alone. Someone who can choose digests gains nothing by filling one: it is searched
    in logarithmic time.
    """

    __slots__ = (
        "_buckets",
        "_digests",
        "_offsets",
        "_order",
        "_origins",
        "_paths",
        "_shift",
        "_size",
        "find",
        "kind",
    )

    def __init__(self, columns: Columns) -> None:
        self.kind = columns.kind
        self._size = columns.kind.alg.size
        self._digests = bytes(columns.digests)
        self._paths = bytes(columns.paths)
        self._offsets = columns.offsets
        self._origins = columns.origins
        self._index()
        self.find = self._finder()

    def __len__(self) -> int:
        return len(self._origins)

    def _index(self) -> None:
        self._order, self._buckets, self._shift = bucketed(self._digests, self._size)
        order, starts = self._order, self._buckets
        for start, end in itertools.pairwise(starts):
            if end - start > 1:  # rows are in the order of paths already, and sorting is stable
                order[start:end] = array("I", sorted(order[start:end], key=self.digest))

    def digest(self, row: int) -> bytes:
        """The digest of a row."""
        at = row * self._size
        return self._digests[at : at + self._size]

    def path(self, row: int) -> bytes:
        """The path of a row."""
        return self._paths[self._offsets[row] : self._offsets[row + 1]]

    def origin(self, row: int) -> int:
        """What `Columns.append` was given."""
        return self._origins[row]

    def _finder(self) -> Callable[[bytes, bytes], int]:
        """`find(digest, path)`: the row with exactly these, or -1. The digest has the size of the kind's algorithm.

        A closure over locals: this is what every measured file of every attester comes down to.
        """
        buckets, order, size, shift = self._buckets, self._order, self._size, self._shift
        digests, paths, offsets, word = self._digests, self._paths, self._offsets, WORD.unpack_from

        def find(digest: bytes, path: bytes) -> int:
            bucket = word(digest)[0] >> shift
            start = buckets[bucket]
            end = buckets[bucket + 1]
            if end - start > _SHORT:
                return self._search(start, end, digest, path)
            while start < end:
                row: int = order[start]
                at = row * size
                if digests.startswith(digest, at) and paths[offsets[row] : offsets[row + 1]] == path:
                    return row
                start += 1
            return -1

        return find

    def _search(self, start: int, end: int, digest: bytes, path: bytes) -> int:
        order = self._order
        place = bisect_left(
            order, (digest, path), start, end, key=lambda row: (self.digest(row), self.path(row))
        )
        if place < end and self.digest(order[place]) == digest and self.path(order[place]) == path:
            return order[place]
        return -1

    def with_digest(self, digest: bytes) -> Iterator[int]:
        """Rows with this digest, in the order of their paths."""
        bucket = WORD.unpack_from(digest)[0] >> self._shift
        start, end = self._buckets[bucket], self._buckets[bucket + 1]
        place = bisect_left(self._order, digest, start, end, key=self.digest)
        for row in self._order[place:end]:
            if self.digest(row) != digest:
                return
            yield row

    def with_path(self, path: bytes) -> range:
        """Rows with this path."""
        rows = range(len(self))
        start = bisect_left(rows, path, key=self.path)
        end = start
        while end < len(self) and self.path(end) == path:
            end += 1
        return range(start, end)
