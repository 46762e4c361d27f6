"""What the fleet looked like over time: one sample a minute, thinned for a plot."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from verifier.ports import Clock, FleetSample, Store
from verifier.service.fleet_counts import FleetCounts
from verifier.service.recorder import Recorder

EVERY: Final = timedelta(minutes=1)
KEPT: Final = timedelta(days=30)


class FleetSamples:
    """Takes and reads samples."""

    def __init__(self, store: Store, recorder: Recorder, clock: Clock, counts: FleetCounts) -> None:
        self._store = store
        self._counts = counts
        self._recorder = recorder
        self._clock = clock

    async def take(self, tenant: str) -> None:
        """The fleet now, under the full minute, so that replicas take one together; drops what is too old."""
        now = self._clock.now()
        counts = await self._counts.current(tenant)
        minute = now.replace(second=0, microsecond=0)
        await self._recorder.fleet_sample(tenant, minute, counts)
        if minute.minute == 0:
            await self._recorder.purge_fleet_samples(minute - KEPT)

    async def since(self, tenant: str, span: timedelta, at_most: int) -> tuple[FleetSample, ...]:
        """Samples of the last `span`, oldest first, every n-th of them so that there are no more than `at_most`."""
        found = await self._store.fleet_samples(tenant, self._clock.now() - span)
        step = -(-len(found) // at_most) or 1
        return found[::-1][::step][::-1]
