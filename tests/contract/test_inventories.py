"""What inventories said, on every Store: as it was kept, each event once, of its tenant only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from tests.contract.records import MINUTE, NOW
from verifier.appraisal.inventory import (
    EventKind,
    InventoryEvent,
    InventoryMachine,
    MachineKey,
    MachineRef,
    Snapshot,
)
from verifier.ports_enrollment import AuditEntry
from verifier.ports_inventory import HeldInventory, InventoryUpdate

OTHER = "other-tenant"
WEB = InventoryMachine(
    key=MachineKey("dc1", "vm-10"),
    name="web \u201cone\u201d",
    instance_uuid="11111111-2222-3333-4444-555555555555",
    smbios_uuid="00112233-4455-6677-8899-aabbccddeeff",
    ek_fingerprints=frozenset({b"\x00" * 32, b"\xff" * 32}),
    ek_certificates=(b"certificate",),
    ek_since=NOW,
    has_vtpm=True,
    secure_boot=False,
    encrypted_key_id="native/key-1",
    snapshots=(Snapshot(id="snapshot-1", name="monday", created=NOW, current=True),),
    vcenter="vcenter.example",
    labels={"site": "north"},
    problems=("config.keyId: the user may not read it",),
)
FILE = InventoryMachine(key=MachineKey("files", "printer"), name="printer")


def event(number: int = 1, machine: InventoryMachine = WEB, **changes) -> InventoryEvent:
    made = InventoryEvent(
        id=f"dc1:event-{number}",
        kind=EventKind.SNAPSHOT_REVERTED,
        at=NOW + number * MINUTE,
        machine=machine.ref,
        after="monday",
    )
    return replace(made, **changes)


def audit(subject: str = "att-1") -> AuditEntry:
    return AuditEntry(
        tenant="default",
        at=NOW,
        actor="inventory",
        action="inventory.snapshot-reverted",
        subject=subject,
        reason="",
    )


async def held(store, *sources: str, tenant: str = "default", events: int = 100) -> HeldInventory:
    return await store.held_inventory(tenant, sources=sources, events=events)


async def listed(store, tenant: str = "default", **filters) -> list[str]:
    asked = {"machines": None, "kind": None, "before": None, "limit": 100} | filters
    return [one.event.id for one in await store.inventory_events(tenant, **asked)]


async def test_machines_come_back_as_they_were_kept_but_for_their_certificates(store):
    synced = {"dc1": NOW, "files": NOW - MINUTE}
    await store.keep_inventory("default", InventoryUpdate(machines=[WEB, FILE], synced_at=synced), NOW)
    found = await held(store, "dc1", "files")
    assert {one.key for one in found.machines} == {WEB.key, FILE.key}
    assert replace(WEB, ek_certificates=()) in found.machines
    assert FILE in found.machines
    assert found.synced_at == synced
    assert await held(store, "dc1", "files", tenant=OTHER) == HeldInventory()


async def test_a_machine_that_changed_or_went_is_not_what_it_was(store):
    await store.keep_inventory("default", InventoryUpdate(machines=[WEB, FILE]), NOW)
    renamed = replace(WEB, name="renamed", ek_certificates=())
    update = InventoryUpdate(machines=[renamed], removed=[FILE.key, MachineKey("dc1", "never")])
    await store.keep_inventory("default", update, NOW)
    assert (await held(store, "dc1", "files")).machines == (renamed,)


async def test_what_was_kept_of_sources_that_are_no_more_is_dropped_but_for_their_history(store):
    await store.keep_inventory(
        "default",
        InventoryUpdate(machines=[WEB, FILE], events=[(event(), None)], synced_at={"dc1": NOW, "files": NOW}),
        NOW,
    )
    found = await held(store, "files")
    assert (found.machines, found.events, found.synced_at) == ((FILE,), (), {"files": NOW})
    assert (await held(store, "dc1", "files")).machines == (FILE,)
    assert await listed(store) == ["dc1:event-1"]


async def test_an_event_is_kept_once_with_one_audit_entry_whoever_reads_it(store):
    update = InventoryUpdate(events=[(event(1), audit()), (event(2), None)])
    results = await asyncio.gather(*(store.keep_inventory("default", update, NOW) for _ in range(8)))
    assert sorted(one for result in results for one in result) == ["dc1:event-1", "dc1:event-2"]
    entries = await store.list_audit("default", subject="att-1", before=None, limit=10)
    assert [(one.action, one.actor) for one in entries] == [("inventory.snapshot-reverted", "inventory")]
    assert await store.keep_inventory(OTHER, update, NOW) == {"dc1:event-1", "dc1:event-2"}


async def test_events_are_listed_newest_first_in_pages_and_by_machine_and_kind(store):
    clone = event(
        3,
        FILE,
        kind=EventKind.CLONED,
        origin=MachineRef(WEB.key, "web"),
        before=None,
        after=None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    events = [event(1), event(2, FILE), clone, event(4)]
    await store.keep_inventory("default", InventoryUpdate(events=[(one, None) for one in events]), NOW)
    assert await listed(store) == [f"dc1:event-{number}" for number in (4, 3, 2, 1)]
    first = await store.inventory_events("default", machines=None, kind=None, before=None, limit=2)
    assert first[1].event == clone
    assert await listed(store, before=first[1].sequence) == ["dc1:event-2", "dc1:event-1"]
    assert await listed(store, machines=[WEB.key]) == [f"dc1:event-{number}" for number in (4, 3, 1)]
    assert await listed(store, machines=[]) == []
    assert await listed(store, kind=EventKind.CLONED) == ["dc1:event-3"]
    assert await listed(store, OTHER) == []


async def test_events_older_than_the_history_are_purged(store):
    update = InventoryUpdate(events=[(event(number), None) for number in range(5)])
    await store.keep_inventory("default", update, NOW)
    assert await store.purge_inventory_events(NOW + 3 * MINUTE) == 3
    assert await listed(store) == ["dc1:event-4", "dc1:event-3"]
