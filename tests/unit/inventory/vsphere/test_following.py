"""What happens to machines while they are followed: told once, in order, with who did what to whom."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.eventually import eventually
from tests.unit.inventory.vsphere.conftest import named, status_of, whole
from tests.vsphere_endpoint import Endpoint
from verifier.appraisal.correlate import GuestKeys, Outcome, correlate
from verifier.appraisal.inventory import EventKind, InventoryEvent
from verifier.inventory.eks import certificate_fingerprint


async def events(inventory, *kinds: EventKind) -> list[InventoryEvent]:
    return [one for one in (await inventory.changes(None)).events if one.kind in kinds]


async def judged(inventory, certificate: bytes, claimed: str | None):
    """As the service asks: EK proven, UUID claimed."""
    guest = GuestKeys(ek_fingerprint=certificate_fingerprint(certificate), smbios_uuid=claimed)
    return correlate(
        guest,
        by_ek=await inventory.lookup_ek(guest.ek_fingerprint),
        by_uuid=() if claimed is None else await inventory.lookup_smbios(claimed),
        sources=await inventory.status(),
        now=datetime.now(UTC),
        max_age=timedelta(hours=1),
    )


async def test_a_clone_that_copies_the_vtpm_is_seen_as_one(vcenter):
    web = vcenter.estate.add("web")
    key = web.ek_certificates[0]
    async with vcenter.synced() as inventory:
        assert (await judged(inventory, key, web.config.uuid)).outcome is Outcome.MATCH
        copy = vcenter.estate.clone(web, "copy")
        (told,) = await eventually(lambda: events(inventory, EventKind.CLONED))
        assert (told.machine.name, told.origin.name) == ("copy", "web")
        assert (told.machine.key.id, told.origin.key.id) == (copy.moid, web.moid)
        found = await judged(inventory, key, copy.config.uuid)
    assert found.outcome is Outcome.EK_ON_SEVERAL_MACHINES
    assert {one.name for one in found.machines} == {"web", "copy"}
    assert found.machine.name == "copy"


async def test_a_clone_that_replaces_the_vtpm_is_a_machine_of_its_own(vcenter):
    web = vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        other = vcenter.estate.clone(web, "other", policy="replace")
        assert await eventually(lambda: events(inventory, EventKind.CLONED))
        for machine in (web, other):
            for key in machine.ek_certificates:
                found = await judged(inventory, key, machine.config.uuid)
                assert (found.outcome, found.machine.name) == (Outcome.MATCH, machine.name)


async def test_machines_deployed_from_a_template_share_its_vtpm(vcenter):
    golden = vcenter.estate.add("golden", template=True)
    async with vcenter.synced() as inventory:
        first = vcenter.estate.deploy(golden, "first")
        (told,) = await eventually(lambda: events(inventory, EventKind.CLONED))
        assert (told.machine.name, told.origin.name) == ("first", "golden")
        found = await judged(inventory, golden.ek_certificates[0], first.config.uuid)
    assert found.outcome is Outcome.EK_ON_SEVERAL_MACHINES
    assert "golden (dc1/vm-10) (a template)" in found.explanation


async def test_a_replaced_vtpm_is_told_of_and_the_old_key_no_longer_belongs(vcenter):
    web = vcenter.estate.add("web")
    old = web.ek_certificates
    async with vcenter.synced() as inventory:
        vcenter.estate.replace_vtpm(web)
        (told,) = await eventually(lambda: events(inventory, EventKind.VTPM_REPLACED))
        assert set(told.before.split(",")) == {certificate_fingerprint(one).hex() for one in old}
        assert set(told.after.split(",")) == {
            certificate_fingerprint(one).hex() for one in web.ek_certificates
        }
        assert (await judged(inventory, old[0], web.config.uuid)).outcome is Outcome.UUID_KNOWN_EK_UNKNOWN
        new = await judged(inventory, web.ek_certificates[0], web.config.uuid)
        assert (new.outcome, new.machine.name) == (Outcome.MATCH, "web")


async def test_changed_uuids_are_told_with_before_and_after(vcenter):
    web = vcenter.estate.add("web")
    key, before, instance = web.ek_certificates[0], web.config.uuid, web.config.instanceUuid
    new, new_instance = str(uuid.uuid4()), str(uuid.uuid4())
    async with vcenter.synced() as inventory:
        vcenter.estate.set_uuid(web, new.upper())
        vcenter.estate.set_instance_uuid(web, new_instance)
        await eventually(lambda: _two(inventory))
        changed, moved = await events(inventory, EventKind.UUID_CHANGED, EventKind.INSTANCE_UUID_CHANGED)
        assert (changed.kind, changed.before, changed.after) == (EventKind.UUID_CHANGED, before, new)
        assert (moved.before, moved.after) == (instance, new_instance)
        found = await named(inventory, "web")
        assert (found.smbios_uuid, found.instance_uuid) == (new, new_instance)
        # The guest reads its UUID when it boots: until then it says what it was.
        assert (await judged(inventory, key, before)).outcome is Outcome.EK_OF_ANOTHER_MACHINE
        assert (await judged(inventory, key, new)).outcome is Outcome.MATCH
        assert await inventory.lookup_smbios(before) == ()


async def _two(inventory) -> bool:
    return len(await events(inventory, EventKind.UUID_CHANGED, EventKind.INSTANCE_UUID_CHANGED)) == 2


async def test_a_revert_names_its_snapshot(vcenter):
    web = vcenter.estate.add("web")
    vcenter.estate.take_snapshot(web, "monday")
    vcenter.estate.take_snapshot(web, "tuesday")
    async with vcenter.synced() as inventory:
        vcenter.estate.power_on(web)
        vcenter.estate.revert(web, "monday")
        (told,) = await eventually(lambda: events(inventory, EventKind.SNAPSHOT_REVERTED))
        assert (told.machine.name, told.after) == ("web", "monday")
        current = [one.name for one in (await named(inventory, "web")).snapshots if one.current]
    assert current == ["monday"]


async def test_machines_come_and_go_and_only_changes_are_told_after_a_cursor(vcenter):
    web = vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        cursor = (await inventory.changes(None)).cursor
        database = vcenter.estate.add("database")
        await eventually(lambda: named(inventory, "database"))
        vcenter.estate.remove(web)
        await eventually(lambda: _gone(inventory, "web"))
        changes = await inventory.changes(cursor)
        assert not changes.complete
        assert [one.name for one in changes.machines] == ["database"]
        assert [one.id for one in changes.removed] == [web.moid]
        assert [(one.kind, one.machine.name) for one in changes.events] == [
            (EventKind.ADDED, "database"),
            (EventKind.REMOVED, "web"),
        ]
        assert (await inventory.changes(changes.cursor)).machines == ()
        assert await inventory.lookup_smbios(web.config.uuid) == ()
        assert [one.key.id for one in await inventory.lookup_smbios(database.config.uuid)] == [database.moid]


async def _gone(inventory, name: str) -> bool:
    return await named(inventory, name) is None


async def test_what_happened_while_nobody_listened_is_told_by_the_next_session_once(vcenter):
    web = vcenter.estate.add("web")
    gone = vcenter.estate.add("gone")
    vcenter.estate.take_snapshot(web, "monday")
    async with vcenter.synced() as inventory:
        vcenter.estate.revert(web, "monday")
        await eventually(lambda: events(inventory, EventKind.SNAPSHOT_REVERTED))
        vcenter.endpoint.stop()
        await eventually(lambda: _problem(inventory))
        vcenter.estate.replace_vtpm(web)
        vcenter.estate.clone(web, "copy")
        vcenter.estate.remove(gone)
        vcenter.endpoint.start()
        await eventually(lambda: events(inventory, EventKind.CLONED))
        await eventually(lambda: _no_problem(inventory))
        told = [(one.kind.value, one.machine.name) for one in (await inventory.changes(None)).events]
    assert sorted(told) == [
        ("added", "copy"),
        ("cloned", "copy"),
        ("removed", "gone"),
        ("snapshot-reverted", "web"),
        ("vtpm-replaced", "web"),
    ]


async def _problem(inventory) -> str | None:
    return (await status_of(inventory)).problem


async def _no_problem(inventory) -> bool:
    return (await status_of(inventory)).problem is None


async def test_events_of_before_the_first_connection_are_read_too(vcenter):
    web = vcenter.estate.add("web")
    vcenter.estate.clone(web, "copy")
    async with vcenter.synced() as inventory:
        (told,) = await events(inventory, EventKind.CLONED)
        assert told.origin.name == "web"
        # Of machines that are there at first, nothing is known to be new.
        assert await events(inventory, EventKind.ADDED) == []


async def test_without_the_right_to_read_events_the_rest_works_and_it_is_told(vcenter):
    vcenter.service.may_read_events = False
    web = vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        vcenter.estate.clone(web, "copy")
        await eventually(lambda: named(inventory, "copy"))
        assert await events(inventory, EventKind.CLONED) == []
        assert (await status_of(inventory)).warnings == (
            "the user may not read events: clones and reverts are not told of",
        )


async def test_two_vcenters_are_one_inventory_and_a_copy_between_them_is_found(vcenter, tls):
    web = vcenter.estate.add("web")
    with Endpoint(tls, login=("reader@vsphere.local", "correct horse")) as south:
        # The machine's files, registered at another vCenter: every UUID and key is the same.
        moved = south.estate.add("web", uuid=web.config.uuid, instanceUuid=web.config.instanceUuid)
        moved.config.hardware.device = list(web.config.hardware.device)
        second = replace(vcenter.settings, name="dc2", port=south.port)
        async with vcenter.followed(second) as inventory:
            await eventually(lambda: whole(inventory))
            found = await judged(inventory, web.ek_certificates[0], web.config.uuid)
            assert found.outcome is Outcome.EK_ON_SEVERAL_MACHINES
            assert {one.key.source for one in found.machines} == {"dc1", "dc2"}
            south.stop()
            await eventually(lambda: _problem_of(inventory, "dc2"))
            assert (await status_of(inventory, "dc1")).problem is None


async def _problem_of(inventory, name: str) -> str | None:
    return (await status_of(inventory, name)).problem


@pytest.mark.parametrize("when", ["between", "during"])
async def test_a_machine_that_vanishes_while_it_is_read_holds_nothing_up(vcenter, when):
    machines = [vcenter.estate.add(f"m{number}", tpm=False) for number in range(5)]
    doomed = [machines[2]] if when == "between" else [machines[0], machines[4]]

    def vanish(_call) -> None:
        vcenter.service.before.clear()
        for one in doomed:
            vcenter.estate.remove(one)

    vcenter.service.before["RetrievePropertiesEx"] = vanish
    async with vcenter.synced() as inventory:
        names = {one.name for one in await inventory.machines()}
    assert names == {one.name for one in machines} - {one.name for one in doomed}
