"""What the operator's inventories say of machines, for enrolment, for people, and for the metrics.

An inventory is a reference and not evidence: whoever can write to it decides whose key is whose. What is not current
says nothing (`Outcome.INVENTORY_STALE`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from verifier.appraisal.correlate import Correlation, GuestKeys, correlate
from verifier.appraisal.inventory import InventoryChanges, InventoryMachine, MachineKey, SourceStatus
from verifier.errors import EvidenceError
from verifier.ports import AttesterRecord, Clock, Inventory, Page
from verifier.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a source stands. `stale`: nothing may rest on what it says."""

    status: SourceStatus
    stale: bool


class InventoryService:
    """Asks the configured sources, if there are any. Reads answer from memory."""

    def __init__(self, inventory: Inventory | None, clock: Clock, max_age: timedelta) -> None:
        self._inventory = inventory
        self._clock = clock
        self.max_age = max_age

    @property
    def configured(self) -> bool:
        """Whether there is a source to ask."""
        return self._inventory is not None

    async def ask(self, guest: GuestKeys) -> Correlation:
        """Which machine is this? Without a source: no machine that is known."""
        if self._inventory is None:
            by_ek: Sequence[InventoryMachine] = ()
            by_uuid: Sequence[InventoryMachine] = ()
            sources: Sequence[SourceStatus] = ()
        else:
            by_ek = await self._inventory.lookup_ek(guest.ek_fingerprint)
            by_uuid = (
                () if guest.smbios_uuid is None else await self._inventory.lookup_smbios(guest.smbios_uuid)
            )
            sources = await self._inventory.status()
        return correlate(
            guest,
            by_ek=by_ek,
            by_uuid=by_uuid,
            sources=sources,
            now=self._clock.now(),
            max_age=self.max_age,
        )

    async def about(self, attester: AttesterRecord) -> Correlation | None:
        """What the sources say now of an enrolled machine; None where there is no source."""
        if self._inventory is None:
            return None
        keys = GuestKeys(
            ek_fingerprint=attester.ek_fingerprint, smbios_uuid=attester.identity.smbios_uuid or None
        )
        return await self.ask(keys)

    async def sources(self) -> tuple[Standing, ...]:
        """Every source, in the order of configuration."""
        if self._inventory is None:
            return ()
        now = self._clock.now()
        return tuple(
            Standing(status=one, stale=self._is_stale(one.synced_at, now))
            for one in await self._inventory.status()
        )

    async def sync(self) -> tuple[Standing, ...]:
        """Have every source read anew: files before this returns, vCenters as soon as they answer."""
        if self._inventory is not None:
            await self._inventory.sync()
        return await self.sources()

    async def machines(
        self, search: str | None, source: str | None, cursor: str | None, limit: int
    ) -> Page[InventoryMachine]:
        """One page of machines, by source and id.

        Args:
            search: part of a name, id, UUID, EK fingerprint (hex) or label (`key=value`), in any case.
            source: only of this source.
            cursor: of the page before.
            limit: machines of a page.

        Raises:
            EvidenceError: `malformed-request` for a cursor that is none.
        """
        after = None if cursor is None else _position(cursor)
        everything = () if self._inventory is None else await self._inventory.machines()
        wanted = None if search is None else search.casefold()
        found: list[InventoryMachine] = []
        for machine in everything:
            if after is not None and machine.key <= after:
                continue
            if source is not None and machine.key.source != source:
                continue
            if wanted is not None and not any(wanted in text for text in _texts(machine)):
                continue
            if len(found) == limit:
                return Page(items=tuple(found), cursor=_cursor(found[-1].key))
            found.append(machine)
        return Page(items=tuple(found), cursor=None)

    async def changes(self, since: str | None) -> InventoryChanges | None:
        """What happened to machines since a cursor; None without a source."""
        return None if self._inventory is None else await self._inventory.changes(since)

    def _is_stale(self, synced_at: datetime | None, now: datetime) -> bool:
        return synced_at is None or now - synced_at > self.max_age


def _texts(machine: InventoryMachine) -> tuple[str, ...]:
    told = (machine.name, machine.key.id, machine.smbios_uuid or "", machine.instance_uuid or "")
    keys = tuple(one.hex() for one in machine.ek_fingerprints)
    labels = tuple(f"{key}={value}" for key, value in machine.labels.items())
    return tuple(text.casefold() for text in (*told, *keys, *labels))


def _cursor(key: MachineKey) -> str:
    return base64.urlsafe_b64encode(f"{key.source}/{key.id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> MachineKey:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, "not a cursor of this listing", structure="query"
        ) from error
    source, _, name = text.partition("/")
    return MachineKey(source, name)
