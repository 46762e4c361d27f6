"""Changes that are told once they are durable: noted in their transaction, said after its commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from verifier.ports_announcements import Announcement, AnnouncementState, Topic

_NOTED: Final = "vtpm_attest.noted"
APPENDED: Final = Announcement(Topic.EVENTS)
"""An event was written. It concerns this process, which publishes it; others are told when it has its position."""

T = TypeVar("T")


def note(connection: Connection, topic: Topic, tenant: str) -> None:
    """Have a change of the caller's transaction told, once and only if it is committed."""
    connection.info.setdefault(_NOTED, {})[Announcement(topic, tenant)] = None


def noting(
    work: Callable[[Connection], T],
) -> Callable[[Connection], tuple[T, tuple[Announcement, ...]]]:
    """`work`, and what it noted; forgotten where it fails, or is run again."""

    def run(connection: Connection) -> tuple[T, tuple[Announcement, ...]]:
        connection.info.pop(_NOTED, None)
        result = work(connection)
        return result, tuple(connection.info.pop(_NOTED, ()))

    return run


class LocalAnnouncements:
    """Tells this process alone: what SQLite has. Other workers on its file look for themselves."""

    def __init__(self) -> None:
        self.state = AnnouncementState()
        self._listeners: list[Callable[[Announcement], None]] = []

    def listen(self, heard: Callable[[Announcement], None]) -> None:
        """See the port."""
        self._listeners.append(heard)

    def committed(self, changes: tuple[Announcement, ...]) -> None:
        """Tell of what is durable now."""
        for change in changes:
            self._hear(change)

    def published(self) -> None:
        """Events have their positions: whoever reads them by position finds them now."""

    def start(self) -> None:
        """Begin to hear of others, where that is possible; needs a running event loop."""

    async def close(self) -> None:
        """Say what is still to be said."""

    def _hear(self, change: Announcement) -> None:
        for heard in self._listeners:
            heard(change)
