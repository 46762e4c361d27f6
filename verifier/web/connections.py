"""Connections of clients: how many there are, and how long one may keep us waiting, so that what they take up is bounded.

An idle connection takes some 35 KB, most of it for TLS. A guest that finds its connection closed opens another, which
costs about as much CPU time as an attestation.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

LARGE: Final = 16 * 1024
"""Bytes of a request's body: more than a steady attestation sends, less than one with a boot log. A connection keeps
the buffer that a request went through for as long as it lives, so that of a large one is closed with the answer."""

HEAD_SECONDS: Final = 30.0
"""For a request's head to come, from the connection or its first byte on: whoever says less keeps no connection."""
ANSWER_SECONDS: Final = 60.0
"""For a client to take its answer, and as much more as `SLOWEST` takes for what it holds."""
_SENDING: Final = 256
"""Clients that may have a long answer before them, of which some 0.5 MB may lie here."""
_REST: Final = 2.0
"""Seconds after which a guest that has said nothing more is in no exchange of several requests."""


class Connection(Protocol):
    """One of a client."""

    def force_close(self) -> None:
        """Close it now."""

    def give_up(self, what: str) -> None:
        """Close it now, for what the client has not done in time."""


class Connections:
    """All that are open in this process, those without a request in the order of when they last had one.

    Args:
        most: how many are kept. More are served where all are busy, or were a moment ago; the others make room.
        limit: how many there may be, busy ones among them: nobody comes in beyond that.
        now: seconds that only grow.
    """

    def __init__(self, most: int, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._limit = limit
        self._now = now
        self._open: set[Connection] = set()
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        """Since when."""
        self.silent: dict[Connection, float] = {}
        """Those that have not asked for anything yet, since when."""
        self._steady: set[Connection] = set()
        """Of machines that attest again and again."""
        self._steady_idle: OrderedDict[Connection, float] = OrderedDict()
        """Those of them without a request, since when."""
        self._closing: set[Connection] = set()
        """Open still: a client has some seconds to say goodbye."""
        self._sending: dict[Connection, None] = {}
        """Have a long answer, and have not taken it yet; the first to get one first."""
        self.shed = 0
        """How many were closed to make room."""
        self.slow: Counter[str] = Counter()
        """How many were closed because the client took too long, by what it took too long for: `head`, `answer`."""
        self.when_lost: Callable[[], None] | None = None
        """Called when there is room for another."""

    def __len__(self) -> int:
        return len(self._open)

    def has_room_for(self, more: int) -> bool:
        """Whether so many more may come; closes what rests where that is needed, and says yes once it is closed."""
        while len(self._open) - len(self._closing) + more > self._limit and self._spares():
            pass
        return len(self._open) + more <= self._limit

    def made(self, connection: Connection) -> None:
        """It is open, and has not said anything."""
        while len(self._open) - len(self._closing) >= self._most and self._spares():
            pass
        self._open.add(connection)
        self.silent[connection] = self._now()
        self.idle(connection)

    def busy(self, connection: Connection) -> None:
        """A request has come."""
        self.silent.pop(connection, None)
        self._idle.pop(connection, None)
        self._steady_idle.pop(connection, None)

    def steady(self, connection: Connection) -> None:
        """It has brought a steady attestation: others make room before it does."""
        if connection in self._open and connection not in self._closing:
            self._steady.add(connection)

    def idle(self, connection: Connection) -> None:
        """It has its answer, to the last byte."""
        if connection in self._open and connection not in self._closing:
            queue = self._steady_idle if connection in self._steady else self._idle
            queue[connection] = self._now()

    @contextmanager
    def sending(self, connection: Connection) -> Iterator[None]:
        """While a client takes its time over a long answer; of too many that do, the first has had the most."""
        if len(self._sending) >= _SENDING:
            next(iter(self._sending)).give_up("answer")
        self._sending[connection] = None
        try:
            yield
        finally:
            self._sending.pop(connection, None)

    def lost(self, connection: Connection) -> None:
        """It is closed, by whomever."""
        self._open.discard(connection)
        self.silent.pop(connection, None)
        self._sending.pop(connection, None)
        self._closing.discard(connection)
        self._idle.pop(connection, None)
        self._steady_idle.pop(connection, None)
        self._steady.discard(connection)
        if self.when_lost is not None:
            self.when_lost()

    def _spares(self) -> bool:
        """Close the one that has been idle longest, if it is likely to stay so: in a boot storm all have just come.

        One of a steady machine only where those alone are as many as are kept: a storm pushes none of them out.
        """
        queue = self._idle
        if not self._rests(queue) and len(self._steady) >= self._most:
            queue = self._steady_idle
        if not self._rests(queue):
            return False
        oldest, _ = queue.popitem(last=False)
        self._steady.discard(oldest)
        self._closing.add(oldest)
        self.shed += 1
        oldest.force_close()
        return True

    def _rests(self, queue: OrderedDict[Connection, float]) -> bool:
        since = next(iter(queue.values()), None)
        return since is not None and self._now() - since > _REST
