"""`attest-verifier anchors` as an operator meets it."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests import pki
from tests.unit.inventory.test_anchor_files import OTHER, ROOT, TWIN, vmca_download, zipped
from verifier.cli import attest_verifier


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command; gives exit code, stdout and stderr."""
    monkeypatch.setenv("VTPM_ATTEST_VERIFIER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attest-verifier", "anchors", *map(str, arguments)])
        code = 0
        try:
            attest_verifier.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def download(tmp_path):
    path = tmp_path / "download.zip"
    path.write_bytes(zipped(vmca_download()))
    return path


def sets(run) -> dict[str, dict]:
    code, out, _ = run("list", "--json")
    assert code == 0
    return {one["name"]: one for one in json.loads(out)["sets"]}


def test_vmcas_archive_is_imported_listed_and_removed(run, download):
    code, out, _ = run("import", download, "--set", "vcenter-1")
    assert code == 0
    assert out.count("CN=Root") == 2  # two roots of one name, told apart by key
    assert (
        "vcenter-1 is trusted for ek: anchors: 2 added, 0 dropped, 0 kept; revocation lists: 1 added" in out
    )
    one = sets(run)["vcenter-1"]
    assert (one["anchors"], one["crls"], one["purposes"], one["source"]) == (2, 1, ["ek"], "download.zip")
    assert one["assigned_by"] == "cli"
    code, out, _ = run("list", "vcenter-1", "--json")
    held = json.loads(out)
    assert {anchor["subject"] for anchor in held["anchors"]} == {"CN=Root"}
    assert held["crls"][0]["revoked"] == 1
    assert run("remove", "vcenter-1")[0] == 0
    assert sets(run) == {}


def test_a_dry_run_says_what_would_change_and_changes_nothing(run, download):
    code, out, err = run("import", download, "--dry-run")
    assert code == 0
    assert "download would be trusted for ek: anchors: 2 added" in out
    assert "nothing was changed" in err
    assert sets(run) == {}


def test_what_is_refused_is_named_with_its_reason(run, tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "root.der").write_bytes(ROOT.der)
    (folder / "leaf.der").write_bytes(ROOT.ek())
    (folder / "weak.der").write_bytes(pki.Ca.root("Weak", kind="rsa1024").der)
    (folder / "README").write_text("roots of the lab")
    code, out, err = run("import", folder)
    assert code == 0
    assert "CN=Root" in out
    assert "refused: leaf.der: not a CA certificate" in err
    assert "refused: weak.der (CN=Weak): an RSA key of 1024 bits" in err
    assert "neither certificates nor lists: README" in err
    code, out, _ = run("import", folder, "--set", "again", "--dry-run", "--json")
    said = json.loads(out)
    assert [one["source"] for one in said["rejected"]] == ["leaf.der", "weak.der"]
    assert said["dry_run"] is True


def test_a_second_archive_of_one_name_does_not_take_the_place_of_the_first(run, download, tmp_path):
    assert run("import", download)[0] == 0
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "download.zip"
    second.write_bytes(zipped({"certs/lin/a.0": pki.pem("CERTIFICATE", OTHER.der)}))
    code, out, err = run("import", second)
    assert (code, out) == (65, "")
    assert "there is a set 'download' already, with 2 anchors" in err
    assert run("import", second, "--add")[0] == 0
    assert sets(run)["download"]["anchors"] == 3
    code, out, _ = run("import", second, "--replace")
    assert "anchors: 0 added, 2 dropped, 1 kept; revocation lists: 0 added, 1 dropped" in out
    assert sets(run)["download"]["anchors"] == 1


def test_one_anchor_is_removed_by_the_digits_the_list_shows(run, download):
    run("import", download)
    _, out, _ = run("list", "download")
    shown = re.findall(r"\b[0-9a-f]{16}\b", out)
    assert len(shown) == 2
    code, out, _ = run("remove", shown[0])
    assert (code, f"anchor {shown[0]}" in out) == (0, True)
    _, out, _ = run("list", "download")
    assert re.findall(r"\b[0-9a-f]{16}\b", out) == shown[1:]


def test_several_files_for_several_purposes(run, tmp_path):
    for name, ca in (("a.pem", ROOT), ("b.pem", TWIN)):
        (tmp_path / name).write_bytes(pki.pem("CERTIFICATE", ca.der))
    code, _, _ = run(
        "import", tmp_path / "a.pem", tmp_path / "b.pem", "--set", "gce", "--for", "ak", "--for", "device"
    )
    assert code == 0
    one = sets(run)["gce"]
    assert (one["purposes"], one["anchors"], one["source"]) == (["ak", "device"], 2, "a.pem, b.pem")


def test_ends_that_are_near_are_shown(run, tmp_path):
    past = pki.Ca.root("Past", not_after=pki.time(pki.START.replace(year=2025)))
    (tmp_path / "a.pem").write_bytes(past.der + b"")
    assert "(over)" in run("import", tmp_path / "a.pem")[1]
    assert sets(run)["a"]["alarms"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["import"], 64, "PATHS"),
        (["import", "/nowhere.pem"], 69, "No such file"),
        (["import", "/etc/hostname"], 65, "nothing to trust"),
        (["import", "/etc/hostname", "--for", "tls"], 64, "tls"),
        (["import", "/etc/hostname", "--add", "--replace"], 64, "choose one"),
        (["import", "/etc/hostname", "--set", "a b"], 65, "cannot name a set"),
        (["remove", "nobody"], 65, "nobody"),
        (["list", "nobody"], 65, "nobody"),
    ],
)
def test_mistakes_are_told_with_the_next_step(run, arguments, code, words):
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_an_empty_list_names_the_next_step(run):
    code, out, err = run("list")
    assert (code, out) == (0, "")
    assert "anchors import FILE" in err
