"""Everything the sources said last, indexed, with a journal of what changed. Lives on the event loop's thread."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from verifier.appraisal.inventory import (
    InventoryChanges,
    InventoryEvent,
    InventoryMachine,
    MachineKey,
    SourceStatus,
)
from verifier.appraisal.smbios import uuid_spellings

_V = TypeVar("_V", bytes, str)

JOURNAL: Final = 50_000
"""Events and removals that are kept; whoever asks less often is told everything anew."""


class Registry:
    """Machines of all sources by key, by endorsement key and by SMBIOS UUID.

    Not thread-safe by design: sources hand their results over on the event loop.
    """

    def __init__(self, sources: Iterable[str], *, journal: int = JOURNAL) -> None:
        self._machines: dict[MachineKey, InventoryMachine] = {}
        self._by_ek: dict[bytes, set[MachineKey]] = {}
        self._by_uuid: dict[str, set[MachineKey]] = {}
        self._per_source = dict.fromkeys(sources, 0)
        self._status = {
            name: SourceStatus(name=name, synced_at=None, machines=0, problem="not read yet")
            for name in self._per_source
        }
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

    def apply(
        self,
        *,
        changed: Sequence[InventoryMachine] = (),
        removed: Iterable[MachineKey] = (),
        events: Iterable[InventoryEvent] = (),
    ) -> None:
        """Take over what a source found. Machines that are equal to what is held, and known events, are passed over."""
        for key in removed:
            if self._drop(key):
                self._sequence += 1
                self._touched.pop(key, None)
                self._removed[key] = self._sequence
        for machine in changed:
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
        self._forget()

    def set_status(
        self,
        name: str,
        *,
        synced_at: datetime | None = None,
        problem: str | None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Record how a source stands; `synced_at` None keeps the time it was last whole."""
        before = self._status[name]
        self._status[name] = SourceStatus(
            name=name,
            synced_at=synced_at or before.synced_at,
            machines=self._per_source[name],
            problem=problem,
            warnings=warnings,
        )

    def get(self, key: MachineKey) -> InventoryMachine | None:
        """The machine as it was last read."""
        return self._machines.get(key)

    def of_source(self, name: str) -> tuple[InventoryMachine, ...]:
        """Every machine of one source."""
        return tuple(one for one in self._machines.values() if one.key.source == name)

    def machines(self) -> tuple[InventoryMachine, ...]:
        """Every machine, by key."""
        return tuple(self._machines[key] for key in sorted(self._machines))

    def by_ek(self, fingerprint: bytes) -> tuple[InventoryMachine, ...]:
        """Machines that list the key."""
        return tuple(self._machines[key] for key in sorted(self._by_ek.get(fingerprint, ())))

    def by_smbios(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines with this SMBIOS UUID in either spelling."""
        keys = {key for spelling in uuid_spellings(uuid) for key in self._by_uuid.get(spelling, ())}
        return tuple(self._machines[key] for key in sorted(keys))

    def status(self) -> tuple[SourceStatus, ...]:
        """How each source stands, in the order of configuration."""
        return tuple(self._status.values())

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

    def _add(self, machine: InventoryMachine) -> None:
        key = machine.key
        self._machines[key] = machine
        self._per_source[key.source] += 1
        for fingerprint in machine.ek_fingerprints:
            self._by_ek.setdefault(fingerprint, set()).add(key)
        if machine.smbios_uuid is not None:
            self._by_uuid.setdefault(machine.smbios_uuid, set()).add(key)

    def _drop(self, key: MachineKey) -> bool:
        machine = self._machines.pop(key, None)
        if machine is None:
            return False
        self._per_source[key.source] -= 1
        for fingerprint in machine.ek_fingerprints:
            _discard(self._by_ek, fingerprint, key)
        if machine.smbios_uuid is not None:
            _discard(self._by_uuid, machine.smbios_uuid, key)
        return True

    def _forget(self) -> None:
        while len(self._events) > self._journal:
            sequence, event = self._events.popleft()
            self._event_ids.discard(event.id)
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


def _discard(index: dict[_V, set[MachineKey]], value: _V, key: MachineKey) -> None:
    keys = index[value]
    keys.discard(key)
    if not keys:
        del index[value]
