"""Static inventories: what is read of a file, and where and why one is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.simulator import SoftwareCa
from tests.simulator.keys import private_key
from verifier.inventory.eks import certificate_fingerprint
from verifier.inventory.errors import InventoryFileError
from verifier.inventory.static_files import read_static

UUID = "00112233-4455-6677-8899-aabbccddeeff"
KEY = "ab" * 32


@pytest.fixture(scope="module")
def certificate() -> bytes:
    return SoftwareCa().issue(private_key("p256", "static inventory").public_key())


def written(folder: Path, text: str | bytes, ending: str = "csv") -> Path:
    path = folder / f"machines.{ending}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(folder: Path, text: str | bytes, ending: str = "csv") -> InventoryFileError:
    with pytest.raises(InventoryFileError) as caught:
        read_static("files", written(folder, text, ending))
    return caught.value


class TestCsv:
    def test_every_column(self, tmp_path, certificate):
        (tmp_path / "web.pem").write_text(
            "-----BEGIN CERTIFICATE-----\n"
            + base64.encodebytes(certificate).decode()
            + "-----END CERTIFICATE-----\n"
        )
        path = written(
            tmp_path,
            "\ufeffname,smbios_uuid,instance_uuid,secure_boot,ek_sha256,ek_certificate_file,label.site\r\n"
            f'web, {UUID.upper()} ,,true,{KEY};{"CD:" * 31}CD,web.pem,"north, 2nd floor"\r\n'
            "\r\n"
            f"printer,{UUID[:-1]}e,,,,,\r\n",
        )
        found = read_static("files", path)
        web, printer = found.machines
        assert str(web.key) == "files/web"
        assert (web.smbios_uuid, web.secure_boot, web.has_vtpm) == (UUID, True, None)
        assert web.ek_fingerprints == {
            bytes.fromhex(KEY),
            bytes.fromhex("cd" * 32),
            certificate_fingerprint(certificate),
        }
        assert web.ek_certificates == (certificate,)
        assert web.labels == {"site": "north, 2nd floor"}
        assert (printer.ek_fingerprints, printer.secure_boot, printer.labels) == (frozenset(), None, {})
        assert found.files == (path, tmp_path / "web.pem")

    @pytest.mark.parametrize(
        ("text", "line", "field", "says"),
        [
            ("", 1, "", "no header line"),
            ("hostname\nweb\n", 1, "hostname", "unknown column; there are name, smbios_uuid"),
            ("ek_sha256\n", 1, "name", "missing"),
            ("name,name\n", 1, "name", "twice"),
            (f"name,ek_sha256\nweb,{KEY}\nweb,{KEY}\n", 3, "name", "'web' is on line 2 already"),
            (f"name,ek_sha256\n,{KEY}\n", 2, "name", "is empty"),
            ("name,ek_sha256\nweb,abcd\n", 2, "ek_sha256", "'abcd' is not a SHA-256"),
            (f"name,ek_sha256\nweb,{KEY},x\n", 2, "", "3 fields, where the header has 2"),
            (f'name,ek_sha256\n"two\nlines",{KEY}\nweb,zz\n', 4, "ek_sha256", "'zz'"),
            ("name,smbios_uuid\nweb,0011\n", 2, "smbios_uuid", "'0011' is not the UUID of a machine"),
            (
                f"name,smbios_uuid\nweb,{'0' * 8}-0000-0000-0000-{'0' * 12}\n",
                2,
                "smbios_uuid",
                "not the UUID",
            ),
            ("name,smbios_uuid\nweb,\n", 2, "", "nothing to recognise the machine by"),
            (f"name,ek_sha256,secure_boot\nweb,{KEY},yes\n", 2, "secure_boot", "neither true nor false"),
            ("name,ek_certificate\nweb,!!!\n", 2, "ek_certificate", "not base64"),
            ("name,ek_certificate\nweb,MAA=\n", 2, "ek_certificate", ""),
            ("name,ek_certificate_file\nweb,no.pem\n", 2, "ek_certificate_file", "no.pem: No such file"),
            (f'name,ek_sha256\n"web,{KEY}\n', 2, "", "not CSV"),
            (b"name,ek_sha256\n\xff,", 2, "", "not UTF-8"),
        ],
    )
    def test_a_mistake_is_refused_whole_with_its_line(self, tmp_path, text, line, field, says):
        error = refused(tmp_path, text)
        assert (error.line, error.field) == (line, field)
        assert says in error.detail
        assert str(error).startswith(f"{tmp_path / 'machines.csv'}, line {line}: ")

    def test_seventeen_keys_are_no_tpms(self, tmp_path):
        keys = ";".join(f"{number:064x}" for number in range(17))
        assert "more than 16" in refused(tmp_path, f"name,ek_sha256\nweb,{keys}\n").detail


class TestJson:
    def test_every_member(self, tmp_path, certificate):
        machine = {
            "name": "web",
            "smbios_uuid": UUID,
            "instance_uuid": None,
            "secure_boot": False,
            "ek_sha256": KEY,
            "ek_certificate": [base64.b64encode(certificate).decode()],
            "labels": {"site": "north"},
        }
        (web,) = read_static("files", written(tmp_path, json.dumps([machine]), "json")).machines
        assert (web.smbios_uuid, web.instance_uuid, web.secure_boot) == (UUID, None, False)
        assert web.ek_fingerprints == {bytes.fromhex(KEY), certificate_fingerprint(certificate)}
        assert web.labels == {"site": "north"}

    def test_an_empty_list_is_an_inventory_of_nothing(self, tmp_path):
        assert read_static("files", written(tmp_path, " [ ]\n", "json")).machines == ()

    @pytest.mark.parametrize(
        ("text", "line", "field", "says"),
        [
            ("{}", 1, "", "not a JSON array"),
            ("\n[\n1]", 3, "", "must be an object"),
            ('[\n{"name": "web",\n"serial": 1}]', 2, "serial", "unknown member"),
            ('[\n{"name": "a", "name": "b"}]', 2, "name", "twice"),
            ('[\n{"ek_sha256": "' + KEY + '"}]', 2, "name", "missing"),
            ('[{"name": "a",\n"ek_sha256": }]', 2, "", "not JSON"),
            ('[\n{"name": "a", "ek_sha256": 5}]', 2, "ek_sha256", "text or a list"),
            ('[\n{"name": "a", "ek_sha256": [5]}]', 2, "ek_sha256", "must be text"),
            (
                '[\n{"name": "a", "ek_sha256": "' + KEY + '", "secure_boot": "true"}]',
                2,
                "secure_boot",
                "null",
            ),
            ('[\n{"name": "a", "ek_sha256": "' + KEY + '"}\n{"name": "b"}]', 3, "", "',' or ']'"),
            ('[\n{"name": "a", "ek_sha256": "' + KEY + '"}]\n[]', 3, "", "something follows"),
            ('[\n{"name": "a", "labels": []}]', 2, "labels", "must be an object"),
            ("[" * 100_000, 1, "", "too deep"),
        ],
    )
    def test_a_mistake_is_refused_whole_with_its_line(self, tmp_path, text, line, field, says):
        error = refused(tmp_path, text, "json")
        assert (error.line, error.field) == (line, field)
        assert says in error.detail


def test_a_certificate_file_without_a_certificate_is_refused(tmp_path):
    (tmp_path / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n")
    error = refused(tmp_path, "name,ek_certificate_file\nweb,key.pem\n")
    assert "holds no certificate" in error.detail


def test_a_large_list_is_read_and_a_larger_one_refused(tmp_path, monkeypatch):
    lines = "".join(f"vm{number},{number:064x}\n" for number in range(20_000))
    path = written(tmp_path, "name,ek_sha256\n" + lines)
    assert len(read_static("files", path).machines) == 20_000
    monkeypatch.setattr("verifier.inventory.static_rows.MAX_MACHINES", 19_999)
    assert "more than 19999 machines" in refused(tmp_path, path.read_bytes()).detail
