"""Connections that wait for their next request: kept up to a number, so that what they take up is bounded.

An idle connection takes some 35 KB, most of it for TLS. A guest that finds its connection closed opens another, which
costs about as much CPU time as an attestation.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

LARGE: Final = 16 * 1024
"""Bytes of a request's body: more than a steady attestation sends, less than one with a boot log. A connection keeps
the buffer that a request went through for as long as it lives, so that of a large one is closed with the answer."""


class Connection(Protocol):
    """One of a client."""

    def force_close(self) -> None:
        """Close it now."""


class Connections:
    """All that are open in this process, those without a request in the order in which they fell idle.

    Args:
        most: how many are kept. More are served where all have requests; the idle ones make room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Connection] = set()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self.shed = 0
        """How many were closed to make room."""

    def __len__(self) -> int:
        return len(self._open)

    def made(self, connection: Connection) -> None:
        """It is open, and has not said anything."""
        self._open.add(connection)
        self._idle[connection] = None
        while len(self._open) > self._most and len(self._idle) > 1:
            oldest, _ = self._idle.popitem(last=False)
            self._open.discard(oldest)
            self.shed += 1
            oldest.force_close()

    def busy(self, connection: Connection) -> None:
        """A request has come."""
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It was answered."""
        if connection in self._open:
            self._idle[connection] = None

    def lost(self, connection: Connection) -> None:
        """It is closed, by whomever."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
