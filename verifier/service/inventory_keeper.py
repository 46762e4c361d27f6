"""Keeps what the inventories say over restarts, and turns what happened to machines into history and audit log.

While a verifier or a vCenter is down, a vTPM may be replaced or a machine vanish: what is read next is compared with what
was kept, not with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final, TypeVar

from verifier.appraisal.checks.inventory import describe
from verifier.appraisal.inventory import EventKind, InventoryChanges, InventoryEvent, MachineKey
from verifier.ports import DEFAULT_TENANT, Clock, Store
from verifier.ports_enrollment import AuditEntry
from verifier.ports_inventory import Inventory, InventoryUpdate
from verifier.service.recorder import Recorder

T = TypeVar("T")

KEPT_AT_LEAST_EVERY: Final = timedelta(minutes=1)
"""Also when nothing changed, so that a restart knows how old its knowledge is."""
_CHUNK: Final = 500
_EVENTS: Final = 10_000
_AUDITED: Final = frozenset(EventKind) - {EventKind.ADDED, EventKind.REMOVED}
"""What changes whose TPM is whose. Machines come and go all day."""
_HEX: Final = 64


class InventoryKeeper:
    """One for each process; replicas keep the same facts, each event once."""

    def __init__(
        self, *, inventory: Inventory, store: Store, recorder: Recorder, clock: Clock, history: timedelta
    ) -> None:
        self._inventory = inventory
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._history = history
        self._cursor: str | None = None
        self._kept: set[MachineKey] = set()

    async def restore(self) -> None:
        """Begin with what was kept; before the inventory is started."""
        names = [one.name for one in await self._inventory.status()]
        if not names:
            return
        held = await self._store.held_inventory(DEFAULT_TENANT, sources=names, events=_EVENTS)
        self._inventory.restore(held)
        self._kept = {machine.key for machine in held.machines}
        self._cursor = (await self._inventory.changes(None)).cursor

    async def keep(self) -> None:
        """Keep what changed since the last time, after waiting for it."""
        if self._cursor is not None:
            await self._inventory.changed(self._cursor, KEPT_AT_LEAST_EVERY)
        changes = await self._inventory.changes(self._cursor)
        removed = self._gone(changes)
        synced = {
            one.name: one.synced_at for one in await self._inventory.status() if one.synced_at is not None
        }
        events = [(event, await self._audit(event)) for event in changes.events]
        now = self._clock.now()
        for machines in _chunks(changes.machines):
            await self._recorder.inventory_kept(DEFAULT_TENANT, InventoryUpdate(machines=machines), now)
        for part in _chunks(events):
            await self._recorder.inventory_kept(DEFAULT_TENANT, InventoryUpdate(events=part), now)
        last = InventoryUpdate(removed=removed, synced_at=synced)
        await self._recorder.inventory_kept(DEFAULT_TENANT, last, now)
        self._kept = (self._kept | {machine.key for machine in changes.machines}) - set(removed)
        self._cursor = changes.cursor

    async def purge(self) -> None:
        """Drop events that are older than the history is to be."""
        await self._recorder.purge_inventory_events(self._clock.now(), self._history)

    def _gone(self, changes: InventoryChanges) -> list[MachineKey]:
        if not changes.complete:
            return list(changes.removed)
        return sorted(self._kept - {machine.key for machine in changes.machines})

    async def _audit(self, event: InventoryEvent) -> AuditEntry | None:
        if event.kind not in _AUDITED:
            return None
        return AuditEntry(
            tenant=DEFAULT_TENANT,
            at=event.at,
            actor="inventory",
            action=f"inventory.{event.kind.value}",
            subject=await self._subject(event),
            reason=describe(event),
            detail={
                "machine": str(event.machine.key),
                "name": event.machine.name,
                "origin": None if event.origin is None else str(event.origin.key),
                "before": event.before,
                "after": event.after,
            },
        )

    async def _subject(self, event: InventoryEvent) -> str:
        """The attester whose machine it happened to; else the machine. For a clone, that which was copied."""
        refs = [one for one in (event.origin, event.machine) if one is not None]
        fingerprints = set(_fingerprints(event.before))
        for machine in await self._inventory.machines_of([ref.key for ref in refs]):
            fingerprints |= machine.ek_fingerprints
        for fingerprint in sorted(fingerprints):
            state = await self._store.attester_of_ek(DEFAULT_TENANT, fingerprint)
            if state is not None:
                return state.attester.id
        return str(event.machine.key)


def _fingerprints(text: str | None) -> Iterator[bytes]:
    for part in (text or "").split(","):
        if len(part) == _HEX:
            yield bytes.fromhex(part)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    listed = list(items)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
