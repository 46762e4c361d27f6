"""Connections that wait for their next request: kept up to a number, so that what they take up is bounded.

An idle connection takes some 35 KB, most of it for TLS. A guest that finds its connection closed opens another, which
costs about as much CPU time as an attestation.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

LARGE: Final = 16 * 1024
"""Bytes of a request's body: more than a steady attestation sends, less than one with a boot log. A connection keeps
the buffer that a request went through for as long as it lives, so that of a large one is closed with the answer."""

_REST: Final = 2.0
"""Seconds after which a guest that has said nothing more is in no exchange of several requests."""


class Connection(Protocol):
    """One of a client."""

    def force_close(self) -> None:
        """Close it now."""


class Connections:
    """All that are open in this process, those without a request in the order of when they last had one.

    Args:
        most: how many are kept. More are served where all are busy, or were a moment ago; the others make room.
        now: seconds that only grow.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._open: set[Connection] = set()
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        """Since when."""
        self.shed = 0
        """How many were closed to make room."""

    def __len__(self) -> int:
        return len(self._open)

    def made(self, connection: Connection) -> None:
        """It is open, and has not said anything."""
        while len(self._open) >= self._most and self._rests():
            oldest = next(iter(self._idle))
            self.shed += 1
            self.lost(oldest)
            oldest.force_close()
        self._open.add(connection)
        self.idle(connection)

    def busy(self, connection: Connection) -> None:
        """A request has come."""
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It has its answer, to the last byte."""
        if connection in self._open:
            self._idle[connection] = self._now()

    def lost(self, connection: Connection) -> None:
        """It is closed, by whomever."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _rests(self) -> bool:
        """Whether the one that has been idle longest is likely to stay so: in a boot storm all have just come."""
        since = next(iter(self._idle.values()), None)
        return since is not None and self._now() - since > _REST
