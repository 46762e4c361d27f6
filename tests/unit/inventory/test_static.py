"""Inventory files: what is read of them, the line of every mistake, and what happens when they change."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta

import pytest

from tests import pki
from tests.harness import FakeClock
from tests.simulator import SoftwareTpm
from verifier.appraisal.inventory import EventKind
from verifier.crypto.cert_reader import parse_certificate
from verifier.inventory.errors import InventoryFileError, InventorySettingError
from verifier.inventory.live import open_inventory
from verifier.inventory.settings import InventorySettings, StaticSettings
from verifier.inventory.static_files import read_static

UUID = "4c4c4544-0042-3510-8052-b4c04f4b3132"
OTHER = "4c4c4544-0042-3510-8052-b4c04f4b9999"
EK = "ab" * 32
CERTIFICATE = SoftwareTpm(1).ek_certificate


def written(folder, text: str, name: str = "machines.csv"):
    path = folder / name
    path.write_text(text)
    return path


def read(folder, text: str, name: str = "machines.csv"):
    return read_static("hw", written(folder, text, name)).machines


def key_of(certificate: bytes) -> bytes:
    return parse_certificate(certificate).key_fingerprint


def test_a_csv_of_every_column_is_read(tmp_path):
    (tmp_path / "ek.pem").write_bytes(pki.pem("CERTIFICATE", CERTIFICATE))
    text = (
        "name,smbios_uuid,instance_uuid,secure_boot,ek_sha256,ek_certificate,ek_certificate_file,label.site\n"
        f"web-1,{UUID.upper()},{OTHER},true,{EK};{':'.join(['CD'] * 32)},,,north\n"
        f"web-2,,,,,{base64.b64encode(CERTIFICATE).decode()},,\n"
        "web-3,,,false,,,ek.pem,\n"
    )
    first, second, third = read(tmp_path, text)
    assert (first.name, first.smbios_uuid, first.instance_uuid) == ("web-1", UUID, OTHER)
    assert first.ek_fingerprints == {bytes.fromhex(EK), b"\xcd" * 32}
    assert (first.secure_boot, dict(first.labels)) == (True, {"site": "north"})
    assert str(first.key) == "hw/web-1"
    assert second.ek_fingerprints == third.ek_fingerprints == {key_of(CERTIFICATE)}
    assert (second.secure_boot, third.secure_boot, second.labels) == (None, False, {})
    assert first.has_vtpm is None


def test_json_says_the_same_as_csv(tmp_path):
    machine = {
        "name": "web-1",
        "smbios_uuid": UUID,
        "instance_uuid": OTHER,
        "secure_boot": True,
        "ek_sha256": [EK],
        "labels": {"site": "north"},
    }
    csv = f"name,smbios_uuid,instance_uuid,secure_boot,ek_sha256,label.site\nweb-1,{UUID},{OTHER},true,{EK},north\n"
    assert read(tmp_path, json.dumps([machine]), "machines.json") == read(tmp_path, csv)
    assert read(tmp_path, " [ ]\n", "empty.json") == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no header line"),
        ("smbios_uuid\n", 1, "name: the column is missing"),
        ("name,ek_sha1\n", 1, "ek_sha1: unknown column; there are name, smbios_uuid"),
        ("name,name\n", 1, "the column is there twice"),
        (f"name,ek_sha256\na,{EK}\nb\n", 3, "1 fields, where the header has 2"),
        (f"name,ek_sha256\na,{EK}\n\na,{EK}\n", 4, "'a' is on line 2 already"),
        (f"name,ek_sha256\n,{EK}\n", 2, "name: is empty"),
        ("name,ek_sha256\na,abcd\n", 2, "ek_sha256: 'abcd' is not a SHA-256"),
        (f'name,label.x,ek_sha256\na,"two\nlines",{EK}\nb,,zz\n', 4, "'zz'"),
        ("name,smbios_uuid\na,not-a-uuid\n", 2, "smbios_uuid: 'not-a-uuid' is not the UUID of a machine"),
        ("name,smbios_uuid\na,00000000-0000-0000-0000-000000000000\n", 2, "is not the UUID of a machine"),
        (f"name,secure_boot,ek_sha256\na,maybe,{EK}\n", 2, "'maybe' is neither true nor false nor empty"),
        ("name,ek_certificate\na,!!\n", 2, "not base64 of a DER certificate"),
        ("name,ek_certificate\na,AAAA\n", 2, "ek_certificate"),
        ("name,ek_certificate_file\na,nowhere.pem\n", 2, "cannot read"),
        ("name\na\n", 2, "nothing to recognise the machine by"),
        (f"name,ek_sha256\n{'n' * 300},{EK}\n", 2, "name: longer than 200 characters"),
        ('name,ek_sha256\n"a,b\n', 2, "not CSV"),
    ],
)
def test_a_mistake_in_a_csv_is_told_with_its_line(tmp_path, text, line, words):
    with pytest.raises(InventoryFileError) as caught:
        read(tmp_path, text)
    assert f"machines.csv, line {line}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("{}", 1, "not a JSON array of machines"),
        ('[\n{"name": "a",\n "ek_sha256": "x"}]', 2, "ek_sha256: 'x' is not a SHA-256"),
        ('[{"name": "a",\n\n "ek_sha256" "x"}]', 3, "not JSON"),
        ("[\n1]", 2, "a machine must be an object"),
        ('[{"name": "a", "name": "b"}]', 1, "name: the member is there twice"),
        ('[{"name": "a", "ek": "b"}]', 1, "ek: unknown member"),
        ('[{"ek_sha256": "b"}]', 1, "name: the member is missing"),
        ('[{"name": 5}]', 1, "name: must be text"),
        ('[{"name": "a", "secure_boot": "yes"}]', 1, "secure_boot: must be true, false or null"),
        ('[{"name": "a", "labels": {"a": 1}}]', 1, "labels.a: must be text"),
        ('[{"name": "a", "ek_sha256": {}}]', 1, "ek_sha256: must be text or a list of text"),
        (f'[{{"name": "a", "smbios_uuid": "{UUID}"}}\n {{}}]', 2, "',' or ']' expected"),
        ("[]\n\nmore", 3, "something follows"),
        ("[" + "[" * 100_000, 1, "too deep"),
    ],
)
def test_a_mistake_in_a_json_is_told_with_its_line(tmp_path, text, line, words):
    with pytest.raises(InventoryFileError) as caught:
        read(tmp_path, text, "machines.json")
    assert f"machines.json, line {line}: " in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_is_not_utf_8_is_told_with_the_line(tmp_path):
    path = tmp_path / "machines.csv"
    path.write_bytes(b"name,smbios_uuid\n\xff,x\n")
    with pytest.raises(InventoryFileError, match=r"line 2: the file is not UTF-8"):
        read_static("hw", path)


@pytest.mark.parametrize("name", ["-x", "a b", "", "a/b", "x" * 65])
def test_a_source_has_a_name_that_fits_keys_and_metrics(tmp_path, name):
    with pytest.raises(InventorySettingError, match="no name for an inventory"):
        StaticSettings(name=name, path=tmp_path / "a.csv")


def followed(path, clock=None):
    settings = StaticSettings(name="hw", path=path, interval=timedelta(milliseconds=20))
    return open_inventory(InventorySettings(files=(settings,)), clock=clock or FakeClock(), environ={})


async def eventually(found):
    async with asyncio.timeout(20):
        while not (answer := await found()):
            await asyncio.sleep(0.01)
        return answer


async def test_a_changed_file_is_read_again_and_what_changed_is_told(tmp_path):
    path = written(tmp_path, f"name,smbios_uuid,ek_sha256\nweb-1,{UUID},{EK}\nweb-2,,{'cd' * 32}\n")
    inventory = await followed(path)
    try:
        (found,) = await inventory.lookup_ek(bytes.fromhex(EK))
        assert found.name == "web-1"
        assert (await inventory.lookup_smbios(UUID)) == (found,)
        cursor = (await inventory.changes(None)).cursor
        written(tmp_path, f"name,smbios_uuid,ek_sha256\nweb-1,{UUID},{'ef' * 32}\nweb-3,{OTHER},\n")
        changes = await eventually(lambda: _changes(inventory, cursor))
        assert {(one.kind, one.machine.name) for one in changes.events} == {
            (EventKind.VTPM_REPLACED, "web-1"),
            (EventKind.ADDED, "web-3"),
            (EventKind.REMOVED, "web-2"),
        }
        assert [key.id for key in changes.removed] == ["web-2"]
        assert await inventory.lookup_ek(bytes.fromhex(EK)) == ()
        assert [one.name for one in await inventory.lookup_ek(b"\xef" * 32)] == ["web-1"]
    finally:
        await inventory.close()


async def _changes(inventory, cursor):
    changes = await inventory.changes(cursor)
    return changes if changes.machines else None


async def test_a_file_that_is_broken_later_leaves_the_last_good_one_and_grows_old(tmp_path):
    clock = FakeClock()
    path = written(tmp_path, f"name,ek_sha256\nweb-1,{EK}\n")
    inventory = await followed(path, clock)
    try:
        read_at = (await inventory.status())[0].synced_at
        assert read_at == clock.now()
        written(tmp_path, f"name,ek_sha256\nweb-1,{EK}\nweb-1,{EK}\n")
        await eventually(lambda: _problem(inventory))
        clock.advance(hours=1)
        await inventory.sync()
        (status,) = await inventory.status()
        assert "line 3: name: 'web-1' is on line 2 already" in status.problem
        assert (status.synced_at, status.machines) == (read_at, 1)
        assert await inventory.lookup_ek(bytes.fromhex(EK))
        written(tmp_path, f"name,ek_sha256\nweb-1,{EK}\nweb-2,{EK}\n")
        await inventory.sync()
        (status,) = await inventory.status()
        assert (status.problem, status.synced_at, status.machines) == (None, clock.now(), 2)
    finally:
        await inventory.close()


async def _problem(inventory):
    return (await inventory.status())[0].problem


async def test_a_certificate_file_that_is_replaced_is_noticed(tmp_path):
    other = SoftwareTpm(2).ek_certificate
    (tmp_path / "ek.der").write_bytes(CERTIFICATE)
    inventory = await followed(written(tmp_path, "name,ek_certificate_file\nweb-1,ek.der\n"))
    try:
        assert await inventory.lookup_ek(key_of(CERTIFICATE))
        await inventory.sync()
        (tmp_path / "ek.der").write_bytes(other)
        await eventually(lambda: inventory.lookup_ek(key_of(other)))
        assert await inventory.lookup_ek(key_of(CERTIFICATE)) == ()
    finally:
        await inventory.close()


async def test_a_file_that_cannot_be_used_at_start_stops_the_start(tmp_path):
    with pytest.raises(InventoryFileError, match="no header line"):
        await followed(written(tmp_path, ""))
    with pytest.raises(InventorySettingError, match=r"must end in \.csv or \.json"):
        StaticSettings(name="hw", path=tmp_path / "machines.xlsx")
