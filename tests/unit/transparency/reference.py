"""RFC 6962, section 2.1, as it is written there: what the code that works on tiles is held against."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


class Reference:
    """A list of leaf hashes, with each range's root computed once."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, size: int) -> bytes:
        """MTH(D[size])."""
        return self._mth(0, size) if size else sha256(b"").digest()

    def path(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size])."""
        return self._path(index, 0, size)

    def proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[new])."""
        return self._subproof(old, 0, new, whole=True) if 0 < old < new else []

    def _mth(self, begin: int, end: int) -> bytes:
        if end - begin == 1:
            return self.leaves[begin]
        if (begin, end) not in self._known:
            middle = begin + split(end - begin)
            both = self._mth(begin, middle) + self._mth(middle, end)
            self._known[begin, end] = sha256(b"\x01" + both).digest()
        return self._known[begin, end]

    def _path(self, index: int, begin: int, end: int) -> list[bytes]:
        if end - begin == 1:
            return []
        middle = begin + split(end - begin)
        if index < middle:
            return [*self._path(index, begin, middle), self._mth(middle, end)]
        return [*self._path(index, middle, end), self._mth(begin, middle)]

    def _subproof(self, old: int, begin: int, end: int, *, whole: bool) -> list[bytes]:
        if old == end:
            return [] if whole else [self._mth(begin, end)]
        middle = begin + split(end - begin)
        if old <= middle:
            return [*self._subproof(old, begin, middle, whole=whole), self._mth(middle, end)]
        return [*self._subproof(old, middle, end, whole=False), self._mth(begin, middle)]
