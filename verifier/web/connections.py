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

_TO_SPEAK: Final = 5.0
"""Seconds for a first request."""


class Connection(Protocol):
    """One of a client."""

    def force_close(self) -> None:
        """Close it now."""


class Connections:
    """All that are open in this process, those without a request in the order in which they fell idle.

    Args:
        most: how many are kept. More are served where all have requests, or have only just come; the idle ones make
            room.
        now: seconds that only grow.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._open: set[Connection] = set()
        self._silent: OrderedDict[Connection, float] = OrderedDict()
        """Since when they are open without a request."""
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self.shed = 0
        """How many were closed to make room."""

    def __len__(self) -> int:
        return len(self._open)

    def made(self, connection: Connection) -> None:
        """It is open, and has not said anything."""
        while len(self._open) >= self._most:
            oldest = self._first_to_go()
            if oldest is None:
                break
            self.shed += 1
            self.lost(oldest)
            oldest.force_close()
        self._open.add(connection)
        self._silent[connection] = self._now()

    def busy(self, connection: Connection) -> None:
        """A request has come."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It was answered."""
        if connection in self._open:
            self._idle[connection] = None

    def lost(self, connection: Connection) -> None:
        """It is closed, by whomever."""
        self._open.discard(connection)
        self.busy(connection)

    def _first_to_go(self) -> Connection | None:
        # In a boot storm most have just come, and pushed out before they could speak they would only come again.
        for connection in self._idle:
            return connection
        for connection, since in self._silent.items():
            return connection if self._now() - since > _TO_SPEAK else None
        return None
