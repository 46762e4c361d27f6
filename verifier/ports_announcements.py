"""What replicas tell each other, so that a change made by one counts at once with all. A part of `verifier.ports`.

Telling is a courtesy: it may fail, come late or come twice. Whoever depends on what another replica changes looks again
by itself too, only less often while `told` is true.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Topic(enum.StrEnum):
    """What has changed. The values are on the wire between replicas, also of different versions."""

    EVENTS = "events"
    """There is an event that nobody has read yet."""
    POLICIES = "policies"
    """A policy has a new revision, or another current one."""
    ASSIGNMENTS = "assignments"
    TOKENS = "tokens"
    """A token was added or revoked."""
    KEYS = "keys"
    """The key that signs EARs was rotated."""
    ANYTHING = "anything"
    """Nobody told us for a while: any of the others may have changed."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something is other than before. `tenant` is empty where it is not of one tenant."""

    topic: Topic
    tenant: str = ""


@dataclass(slots=True)
class AnnouncementState:
    """Counted from the start of the process."""

    told: bool = False
    """Whether other replicas' changes are told now."""
    sent: int = 0
    received: int = 0
    losses: int = 0
    """How often the connection by which they are told went away."""


class Announcements(Protocol):
    """Hears of changes once they are durable: those of this process at once, others' while `state.told`."""

    @property
    def state(self) -> AnnouncementState:
        """Whether it works, and how much came and went."""

    def listen(self, heard: Callable[[Announcement], None]) -> None:
        """Call this with every change; it must neither fail nor take long."""
