"""`[[inventory]]`: what is written becomes sources; what cannot be meant stops the service by name, not by secret."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import ROOT
from verifier.inventory.settings import SecretFile, SecretVariable
from verifier.settings import SettingsError, load_settings
from verifier.settings_inventory import VsphereInventory, inventory_settings

VCENTER = 'kind = "vsphere"\nname = "north"\nhost = "vc.example"\n'


def loaded(tmp_path: Path, *tables: str):
    path = tmp_path / "verifier.toml"
    path.write_text("\n".join(f"[[inventory]]\n{table}" for table in tables))
    return inventory_settings(load_settings(path, {}).inventory)


def test_the_example_of_the_page_is_read(tmp_path):
    page = (ROOT / "docs" / "settings.md").read_text()
    example = re.search(r"```toml\n(inventory_max_age.*?)```", page, re.DOTALL)
    assert example is not None
    path = tmp_path / "verifier.toml"
    path.write_text(example[1])
    settings = load_settings(path, {})
    assert settings.inventory_max_age == timedelta(minutes=15)
    found = inventory_settings(settings.inventory)
    assert [one.path for one in found.files] == [Path("/etc/vtpm-attest/machines.csv")]
    (north,) = found.vcenters
    assert (north.name, north.host, north.port) == ("north", "vcenter.example", 443)
    assert north.credentials.password == SecretFile(Path("/run/secrets/vcenter"))


def test_every_key_of_the_page_exists_with_its_default():
    page = (ROOT / "docs" / "settings.md").read_text()
    section = page.partition("## Inventories")[2].partition("\n## ")[0]
    names = {
        name for row in re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE) for name in row.split(", ")
    }
    assert names - {"key"} == {*VsphereInventory.__struct_fields__, "kind", "path", "interval"}


def test_secrets_come_from_files_or_variables(tmp_path):
    tables = (
        VCENTER + 'user_env = "VC_USER"\npassword_env = "VC_PASSWORD"\nthumbprint = "' + "AB:" * 31 + 'ab"\n',
        VCENTER.replace("north", "south") + 'user = "me"\npassword_file = "/p"\nwait = "5s"\n',
    )
    north, south = loaded(tmp_path, *tables).vcenters
    assert north.credentials.user == SecretVariable("VC_USER")
    assert north.credentials.read({"VC_USER": "u", "VC_PASSWORD": "p"}).password == "p"
    assert north.thumbprint == b"\xab" * 32
    assert (south.credentials.user, south.wait) == ("me", timedelta(seconds=5))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('kind = "ldap"\nname = "x"\n', "kind"),
        ('kind = "file"\nname = "x"\npath = "/a.xls"\n', "x: /a.xls must end in .csv or .json"),
        ('kind = "file"\nname = "x y"\npath = "/a.csv"\n', "no name for an inventory"),
        ('kind = "file"\nname = "x"\npath = "/a.csv"\nhost = "h"\n', "host"),
        (VCENTER + 'user = "u"\n', "north: set password_file or password_env"),
        (VCENTER + 'password_env = "P"\n', "north: set one of user, user_file and user_env"),
        (VCENTER + 'user = "u"\nuser_env = "U"\npassword_env = "P"\n', "set one of user, user_file"),
        (VCENTER + 'user = "u"\npassword_env = "P"\npassword_file = "/p"\n', "not both"),
        (VCENTER + 'user = "u"\npassword_env = "P"\nthumbprint = "abcd"\n', "thumbprint"),
        (VCENTER + 'user = "u"\npassword_env = "P"\nwait = "0s"\n', "wait must be longer than nothing"),
        (VCENTER + 'user = "u"\npassword_env = "P"\nport = 0\n', "port"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path, table, says):
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, table)
    assert says in str(caught.value)
    assert "verifier.toml" in str(caught.value)


def test_two_of_one_name_are_refused(tmp_path):
    file = 'kind = "file"\nname = "x"\npath = "/a.csv"\n'
    with pytest.raises(SettingsError, match="two inventories are called 'x'"):
        loaded(tmp_path, file, file)


def test_a_password_that_is_written_out_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, VCENTER + 'user = "u"\npassword = "hunter2"\n')
    assert "password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
