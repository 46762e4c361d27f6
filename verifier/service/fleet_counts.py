"""The fleet in numbers, remembered: to count 100,000 attesters takes a database some 20 ms.

What this process changes counts at once. What another replica changes is an event, and no older answer is given once
that is known here; what nobody tells of, silence that sets in or ends, shows within ten seconds. Where events are not
followed, or while there are many of them, an answer is good for two seconds. Numbers that somebody asked for in the
last ten minutes are counted again before they are too old, so that hardly anybody waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from verifier.ports import Clock, Store

LIFE: Final = timedelta(seconds=2)
QUIET_LIFE: Final = timedelta(seconds=10)
"""Where the log of events has nothing new since."""
WARM: Final = timedelta(minutes=10)
WARM_EVERY: Final = 1.0
"""Seconds between two looks at what is about to be too old."""
_EARLY: Final = timedelta(seconds=1.5)
"""How long before its end a number is counted again: until the next look, and while it is counted."""

KnownHead = Callable[[], int | None]
"""The position of the last event known in this process; None while it does not follow them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """An answer, and what was known when the database was asked."""

    counts: Mapping[str, int]
    at: datetime
    version: int
    head: int | None


class FleetCounts:
    """Attesters by status, for each tenant. One question at a time goes to the database, however many ask."""

    def __init__(self, store: Store, clock: Clock, head: KnownHead) -> None:
        self._store = store
        self._clock = clock
        self._head = head
        self._versions: dict[str, int] = {}
        self._known: dict[str, _Counted] = {}
        self._asked: dict[str, datetime] = {}
        self._counting = asyncio.Lock()

    async def get(self, tenant: str) -> Mapping[str, int]:
        """For somebody who will ask again."""
        self._asked[tenant] = self._clock.now()
        return await self.current(tenant)

    async def current(self, tenant: str) -> Mapping[str, int]:
        """The numbers, counted now if need be."""
        known = self._usable(tenant)
        return await self._count(tenant) if known is None else known

    def changed(self, tenant: str) -> None:
        """This process has changed an attester of this tenant."""
        self._versions[tenant] = self._version(tenant) + 1

    async def warm(self) -> None:
        """Count again what somebody may ask for before it is too old; forget what nobody asks for."""
        now = self._clock.now()
        for tenant, asked in list(self._asked.items()):
            if not timedelta(0) <= now - asked < WARM:
                self._asked.pop(tenant, None)
                self._known.pop(tenant, None)
            elif self._usable(tenant, _EARLY) is None:
                await self._count(tenant, _EARLY)

    async def _count(self, tenant: str, early: timedelta = timedelta(0)) -> Mapping[str, int]:
        async with self._counting:
            found = self._usable(tenant, early)
            if found is None:
                version, head, now = self._version(tenant), self._head(), self._clock.now()
                found = await self._store.status_counts(tenant, now)
                self._known[tenant] = _Counted(counts=found, at=now, version=version, head=head)
            return found

    def _usable(self, tenant: str, early: timedelta = timedelta(0)) -> Mapping[str, int] | None:
        known = self._known.get(tenant)
        if known is None or known.version != self._version(tenant):
            return None
        quiet = known.head is not None and known.head == self._head()
        age = self._clock.now() - known.at
        return known.counts if timedelta(0) <= age < (QUIET_LIFE if quiet else LIFE) - early else None

    def _version(self, tenant: str) -> int:
        return self._versions.get(tenant, 0)
