"""Verdicts as they are recorded, and alarms of what ends, for whoever waits for them in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Final

from msgspec import Struct

from verifier.ports import VerdictRecord
from verifier.ports_trust import ExpiryAlarm

_QUEUE: Final = 256


class Change(Struct, frozen=True, kw_only=True):
    """This process has changed what is stored about an attester, durably."""

    tenant: str
    attester_id: str
    counts: bool
    """Whether the fleet in numbers may be another one now; a verdict that only confirms the last one changes none."""


class LocalEvents:
    """The in-process `EventSink`. A subscriber that falls behind loses the oldest events, nobody waits for it."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[VerdictRecord]] = set()
        self._alarm_queues: set[asyncio.Queue[ExpiryAlarm]] = set()
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call this at once with every change; it must neither fail nor take long."""
        self._listeners.append(listener)

    def changed(self, tenant: str, attester_id: str) -> None:
        """Something else about an attester is other than before."""
        self._tell(Change(tenant=tenant, attester_id=attester_id, counts=True))

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    async def verdict(self, record: VerdictRecord, previous: VerdictRecord | None) -> None:
        """Tell every subscriber; never blocks."""
        if self._listeners:
            self._tell(
                Change(
                    tenant=record.tenant,
                    attester_id=record.attester_id,
                    counts=previous is None
                    or previous.tier is not record.tier
                    or not previous.holds_at(record.judged_at),
                )
            )
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
