"""The registry: indexes that follow every change, cursors that tell all changes once, a journal with an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from verifier.appraisal.inventory import EventKind, InventoryEvent, InventoryMachine, MachineKey
from verifier.inventory.registry import Registry, SourceName

NOW = datetime(2026, 11, 28, tzinfo=UTC)
UUIDS = [f"00112233-4455-6677-8899-aabbccddee{number:02x}" for number in range(3)]


def machine(number: int, key: int = 0, uuid: int = 0) -> InventoryMachine:
    return InventoryMachine(
        key=MachineKey("dc1", f"vm-{number}"),
        name=f"m{number}",
        smbios_uuid=UUIDS[uuid],
        ek_fingerprints=frozenset({bytes([key]) * 32}),
    )


def event(number: int) -> InventoryEvent:
    return InventoryEvent(
        id=str(number), kind=EventKind.SNAPSHOT_REVERTED, at=NOW, machine=machine(number).ref
    )


machines = st.builds(machine, st.integers(0, 4), st.integers(0, 2), st.integers(0, 2))
steps = st.lists(st.tuples(st.lists(machines, max_size=3), st.lists(st.integers(0, 4), max_size=2)))


@given(steps)
def test_whoever_follows_the_cursor_knows_what_whoever_asks_for_all_knows(steps):
    registry = Registry([SourceName("dc1", "vsphere", "vcenter")], journal=4)
    mirrored: dict[MachineKey, InventoryMachine] = {}
    cursor = None
    for changed, removed in steps:
        registry.apply(changed=changed, removed=[MachineKey("dc1", f"vm-{one}") for one in removed])
        changes = registry.changes(cursor)
        if changes.complete:
            mirrored.clear()
        for key in changes.removed:
            mirrored.pop(key, None)
        mirrored |= {one.key: one for one in changes.machines}
        cursor = changes.cursor
        assert mirrored == {one.key: one for one in registry.machines()}
        for key in range(3):
            listed = [one for one in registry.machines() if bytes([key]) * 32 in one.ek_fingerprints]
            assert list(registry.by_ek(bytes([key]) * 32)) == listed
        for uuid in UUIDS:
            listed = [one for one in registry.machines() if one.smbios_uuid == uuid]
            assert list(registry.by_smbios(uuid)) == listed


def test_what_is_equal_is_no_change():
    registry = Registry([SourceName("dc1", "vsphere", "vcenter")])
    registry.apply(changed=[machine(1)])
    cursor = registry.changes(None).cursor
    registry.apply(changed=[machine(1)], events=[])
    assert registry.changes(cursor).machines == ()
    registry.apply(changed=[replace(machine(1), name="other")])
    assert [one.name for one in registry.changes(cursor).machines] == ["other"]


def test_an_event_read_twice_is_told_once():
    registry = Registry([SourceName("dc1", "vsphere", "vcenter")])
    registry.apply(events=[event(1), event(2)])
    cursor = registry.changes(None).cursor
    registry.apply(events=[event(2), event(3)])
    assert [one.id for one in registry.changes(cursor).events] == ["3"]


def test_a_cursor_that_is_too_old_or_of_another_process_gets_everything():
    registry = Registry([SourceName("dc1", "vsphere", "vcenter")], journal=3)
    registry.apply(changed=[machine(1)])
    old = registry.changes(None).cursor
    registry.apply(events=[event(number) for number in range(5)])
    assert registry.changes(old).complete
    assert [one.id for one in registry.changes(old).events] == ["2", "3", "4"]
    for strange in ("", "x", ".", "other.1", f"{old}0", f"{old.partition('.')[0]}.-1"):
        assert registry.changes(strange).complete, strange
