"""What the database is known to hold already, so that naming it again needs no statement."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping


class _Days:
    """The day of the last mark by digest, of the digests asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._days: OrderedDict[bytes, int] = OrderedDict()

    def __contains__(self, marked: tuple[bytes, int]) -> bool:
        digest, day = marked
        known = self._days.get(digest)
        if known is None or known < day:
            return False
        self._days.move_to_end(digest)
        return True

    def note(self, days: Mapping[bytes, int]) -> None:
        for digest, day in days.items():
            self._days[digest] = max(day, self._days.get(digest, day))
            self._days.move_to_end(digest)
        while len(self._days) > self._most:
            self._days.popitem(last=False)

    def clear(self) -> None:
        self._days.clear()


class Held:
    """Shared blobs and judgements, and the day they were last marked as used on.

    Nothing that is marked with a day is dropped before the next, so whoever names it on that day again may leave it alone.
    Only what is committed may be noted.
    """

    def __init__(self, most: int = 8_192) -> None:
        self._stored, self._marked = _Days(most), _Days(most)

    def stored(self, digest: bytes, day: int) -> bool:
        """It is there, marked with `day` or a later one."""
        return (digest, day) in self._stored

    def marked(self, digest: bytes, day: int) -> bool:
        """If it is there, it is marked so: it was asked for without its content."""
        return (digest, day) in self._stored or (digest, day) in self._marked

    def note(self, stored: Mapping[bytes, int], marked: Mapping[bytes, int]) -> None:
        """Days by digest, as committed."""
        self._stored.note(stored)
        self._marked.note(marked)

    def forget(self) -> None:
        """Something was dropped, or failed: look again."""
        self._stored.clear()
        self._marked.clear()
