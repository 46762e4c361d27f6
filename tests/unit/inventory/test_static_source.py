"""A static inventory is followed: read again when it changed, and never half."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.harness import FakeClock
from tests.unit.inventory.vsphere.conftest import named
from verifier.appraisal.inventory import EventKind
from verifier.inventory.errors import InventoryFileError, InventorySettingError
from verifier.inventory.live import open_inventory
from verifier.inventory.settings import InventorySettings, StaticSettings

HEADER = "name,smbios_uuid,ek_sha256\n"
WEB = "web,00112233-4455-6677-8899-aabbccddeeff,"
ONE, TWO = "11" * 32, "22" * 32


@asynccontextmanager
async def followed(path, clock=None):
    settings = StaticSettings(name="files", path=path, interval=timedelta(milliseconds=10))
    inventory = await open_inventory(
        InventorySettings(files=(settings,)), clock=clock or FakeClock(), environ={}
    )
    try:
        yield inventory
    finally:
        await inventory.close()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "machines.csv"
    path.write_text(HEADER + WEB + ONE + "\n")
    return path


async def has(inventory, key: str) -> bool:
    return bool(await inventory.lookup_ek(bytes.fromhex(key)))


async def problem(inventory) -> str | None:
    return (await inventory.status())[0].problem


async def test_a_changed_file_is_read_without_a_restart_and_the_changes_are_told(path):
    async with followed(path) as inventory:
        assert await has(inventory, ONE)
        path.write_text(HEADER + WEB + TWO + "\nnew,," + ONE + "\n")
        await eventually(lambda: has(inventory, TWO))
        changes = await inventory.changes(None)
        assert [(one.kind, one.machine.name, one.before, one.after) for one in changes.events] == [
            (EventKind.VTPM_REPLACED, "web", ONE, TWO),
            (EventKind.ADDED, "new", None, None),
        ]
        path.write_text(HEADER + "new,," + ONE + "\n")
        await eventually(lambda: _gone(inventory))
        assert not await has(inventory, TWO)


async def _gone(inventory) -> bool:
    return await named(inventory, "web") is None


async def test_a_broken_version_is_told_of_and_the_last_good_one_stands(path):
    clock = FakeClock()
    async with followed(path, clock) as inventory:
        (before,) = await inventory.status()
        clock.advance(minutes=5)
        path.write_text(HEADER + WEB + TWO + "\nweb2,,zz\n")
        await eventually(lambda: problem(inventory))
        (status,) = await inventory.status()
        assert status.problem == f"{path}, line 3: ek_sha256: 'zz' is not a SHA-256 in 64 hexadecimal digits"
        assert (status.synced_at, status.machines) == (before.synced_at, 1)
        assert await has(inventory, ONE)
        assert not await has(inventory, TWO)
        path.write_text(HEADER + WEB + TWO + "\n")
        await eventually(lambda: has(inventory, TWO))
        assert await problem(inventory) is None


async def test_a_file_that_vanishes_is_told_of_and_grows_old(path):
    async with followed(path) as inventory:
        path.unlink()
        assert "No such file" in await eventually(lambda: problem(inventory))
        assert await has(inventory, ONE)


async def test_a_file_that_is_wrong_from_the_start_stops_it(path):
    path.write_text("name\n")
    with pytest.raises(InventoryFileError):
        async with followed(path.with_name("other.csv")):
            pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "no name"),
        ({"path": Path("machines.txt")}, "must end in"),
        ({"interval": timedelta(0)}, "longer"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(path, changes, says):
    given = {"name": "files", "path": path} | changes
    with pytest.raises(InventorySettingError, match=says):
        StaticSettings(**given)


def test_two_sources_of_one_name_are_refused(path):
    one = StaticSettings(name="files", path=path)
    with pytest.raises(InventorySettingError, match="two inventories are called 'files'"):
        InventorySettings(files=(one, one))
