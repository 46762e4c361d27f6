"""What the service needs of the world to know machines by: inventories, and where their history is kept.

A part of `verifier.ports`; the same rules hold. The records are in `verifier.appraisal.inventory`, their judgement in
`verifier.appraisal.correlate`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from verifier.appraisal.inventory import (
    EventKind,
    InventoryChanges,
    InventoryEvent,
    InventoryMachine,
    MachineKey,
    SourceStatus,
)
from verifier.ports_enrollment import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInventory:
    """What was known of the sources when a verifier last kept it: true then, and old until they are read again.

    Attributes:
        machines: without their certificates.
        events: newest first.
        synced_at: by source, when it was last whole and current.
    """

    machines: tuple[InventoryMachine, ...] = ()
    events: tuple[InventoryEvent, ...] = ()
    synced_at: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryUpdate:
    """What is kept in one transaction.

    Attributes:
        machines: new or changed.
        removed: gone.
        events: each with its entry in the audit log, if it belongs there. Known ones are passed over, whole.
        synced_at: by source.
    """

    machines: Sequence[InventoryMachine] = ()
    removed: Sequence[MachineKey] = ()
    events: Sequence[tuple[InventoryEvent, AuditEntry | None]] = ()
    synced_at: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event and its place in the order in which events were kept."""

    sequence: int
    event: InventoryEvent


class InventoryStore(Protocol):
    """The part of `Store` that keeps what inventories said."""

    async def held_inventory(self, tenant: str, *, sources: Collection[str], events: int) -> HeldInventory:
        """What was kept of these sources, with the newest `events` events. What was kept of others is dropped,
        but for their events.
        """  # noqa: D205 - one sentence does not fit one line

    async def keep_inventory(self, tenant: str, update: InventoryUpdate, now: datetime) -> frozenset[str]:
        """Keep it; returns the ids of events that were not known, of which each is told to one caller only."""

    async def inventory_events(
        self,
        tenant: str,
        *,
        machines: Collection[MachineKey] | None,
        kind: EventKind | None,
        before: int | None,
        limit: int,
    ) -> Sequence[KeptEvent]:
        """Newest first, of these machines or of all; `before` is an exclusive sequence."""

    async def purge_inventory_events(self, before: datetime) -> int:
        """Drop events from before then; returns how many."""


class Inventory(Protocol):
    """What the operator's sources say of machines and their endorsement keys.

    Reads answer at once, from what was last read of the sources; `status` says how old that is.
    """

    async def machines(self) -> tuple[InventoryMachine, ...]:
        """All machines of all sources, by key."""

    async def machines_of(self, keys: Collection[MachineKey]) -> tuple[InventoryMachine, ...]:
        """Those of these machines that are listed now."""

    async def lookup_ek(self, fingerprint: bytes) -> tuple[InventoryMachine, ...]:
        """Machines that list this key (SHA-256 of its SubjectPublicKeyInfo), by key."""

    async def lookup_smbios(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines with this SMBIOS UUID in either spelling, by key."""

    async def lookup_instance(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines that their vCenter knows by this UUID, by key."""

    async def events_of(self, machines: Collection[MachineKey]) -> tuple[InventoryEvent, ...]:
        """Events these machines had a part in, newest first, as far as they are held."""

    async def changes(self, since: str | None) -> InventoryChanges:
        """What changed since the cursor of an earlier answer; None asks for everything."""

    async def changed(self, since: str, at_most: timedelta) -> None:
        """Wait until `changes(since)` has something to tell, or so long."""

    async def status(self) -> tuple[SourceStatus, ...]:
        """How each configured source stands, in the order of configuration."""

    def restore(self, held: HeldInventory) -> None:
        """Begin with what was known before, as old as it is. Only before anything was read."""

    async def sync(self) -> None:
        """Read every source anew: files before this returns, what is far away as soon as it answers.

        What goes wrong is told by `status`.
        """

    async def close(self) -> None:
        """Follow the sources no longer."""
