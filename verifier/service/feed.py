"""The event log as it grows, for streams: every change of every replica, in one order.

An event is published as soon as its change is committed, by the replica that made it, and the others are told. Nothing
depends on that: what nobody told of is found by asking the database, four times a second or, while replicas are told of
each other's changes, once a second; so a replica that was away goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from verifier.errors import EvidenceError, VerifierFault
from verifier.ports import Clock
from verifier.ports_announcements import AnnouncementState
from verifier.ports_events import EventFilter, EventRecord, Outbox
from verifier.reasons import Reason
from verifier.service.rate import RateLimitedError

POLL: Final = 0.25
"""Seconds: with it, an event is out within one second of its change, whichever replica it was made on."""
POLL_TOLD: Final = 1.0
"""Seconds, while replicas are told: to find what one left untold that was killed just then."""
_TOGETHER: Final = 0.02
"""Seconds between two publications: a storm of changes is published in few pieces."""
_AFTER_FAULT: Final = 2.0
_FOLLOWS: Final = POLL_TOLD + 0.5
"""Seconds after a look at the log within which the next one is due."""
_PAGE: Final = 200
_RETRY_STREAM: Final = 30.0
_log = structlog.get_logger("vtpm_attest.events")


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A piece of a stream: what is wanted of it, and where to go on."""

    events: Sequence[EventRecord]
    position: int
    more: bool


class EventFeed:
    """Publishes events and lets streams follow them.

    Args:
        outbox: the event log.
        clock: for the times of deliveries.
        max_streams: how many may be open in this process.
        announced: whether other replicas' changes are told to this one.
    """

    def __init__(
        self, outbox: Outbox, clock: Clock, max_streams: int, announced: AnnouncementState | None = None
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._max_streams = max_streams
        self._announced = announced or AnnouncementState()
        self._woken = asyncio.Event()
        self._advanced = asyncio.Event()
        self.head = 0
        """The highest position known here."""
        self.streams = 0
        self._looked = -_FOLLOWS

    async def run(self, published: asyncio.Event) -> None:
        """Publish for ever. `published` is set whenever there may be something new to deliver."""
        while True:
            try:
                self._woken.clear()
                if await self.publish():
                    published.set()
                await asyncio.sleep(_TOGETHER)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_TOLD if self._announced.told else POLL):
                        await self._woken.wait()
            except Exception as error:  # noqa: BLE001 - a bug too: nobody waits for this task
                _log.error(
                    "events.not-published", problem=str(error), exc_info=not isinstance(error, VerifierFault)
                )
                await asyncio.sleep(_AFTER_FAULT)

    def wake(self) -> None:
        """There may be something new: look now."""
        self._woken.set()

    async def publish(self) -> int:
        """Give positions to what has none; how many there were."""
        count = 0
        while True:
            done = await self._outbox.publish_events(self._clock.now())
            count += done.events
            if done.head > self.head:
                self.head = done.head
                self._advanced.set()
                self._advanced = asyncio.Event()
            if not done.events:
                self._looked = time.monotonic()
                return count

    def followed(self) -> int | None:
        """The highest position, where that is known as of now or a second ago; None while nobody looks."""
        return self.head if time.monotonic() - self._looked < _FOLLOWS else None

    def open_stream(self) -> None:
        """Take a place; raises `RateLimitedError` where none is left. `close_stream` gives it back."""
        if self.streams >= self._max_streams:
            raise RateLimitedError(
                _RETRY_STREAM, f"all {self._max_streams} places for streams of events are taken"
            )
        self.streams += 1

    def close_stream(self) -> None:
        """Give a place back."""
        self.streams -= 1

    async def start(self, resume_after: int | None) -> tuple[int, bool]:
        """Where a stream begins, and whether events it has not seen are gone already.

        Raises:
            EvidenceError: `malformed-request`: that position was never given out.
        """
        dropped, head = await self._outbox.event_bounds()
        if resume_after is None:
            return head, False
        if resume_after > head:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST,
                f"{resume_after} is beyond the last event, {head}: connect without Last-Event-ID",
                structure="Last-Event-ID",
            )
        return resume_after, resume_after < dropped

    async def read(self, tenant: str, wants: EventFilter, after: int) -> FeedPage:
        """What comes after a position, as far as it fits a page."""
        head = self.head  # before the reading: whatever has a position up to here will be in it
        found = await self._outbox.events(tenant, after=after, limit=_PAGE)
        more = len(found) == _PAGE
        last = found[-1].position if found else after
        return FeedPage(
            events=[one for one in found if wants.matches(one)],
            position=last if more else max(last, head),
            more=more,
        )

    async def newer_than(self, position: int, within: float) -> bool:
        """Whether there is anything after a position, by the end of `within` seconds."""
        advanced = self._advanced
        if self.head <= position:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await advanced.wait()
        return self.head > position
