"""Verdicts as they are recorded, and alarms of what ends, for whoever waits for them in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from verifier.ports import VerdictRecord
from verifier.ports_trust import ExpiryAlarm

_QUEUE: Final = 256


class LocalEvents:
    """The in-process `EventSink`. A subscriber that falls behind loses the oldest events, nobody waits for it."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[VerdictRecord]] = set()
        self._alarm_queues: set[asyncio.Queue[ExpiryAlarm]] = set()

    async def verdict(self, record: VerdictRecord, previous: VerdictRecord | None) -> None:
        """Tell every subscriber; never blocks."""
        del previous
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(record)

    async def expiring(self, alarms: Sequence[ExpiryAlarm]) -> None:
        """Tell every subscriber of alarms; never blocks."""
        for queue in self._alarm_queues:
            for alarm in alarms:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(alarm)

    async def subscribe_alarms(self) -> AsyncIterator[ExpiryAlarm]:
        """Every alarm raised from now on, until the iterator is closed."""
        queue: asyncio.Queue[ExpiryAlarm] = asyncio.Queue(_QUEUE)
        self._alarm_queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._alarm_queues.discard(queue)

    async def subscribe(self) -> AsyncGenerator[VerdictRecord, None]:
        """Every verdict recorded from now on, until the iterator is closed."""
        queue: asyncio.Queue[VerdictRecord] = asyncio.Queue(_QUEUE)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
