"""Everything the sources said last, indexed, with a journal of what changed. Lives on the event loop's thread."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from verifier.appraisal.inventory import (
    InventoryChanges,
    InventoryEvent,
    InventoryMachine,
    MachineKey,
    SourceStatus,
)
from verifier.appraisal.smbios import canonical_uuid, uuid_spellings
from verifier.inventory.progress import SyncProgress
from verifier.ports_inventory import HeldInventory

JOURNAL: Final = 50_000
"""Events and removals that are kept; whoever asks less often is told everything anew."""


@dataclass(slots=True)
class _Standing:
    """How a source stands, as far as it is not counted."""

    kind: str
    place: str
    synced_at: datetime | None = None
    read_at: datetime | None = None
    problem: str | None = "not read yet"
    warnings: tuple[str, ...] = ()
    failures: int = 0
    progress: tuple[int, int] | None = None
    machines: int = 0
    with_vtpm: int = 0


@dataclass(frozen=True, slots=True)
class SourceName:
    """A source as it is configured; `kind` and `place` as in `SourceStatus`."""

    name: str
    kind: str
    place: str


class Registry:
    """Machines of all sources by key, by endorsement key and by SMBIOS UUID.

    Not thread-safe by design: sources hand their results over on the event loop.
    """

    def __init__(self, sources: Iterable[SourceName], *, journal: int = JOURNAL) -> None:
        self._machines: dict[MachineKey, InventoryMachine] = {}
        self._ordered: tuple[InventoryMachine, ...] | None = None
        self._by_ek: dict[bytes, set[MachineKey]] = {}
        self._by_uuid: dict[str, set[MachineKey]] = {}
        self._by_instance: dict[str, set[MachineKey]] = {}
        self._sources = {one.name: _Standing(one.kind, one.place) for one in sources}
        self._news = asyncio.Event()
        # A cursor of another process must not be taken for one of ours.
        self._epoch = secrets.token_hex(8)
        self._sequence = 0
        self._forgotten = 0
        """Sequence up to which the journal no longer knows everything."""
        self._journal = journal
        self._touched: dict[MachineKey, int] = {}
        """When each machine last changed, in order of change."""
        self._removed: dict[MachineKey, int] = {}
        self._events: deque[tuple[int, InventoryEvent]] = deque()
        self._event_ids: set[str] = set()
        self._events_of: dict[MachineKey, deque[InventoryEvent]] = {}

    def apply(
        self,
        *,
        at: datetime | None = None,
        changed: Sequence[InventoryMachine] = (),
        removed: Iterable[MachineKey] = (),
        events: Iterable[InventoryEvent] = (),
    ) -> None:
        """Take over what a source found. Machines that are equal to what is held, and known events, are passed over.

        `at` is when it was found: since then at the latest a machine has the keys it is listed with.
        """
        before = self._sequence
        for key in removed:
            if self._drop(key):
                self._sequence += 1
                self._touched.pop(key, None)
                self._removed[key] = self._sequence
        for found in changed:
            machine = self._dated(found, at)
            if self._machines.get(machine.key) != machine:
                self._drop(machine.key)
                self._add(machine)
                self._sequence += 1
                self._removed.pop(machine.key, None)
                self._touched.pop(machine.key, None)
                self._touched[machine.key] = self._sequence
        for event in events:
            if event.id not in self._event_ids:
                self._sequence += 1
                self._event_ids.add(event.id)
                self._events.append((self._sequence, event))
                for key in _concerned(event):
                    self._events_of.setdefault(key, deque()).append(event)
        self._forget()
        if self._sequence != before:
            self._news.set()

    def restore(self, held: HeldInventory) -> None:
        """Begin with what was known before. It is as old as it was, so every source is still to be read."""
        self.apply(changed=held.machines, events=reversed(held.events))
        for name, at in held.synced_at.items():
            if name in self._sources:
                self._sources[name].synced_at = at

    def current(
        self, name: str, *, at: datetime, read_at: datetime | None = None, warnings: tuple[str, ...] = ()
    ) -> None:
        """A source is whole and current; `read_at` when every machine was read for that."""
        standing = self._sources[name]
        standing.synced_at, standing.problem, standing.warnings = at, None, warnings
        standing.read_at, standing.progress = read_at or standing.read_at, None
        self._news.set()

    def failed(self, name: str, problem: str) -> None:
        """A source is not current; when it last was stays."""
        standing = self._sources[name]
        standing.problem, standing.progress = problem, None
        standing.failures += 1

    def advance(self, progress: SyncProgress) -> None:
        """How far a reading has come."""
        self._sources[progress.source].progress = (progress.done, progress.total)

    async def changed(self, since: str, at_most: timedelta) -> None:
        """Wait until there is news, or so long. For one waiter."""
        if self._position(since) != self._sequence:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await self._news.wait()
        except TimeoutError:
            return

    def get(self, key: MachineKey) -> InventoryMachine | None:
        """The machine as it was last read."""
        return self._machines.get(key)

    def of_source(self, name: str) -> tuple[InventoryMachine, ...]:
        """Every machine of one source."""
        return tuple(one for one in self._machines.values() if one.key.source == name)

    def machines(self) -> tuple[InventoryMachine, ...]:
        """Every machine, by key."""
        if self._ordered is None:
            self._ordered = tuple(self._machines[key] for key in sorted(self._machines))
        return self._ordered

    def by_ek(self, fingerprint: bytes) -> tuple[InventoryMachine, ...]:
        """Machines that list the key."""
        return tuple(self._machines[key] for key in sorted(self._by_ek.get(fingerprint, ())))

    def by_smbios(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines with this SMBIOS UUID in either spelling."""
        keys = {key for spelling in uuid_spellings(uuid) for key in self._by_uuid.get(spelling, ())}
        return tuple(self._machines[key] for key in sorted(keys))

    def by_instance(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines with this instance UUID."""
        return tuple(
            self._machines[key] for key in sorted(self._by_instance.get(canonical_uuid(uuid) or "", ()))
        )

    def events_of(self, machines: Collection[MachineKey]) -> tuple[InventoryEvent, ...]:
        """Events these machines had a part in, newest first."""
        found = {event.id: event for key in machines for event in self._events_of.get(key, ())}
        return tuple(sorted(found.values(), key=lambda event: (event.at, event.id), reverse=True))

    def status(self) -> tuple[SourceStatus, ...]:
        """How each source stands, in the order of configuration."""
        return tuple(
            SourceStatus(
                name=name,
                synced_at=one.synced_at,
                machines=one.machines,
                problem=one.problem,
                warnings=one.warnings,
                kind=one.kind,
                place=one.place,
                read_at=one.read_at,
                with_vtpm=one.with_vtpm,
                failures=one.failures,
                progress=one.progress,
            )
            for name, one in self._sources.items()
        )

    def changes(self, since: str | None) -> InventoryChanges:
        """See `Inventory.changes`. Costs as much as there is to tell."""
        cursor = f"{self._epoch}.{self._sequence}"
        start = self._position(since)
        if start is None:
            return InventoryChanges(
                machines=self.machines(),
                removed=(),
                events=tuple(event for _, event in self._events),
                cursor=cursor,
                complete=True,
            )
        return InventoryChanges(
            machines=tuple(self._machines[key] for key in _after(self._touched, start)),
            removed=_after(self._removed, start),
            events=tuple(event for sequence, event in self._events if sequence > start),
            cursor=cursor,
            complete=False,
        )

    def _position(self, cursor: str | None) -> int | None:
        epoch, _, digits = (cursor or "").partition(".")
        if epoch != self._epoch or not digits.isascii() or not digits.isdecimal():
            return None
        position = int(digits)
        return position if self._forgotten <= position <= self._sequence else None

    def _dated(self, machine: InventoryMachine, at: datetime | None) -> InventoryMachine:
        """The machine with the time since when it has its keys."""
        if machine.ek_since is not None or not machine.ek_fingerprints:
            return machine
        held = self._machines.get(machine.key)
        same = held is not None and held.ek_fingerprints == machine.ek_fingerprints
        return replace(machine, ek_since=held.ek_since if same and held is not None else at)

    def _add(self, machine: InventoryMachine) -> None:
        key = machine.key
        self._machines[key] = machine
        self._ordered = None
        self._count(machine, 1)
        for index, value in self._entries(machine):
            index.setdefault(value, set()).add(key)

    def _drop(self, key: MachineKey) -> bool:
        machine = self._machines.pop(key, None)
        self._ordered = None
        if machine is None:
            return False
        self._count(machine, -1)
        for index, value in self._entries(machine):
            _discard(index, value, key)
        return True

    def _count(self, machine: InventoryMachine, by: int) -> None:
        standing = self._sources[machine.key.source]
        standing.machines += by
        if machine.has_vtpm or machine.ek_fingerprints:
            standing.with_vtpm += by

    def _entries(self, machine: InventoryMachine) -> Iterator[tuple[dict[Any, set[MachineKey]], bytes | str]]:
        for fingerprint in machine.ek_fingerprints:
            yield self._by_ek, fingerprint
        if machine.smbios_uuid is not None:
            yield self._by_uuid, machine.smbios_uuid
        if machine.instance_uuid is not None:
            yield self._by_instance, machine.instance_uuid

    def _forget(self) -> None:
        while len(self._events) > self._journal:
            sequence, event = self._events.popleft()
            self._event_ids.discard(event.id)
            for key in _concerned(event):
                events = self._events_of[key]
                events.popleft()
                if not events:
                    del self._events_of[key]
            self._forgotten = max(self._forgotten, sequence)
        while len(self._removed) > self._journal:
            key = next(iter(self._removed))
            self._forgotten = max(self._forgotten, self._removed.pop(key))


def _after(changes: dict[MachineKey, int], start: int) -> tuple[MachineKey, ...]:
    """Keys whose sequence is beyond `start`, oldest first; the dictionary is in order of sequence."""
    found = []
    for key in reversed(changes):
        if changes[key] <= start:
            break
        found.append(key)
    return tuple(reversed(found))


def _concerned(event: InventoryEvent) -> set[MachineKey]:
    return {event.machine.key} if event.origin is None else {event.machine.key, event.origin.key}


def _discard(index: dict[Any, set[MachineKey]], value: bytes | str, key: MachineKey) -> None:
    keys = index[value]
    keys.discard(key)
    if not keys:
        del index[value]
