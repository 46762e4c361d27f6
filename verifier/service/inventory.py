"""What the operator's inventories say of machines, for enrolment, for people, and for the metrics.

An inventory is a reference and not evidence: whoever can write to it decides whose key is whose. What is not current
says nothing (`Outcome.INVENTORY_STALE`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from verifier.appraisal.correlate import Correlation, GuestKeys, InventoryView, Outcome, correlate
from verifier.appraisal.inventory import InventoryMachine, MachineKey, SourceStatus
from verifier.errors import EvidenceError
from verifier.ports import DEFAULT_TENANT, AttesterRecord, AttesterState, Clock, Page
from verifier.ports_inventory import Inventory
from verifier.reasons import Reason

_SLICE: Final = 500
"""Machines looked at before others get their turn on the event loop."""
_HEX: Final = frozenset("0123456789abcdef")
_EXPLAINING: Final = timedelta(days=30)
"""How far back an event may explain a finding of today."""
_NEWS_SLACK: Final = timedelta(minutes=10)
"""By so much an event may be posted late, and clocks differ."""
_BINDING_SLACK: Final = timedelta(minutes=2)
"""So long after a TPM was enrolled a source may still list the one before it."""


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
        return await self.ask(_keys(attester, attester.identity.smbios_uuid))

    async def view(self, state: AttesterState, claimed_uuid: str | None) -> InventoryView | None:
        """All that bears on one attestation; None where there is no source, or the sources are another tenant's.

        Events are news since the attester was last seen, or since before its open clone or rollback came to light.
        """
        if self._inventory is None or state.attester.tenant != DEFAULT_TENANT:
            return None
        now = self._clock.now()
        found = await self._settled(state.attester, claimed_uuid)
        events = await self._inventory.events_of([machine.key for machine in found.machines])
        incident = None if state.lineage is None else state.lineage.incident
        seen = now if state.boot is None else state.boot.seen_at
        since = seen if incident is None else min(seen, incident.since)
        return InventoryView(
            correlation=found,
            events=tuple(event for event in events if event.at >= now - _EXPLAINING),
            news_since=since - _NEWS_SLACK,
        )

    async def _settled(self, attester: AttesterRecord, claimed_uuid: str | None) -> Correlation:
        found = await self.ask(_keys(attester, claimed_uuid))
        bound_at = attester.ak_activated_at or attester.enrolled_at
        if found.outcome is Outcome.UUID_KNOWN_EK_UNKNOWN and await self._read_before(
            found, bound_at + _BINDING_SLACK
        ):
            # A vTPM that was just replaced: its guest can be faster than the source.
            return replace(
                found,
                outcome=Outcome.INVENTORY_STALE,
                explanation="the inventory was last read before, or right after, this TPM was enrolled",
            )
        return found

    async def _read_before(self, found: Correlation, moment: datetime) -> bool:
        names = {machine.key.source for machine in found.machines}
        return any(
            one.status.name in names and (one.status.synced_at is None or one.status.synced_at < moment)
            for one in await self.sources()
        )

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
        start = 0 if after is None else bisect.bisect_right(everything, after, key=lambda each: each.key)
        found: list[InventoryMachine] = []
        for number, machine in enumerate(itertools.islice(everything, start, None), 1):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            if source is not None and machine.key.source != source:
                continue
            if wanted is not None and not _has(machine, wanted):
                continue
            if len(found) == limit:
                return Page(items=tuple(found), cursor=_cursor(found[-1].key))
            found.append(machine)
        return Page(items=tuple(found), cursor=None)

    async def with_uuid(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """Machines with this instance UUID or SMBIOS UUID; one may be there twice."""
        if self._inventory is None:
            return ()
        return (
            *await self._inventory.lookup_instance(uuid),
            *await self._inventory.lookup_smbios(uuid),
        )

    def _is_stale(self, synced_at: datetime | None, now: datetime) -> bool:
        return synced_at is None or now - synced_at > self.max_age


def _keys(attester: AttesterRecord, claimed_uuid: str | None) -> GuestKeys:
    return GuestKeys(ek_fingerprint=attester.ek_fingerprint, smbios_uuid=claimed_uuid or None)


def _has(machine: InventoryMachine, wanted: str) -> bool:
    """Whether some text of the machine has this in it; what is compared last costs most to put into words."""
    return (
        wanted in machine.name.casefold()
        or wanted in machine.key.id.casefold()
        or any(wanted in uuid.casefold() for uuid in (machine.smbios_uuid, machine.instance_uuid) if uuid)
        or any(wanted in f"{key}={value}".casefold() for key, value in machine.labels.items())
        or (_HEX.issuperset(wanted) and any(wanted in one.hex() for one in machine.ek_fingerprints))
    )


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
