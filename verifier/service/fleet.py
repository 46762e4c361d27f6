"""What relying parties, dashboards and operators ask about attesters, always within one tenant."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from verifier.errors import NotFoundError
from verifier.ports import AttesterState, Clock, FleetFilter, Page, Store
from verifier.ports_observe import OpenCounts, about
from verifier.reasons import Tier
from verifier.service.events import Change
from verifier.service.fleet_counts import FleetCounts
from verifier.service.model import AttesterView, VerdictView
from verifier.service.recorder import Recorder
from verifier.service.remembered import Remembered
from verifier.service.verdicts import as_judged, view_attester
from verifier.service.watch import VerdictWatch

_READY_LIFE: Final = timedelta(seconds=1)


class FleetService:
    """Reads of the latest state, and revocation."""

    def __init__(
        self, store: Store, recorder: Recorder, clock: Clock, watch: VerdictWatch, counts: FleetCounts
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._watch = watch
        self._ready_at: datetime | None = None
        self._counts = counts
        self.pages: Remembered[Hashable, str] = Remembered(clock)
        """ETags of listings, by what was asked."""
        self._contraindicated: Remembered[int, tuple[AttesterView, ...]] = Remembered(clock)

    def changed(self, change: Change) -> None:
        """This process has changed an attester: what is remembered of its fleet counts no more."""
        self.pages.changed(change.tenant)
        self._contraindicated.changed(change.tenant)
        if change.counts:
            self._counts.changed(change.tenant)

    async def status(self, tenant: str) -> Mapping[str, int]:
        """Attesters by tier of their current verdict, plus `stale`, `revoked` and `enrolled`; how old: `FleetCounts`."""
        return await self._counts.get(tenant)

    async def open_counts(self, tenant: str) -> OpenCounts:
        """What waits for a person."""
        return await self._store.open_counts(tenant, self._clock.now())

    async def tenants(self) -> tuple[str, ...]:
        """Whose fleets there are."""
        return await self._store.tenants()

    async def list(
        self, tenant: str, where: FleetFilter, cursor: str | None, limit: int
    ) -> Page[AttesterView]:
        """One page of attesters with their latest verdicts."""
        now = self._clock.now()
        page = await self._store.list_attesters(tenant, where, now=now, cursor=cursor, limit=limit)
        return Page(items=tuple(view_attester(state, now) for state in page.items), cursor=page.cursor)

    async def contraindicated(self, tenant: str, most: int) -> tuple[AttesterView, ...]:
        """The first of them; at most 2 s old. Where they are rare, a database looks at much of the fleet to find them."""
        known = self._contraindicated.get(tenant, most)
        if known is None:
            asked = self._contraindicated.asking(tenant)
            found = await self.list(tenant, FleetFilter(tier=Tier.CONTRAINDICATED), None, most)
            known = tuple(found.items)
            self._contraindicated.keep(tenant, most, known, asked)
        return known

    async def attester(self, tenant: str, attester_id: str) -> AttesterView:
        """One attester; raises `NotFoundError`."""
        return view_attester(await self._state(tenant, attester_id), self._clock.now())

    async def watched(self, tenant: str, attester_id: str) -> AttesterView:
        """The same, for somebody who will ask again whether it has changed; raises `NotFoundError`."""
        version, now = self._watch.reading(attester_id), self._clock.now()
        state = await self._state(tenant, attester_id)
        self._watch.keep(state, version, now)
        return view_attester(state, now)

    async def predecessors(self, tenant: str, attester_id: str) -> Sequence[str]:
        """Attesters whose place this one took when its machine was given another TPM."""
        return await self._store.predecessors_of(tenant, attester_id)

    async def history(
        self, tenant: str, attester_id: str, before: int | None, limit: int
    ) -> tuple[VerdictView, ...]:
        """Verdicts as they were judged, newest first; raises `NotFoundError`. They say nothing of the present."""
        await self._state(tenant, attester_id)
        records = await self._store.history(tenant, attester_id, before=before, limit=limit)
        return tuple(as_judged(record) for record in records)

    async def revoke(self, tenant: str, attester_id: str, actor: str) -> AttesterView:
        """Refuse everything this attester says from now on; raises `NotFoundError`."""
        await self._state(tenant, attester_id)
        await self._recorder.attester_revoked(tenant, attester_id, self._clock.now(), actor)
        return await self.attester(tenant, attester_id)

    async def ready(self) -> None:
        """Raises `StoreUnavailable` when verdicts could not be stored now.

        A good answer stands for a second: the question writes to the disk, and anyone may ask it.
        """
        now = self._clock.now()
        if self._ready_at is None or not timedelta(0) <= now - self._ready_at < _READY_LIFE:
            self._ready_at = None
            await self._store.ping()
            self._ready_at = now

    async def _state(self, tenant: str, attester_id: str) -> AttesterState:
        state = await self._store.attester_state(attester_id)
        if state is None or state.attester.tenant != tenant:  # another tenant's attester does not exist
            raise NotFoundError("attester", attester_id)
        about(tenant, attester_id)
        return state
