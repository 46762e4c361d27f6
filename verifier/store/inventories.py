"""What inventories said: their machines as last read, and what happened to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, or_, select

from verifier.appraisal.inventory import EventKind, InventoryEvent, InventoryMachine, MachineKey
from verifier.ports_inventory import HeldInventory, InventoryUpdate, KeptEvent
from verifier.store import values
from verifier.store.audit_log import append
from verifier.store.backend import StorePart, changed
from verifier.store.rows import Values
from verifier.store.schema_watched import inventory_event, inventory_machine, inventory_source
from verifier.store.statements import InsertInto

_PURGE_CHUNK: Final = 1000


class Inventories(StorePart):
    """The inventory methods of the `Store` port."""

    async def held_inventory(self, tenant: str, *, sources: Collection[str], events: int) -> HeldInventory:
        """What was kept of these sources; machines of others are dropped."""
        names = tuple(sources)
        await self._backend.write(lambda connection: _drop_others(connection, tenant, names))
        machines = await self._backend.rows(
            select(inventory_machine.c.document).where(
                inventory_machine.c.tenant == tenant, inventory_machine.c.source.in_(names)
            )
        )
        synced = await self._backend.rows(
            select(inventory_source.c.name, inventory_source.c.synced_at).where(
                inventory_source.c.tenant == tenant, inventory_source.c.name.in_(names)
            )
        )
        kept = await self.inventory_events(tenant, machines=None, kind=None, before=None, limit=events)
        return HeldInventory(
            machines=tuple(values.read_machine(document) for (document,) in machines),
            events=tuple(one.event for one in kept if one.event.machine.key.source in names),
            synced_at={name: values.moment(at) for name, at in synced},
        )

    async def keep_inventory(self, tenant: str, update: InventoryUpdate, now: datetime) -> frozenset[str]:
        """Keep machines, events and their audit entries in one transaction; the ids of the events that are new."""
        into = self._backend.insert
        return await self._backend.write(lambda connection: _keep(connection, into, tenant, update, now))

    async def inventory_events(
        self,
        tenant: str,
        *,
        machines: Collection[MachineKey] | None,
        kind: EventKind | None,
        before: int | None,
        limit: int,
    ) -> Sequence[KeptEvent]:
        """Newest first."""
        table = inventory_event.c
        query = select(table.sequence, table.document).where(table.tenant == tenant)
        if machines is not None:
            keys = tuple(map(str, machines))
            query = query.where(or_(table.machine.in_(keys), table.origin.in_(keys)))
        if kind is not None:
            query = query.where(table.kind == kind.value)
        if before is not None:
            query = query.where(table.sequence < before)
        rows = await self._backend.rows(query.order_by(table.sequence.desc()).limit(limit))
        return tuple(
            KeptEvent(sequence, values.read_inventory_event(document)) for sequence, document in rows
        )

    async def purge_inventory_events(self, before: datetime) -> int:
        """Drop old events, in short transactions."""
        key = inventory_event.c.sequence
        old = select(key).where(inventory_event.c.at < values.micros(before)).limit(_PURGE_CHUNK)
        gone, dropped = 0, _PURGE_CHUNK
        while dropped == _PURGE_CHUNK:
            dropped = await self._change(delete(inventory_event).where(key.in_(old)))
            gone += dropped
        return gone


def _drop_others(connection: Connection, tenant: str, sources: tuple[str, ...]) -> None:
    for table, name in (
        (inventory_machine, inventory_machine.c.source),
        (inventory_source, inventory_source.c.name),
    ):
        connection.execute(delete(table).where(table.c.tenant == tenant, name.not_in(sources)))


def _keep(
    connection: Connection, into: InsertInto, tenant: str, update: InventoryUpdate, now: datetime
) -> frozenset[str]:
    if update.machines:
        new = into(inventory_machine)
        changes = {name: new.excluded[name] for name in ("document", "kept_at")}
        upsert = new.on_conflict_do_update(index_elements=["tenant", "source", "id"], set_=changes)
        # In the order of their keys, so that replicas do not wait for each other in a circle.
        ordered = sorted(update.machines, key=lambda machine: machine.key)
        connection.execute(upsert, [_machine_row(tenant, machine, now) for machine in ordered])
    for key in sorted(update.removed):
        connection.execute(
            delete(inventory_machine).where(
                inventory_machine.c.tenant == tenant,
                inventory_machine.c.source == key.source,
                inventory_machine.c.id == key.id,
            )
        )
    for name, at in sorted(update.synced_at.items()):
        row = {"synced_at": values.micros(at)}
        source = into(inventory_source).values(tenant=tenant, name=name, **row)
        connection.execute(source.on_conflict_do_update(index_elements=["tenant", "name"], set_=row))
    return frozenset(_new_events(connection, into, tenant, update))


def _new_events(connection: Connection, into: InsertInto, tenant: str, update: InventoryUpdate) -> list[str]:
    fresh = []
    for event, entry in update.events:
        new = into(inventory_event).values(_event_row(tenant, event))
        if changed(connection, new.on_conflict_do_nothing(index_elements=["tenant", "id"])) != 1:
            continue
        fresh.append(event.id)
        if entry is not None:
            append(connection, entry)
    return fresh


def _machine_row(tenant: str, machine: InventoryMachine, now: datetime) -> Values:
    """Certificates are large, and read again with the first sync; the keys in them are what is asked for."""
    return {
        "tenant": tenant,
        "source": machine.key.source,
        "id": machine.key.id,
        "document": values.json_text(replace(machine, ek_certificates=())),
        "kept_at": values.micros(now),
    }


def _event_row(tenant: str, event: InventoryEvent) -> Values:
    return {
        "tenant": tenant,
        "id": event.id,
        "at": values.micros(event.at),
        "kind": event.kind.value,
        "machine": str(event.machine.key),
        "origin": None if event.origin is None else str(event.origin.key),
        "document": values.json_text(event),
    }
