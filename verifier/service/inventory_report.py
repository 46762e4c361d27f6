"""Machines and attesters side by side, and what happened to machines: for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.appraisal.correlate import Correlation, Outcome
from verifier.appraisal.inventory import EventKind, InventoryMachine
from verifier.appraisal.smbios import canonical_uuid
from verifier.errors import EvidenceError, NotFoundError
from verifier.ports import AttesterRecord, Clock, FleetFilter, Lifecycle, Page, Store
from verifier.ports_inventory import KeptEvent
from verifier.reasons import Reason
from verifier.service.inventory import InventoryService

_LOOKED_AT: Final = 1_000
"""Attesters looked through for one page, at most."""
_GONE: Final = frozenset({Lifecycle.REVOKED, Lifecycle.RETIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineView:
    """A machine, the attesters that have one of its keys, and whether its source is too old to be believed."""

    machine: InventoryMachine
    attesters: tuple[AttesterRecord, ...]
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestView:
    """An attester, and what the sources say of it now."""

    attester: AttesterRecord
    found: Correlation


class InventoryReport:
    """Reads of the default tenant, whose the sources are. Without a source there is nothing to tell."""

    def __init__(self, asked: InventoryService, store: Store, clock: Clock) -> None:
        self._asked = asked
        self._store = store
        self._clock = clock

    async def machines(self, tenant: str, uuid: str) -> tuple[MachineView, ...]:
        """The machines with this instance UUID, or this SMBIOS UUID in either spelling.

        Raises:
            EvidenceError: `malformed-request`: it is not the UUID of a machine.
            NotFoundError: no source lists one.
        """
        if canonical_uuid(uuid) is None:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, f"{uuid[:80]!r} is not the UUID of a machine", structure="path"
            )
        known = {machine.key: machine for machine in await self._asked.with_uuid(uuid)}
        if not known:
            raise NotFoundError("machine of an inventory with UUID", uuid)
        stale = {one.status.name for one in await self._asked.sources() if one.stale}
        return tuple([await self._view(tenant, machine, stale) for machine in known.values()])

    async def _view(self, tenant: str, machine: InventoryMachine, stale: Collection[str]) -> MachineView:
        states = [
            await self._store.attester_of_ek(tenant, fingerprint)
            for fingerprint in sorted(machine.ek_fingerprints)
        ]
        return MachineView(
            machine=machine,
            attesters=tuple(state.attester for state in states if state is not None),
            stale=machine.key.source in stale,
        )

    async def guests(
        self, tenant: str, outcomes: Collection[Outcome], cursor: str | None, limit: int
    ) -> Page[GuestView]:
        """One page of attesters that are neither revoked nor retired, with what the sources say of each.

        With `outcomes` only those. A page may have fewer than `limit` and still not be the last.
        """
        found: list[GuestView] = []
        looked_at = 0
        while looked_at < _LOOKED_AT:
            page = await self._store.list_attesters(
                tenant, FleetFilter(), now=self._clock.now(), cursor=cursor, limit=limit - len(found)
            )
            looked_at += len(page.items)
            for state in page.items:
                said = await self._asked.about(state.attester)
                if said is None or state.attester.lifecycle in _GONE:
                    continue
                if not outcomes or said.outcome in outcomes:
                    found.append(GuestView(attester=state.attester, found=said))
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                break
        return Page(items=tuple(found), cursor=cursor)

    async def events(
        self, tenant: str, uuid: str | None, kind: EventKind | None, before: int | None, limit: int
    ) -> Sequence[KeptEvent]:
        """What happened to machines, newest first; with `uuid` to those that have it now.

        Raises:
            EvidenceError, NotFoundError: as `machines`.
        """
        machines = None
        if uuid is not None:
            machines = [view.machine.key for view in await self.machines(tenant, uuid)]
        return await self._store.inventory_events(
            tenant, machines=machines, kind=kind, before=before, limit=limit
        )
