"""What the fleet looked like over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import delete, select

from verifier.ports import FleetSample
from verifier.store import values
from verifier.store.backend import StorePart
from verifier.store.schema_watched import fleet_sample


class Samples(StorePart):
    """The samples of the `Store` port."""

    async def add_fleet_sample(self, tenant: str, at: datetime, counts: Mapping[str, int]) -> None:
        """One a tenant and time, whichever replica comes first."""
        row = {"tenant": tenant, "at": values.micros(at), "counts": msgspec.json.encode(counts).decode()}
        await self._change(self._backend.insert(fleet_sample).values(row).on_conflict_do_nothing())

    async def fleet_samples(self, tenant: str, since: datetime) -> tuple[FleetSample, ...]:
        """Oldest first."""
        query = (
            select(fleet_sample.c.at, fleet_sample.c.counts)
            .where(fleet_sample.c.tenant == tenant, fleet_sample.c.at >= values.micros(since))
            .order_by(fleet_sample.c.at)
        )
        return tuple(
            FleetSample(at=values.moment(at), counts=msgspec.json.decode(counts, type=dict[str, int]))
            for at, counts in await self._backend.rows(query)
        )

    async def purge_fleet_samples(self, before: datetime) -> int:
        """Drop older ones."""
        return await self._change(delete(fleet_sample).where(fleet_sample.c.at < values.micros(before)))
