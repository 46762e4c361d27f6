"""Asked for by an operator, every source is read now and not when its time has come."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.harness import FakeClock
from tests.simulator import SoftwareTpm
from tests.unit.inventory.vsphere.conftest import eventually, named, status_of
from verifier.crypto.cert_reader import parse_certificate
from verifier.inventory.errors import InventoryFileError
from verifier.inventory.live import open_inventory
from verifier.inventory.settings import InventorySettings, StaticSettings
from verifier.inventory.static_files import read_static

HOURS = timedelta(hours=5)


async def test_a_file_is_read_and_what_is_wrong_with_it_is_told_without_waiting(tmp_path):
    path, clock = tmp_path / "machines.csv", FakeClock()
    path.write_text(f"name,ek_sha256\nweb,{'ab' * 32}\n")
    settings = StaticSettings(name="hw", path=path, interval=HOURS)
    inventory = await open_inventory(InventorySettings(files=(settings,)), clock=clock, environ={})
    try:
        read_at = clock.now()
        path.write_text(f"name,ek_sha256\nweb,{'ab' * 32}\nweb,{'cd' * 32}\n")
        clock.advance(hours=1)
        await inventory.sync()
        status = await status_of(inventory, "hw")
        assert "line 3: name: 'web' is on line 2 already" in str(status.problem)
        assert (status.synced_at, status.machines) == (read_at, 1)
        path.write_text(f"name,ek_sha256\nweb,{'ab' * 32}\ndb,{'cd' * 32}\n")
        await inventory.sync()
        status = await status_of(inventory, "hw")
        assert (status.problem, status.synced_at, status.machines) == (None, clock.now(), 2)
    finally:
        await inventory.close()


async def test_a_certificate_file_that_is_replaced_is_noticed(tmp_path):
    ours, theirs = (SoftwareTpm(seed).ek_certificate for seed in (1, 2))
    path = tmp_path / "machines.csv"
    path.write_text("name,ek_certificate_file\nweb,ek.der\n")
    (tmp_path / "ek.der").write_bytes(ours)
    settings = StaticSettings(name="hw", path=path, interval=HOURS)
    inventory = await open_inventory(InventorySettings(files=(settings,)), clock=FakeClock(), environ={})
    try:
        await inventory.sync()
        assert await inventory.lookup_ek(parse_certificate(ours).key_fingerprint)
        (tmp_path / "ek.der").write_bytes(theirs)
        await inventory.sync()
        assert await inventory.lookup_ek(parse_certificate(theirs).key_fingerprint)
        assert not await inventory.lookup_ek(parse_certificate(ours).key_fingerprint)
    finally:
        await inventory.close()


async def test_a_vcenter_is_read_anew_though_nothing_changed_there(vcenter):
    for number in range(3):
        vcenter.estate.add(f"web-{number}")
    async with vcenter.synced() as inventory:
        assert [len(page) for page in vcenter.service.read] == [3]
        await inventory.sync()
        await eventually(lambda: len(vcenter.service.read) > 1)
        assert [len(page) for page in vcenter.service.read] == [3, 3]
        assert await named(inventory, "web-2")


async def test_one_that_was_down_is_tried_at_once(vcenter):
    vcenter.estate.add("web")
    vcenter.endpoint.stop()
    async with vcenter.followed(retry=HOURS) as inventory:
        # Pauses double: after a few attempts the next one would be far away.
        for _ in range(8):
            await asyncio.sleep(0.05)
            await inventory.sync()
        await eventually(lambda: _failing(inventory))
        vcenter.endpoint.start()
        await inventory.sync()
        assert await eventually(lambda: named(inventory, "web"))


async def _failing(inventory):
    return (await status_of(inventory)).problem


async def test_a_refused_password_is_not_sent_again_because_somebody_asks(vcenter):
    vcenter.password.write_text("wrong")
    async with vcenter.followed() as inventory:
        await eventually(lambda: _failing(inventory))
        for _ in range(5):
            await inventory.sync()
            await asyncio.sleep(0.05)
        assert vcenter.service.attempts == ["wrong"]


def test_a_machines_name_has_a_bound(tmp_path):
    path = tmp_path / "machines.csv"
    path.write_text(f"name,ek_sha256\n{'n' * 201},{'ab' * 32}\n")
    with pytest.raises(InventoryFileError, match="line 2: name: longer than 200 characters"):
        read_static("hw", path)
