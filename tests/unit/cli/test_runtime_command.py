"""`attestctl runtime`: sets made, merged, compared, pruned, shown, signed and checked, as a user does it."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from tests import archives
from tests.conftest import ROOT
from verifier.cli import attestctl
from verifier.cli.output import EXIT_DATA, EXIT_USAGE
from verifier.runtime_sets.files import load_set

LIST = ROOT / "policies/evidence/uki-sb-on/binary_runtime_measurements"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as caught:
            attestctl.main(["runtime", *map(str, arguments)])
        printed = capsys.readouterr()
        assert caught.value.code == code, printed.err
        return printed

    return call


@pytest.fixture
def tiny(tmp_path):
    return archives.deb(
        tmp_path / "debs", {"/bin/tiny": b"1", "/etc/tiny.conf": b"c", "/usr/share/doc/x": b"d"}
    )


def test_a_set_is_made_and_shown(run, tiny, tmp_path):
    said = json.loads(run("make", "deb", tmp_path / "debs", "--out", "Web.rtset.zst", "--json").out)
    assert said["name"] == "web"
    assert said["entries"] == 4
    assert said["digests"] == {"sha256": 4}
    whole = load_set(tmp_path / "Web.rtset.zst", digest=said["sha256"])
    assert [entry.path for entry in whole][:2] == [b"/bin/tiny", b"/etc/tiny.conf"]
    printed = run("show", "Web.rtset.zst", "--path", "/bin/*").out
    assert said["sha256"] in printed
    assert "/bin/tiny  sha256:" + hashlib.sha256(b"1").hexdigest()[:16] in printed
    assert "tiny 1:2.0-3 amd64 (deb)" in printed
    digest = hashlib.sha256(b"1").hexdigest()
    found = json.loads(run("show", "Web.rtset.zst", "--digest", digest, "--source", "--json").out)
    assert [each["path"] for each in found["found"]] == ["/bin/tiny", "/usr/bin/tiny"]
    assert found["sources"] == [{"kind": "deb", "name": "tiny", "version": "1:2.0-3", "arch": "amd64"}]


def test_the_same_packages_give_the_same_bytes(run, tiny, tmp_path):
    run("make", "deb", tmp_path / "debs", "--out", "a.rtset", "--name", "same")
    run("make", "deb", tiny, "--out", "b.rtset.zst", "--name", "same")
    plain = (tmp_path / "a.rtset").read_bytes()
    unpacked = subprocess.run(["zstd", "-dc", tmp_path / "b.rtset.zst"], check=True, capture_output=True)
    assert unpacked.stdout == plain


def test_two_versions_are_compared_merged_and_pruned(run, tiny, tmp_path):
    newer = archives.deb(tmp_path / "newer", {"/bin/tiny": b"2"}, Version="1:2.0-4")
    run("make", "deb", tiny, "--out", "old.rtset", "--no-conffiles")
    run("make", "deb", newer, "--out", "new.rtset")
    printed = run("diff", "old.rtset", "new.rtset").out
    assert "0 added, 2 removed, 2 changed" in printed
    assert "tiny 1:2.0-4 amd64 (deb)" in printed
    changes = json.loads(run("diff", "old.rtset", "new.rtset", "--json").out)["changes"]
    assert {each["path"]: each["change"] for each in changes}["/usr/bin/tiny"] == "changed"
    run("merge", "old.rtset", "new.rtset", "--out", "both.rtset.zst")
    assert len(load_set(tmp_path / "both.rtset.zst").at_path(b"/bin/tiny")) == 2
    run("prune", "both.rtset.zst", "--source", "tiny 1:2.0-3*", "--out", "left.rtset", "--name", "new")
    assert (tmp_path / "left.rtset").read_bytes() == (tmp_path / "new.rtset").read_bytes()
    run("prune", "both.rtset.zst", "--path", "/usr/**", "/etc/*", "--seen", "old.rtset", "--out", "few.rtset")
    assert {entry.path for entry in load_set(tmp_path / "few.rtset")} == {b"/bin/tiny"}
    assert "nothing is left" in run("prune", "old.rtset", "--path", "/**", "--out", "x", code=EXIT_DATA).err
    assert "none of sha1" in run("prune", "old.rtset", "--hash", "sha0", "--out", "x", code=EXIT_DATA).err


def test_a_set_is_signed_and_checked(run, tmp_path):
    for name in ("one", "two"):
        key = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"]
        subprocess.run(key, cwd=tmp_path, check=True)
        public = ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub.pem"]
        subprocess.run(public, cwd=tmp_path, check=True)
    run("make", "ima", LIST, "--out", "good.rtset.zst")
    run("sign", "good.rtset.zst", "--key", "one.pem")
    assert "ok" in run("verify", "good.rtset.zst", "--key", "one.pub.pem").out
    said = json.loads(run("verify", "good.rtset.zst", "--key", "two.pub.pem", "--json", code=EXIT_DATA).out)
    assert said["code"] == "policy-signature"
    run("prune", "good.rtset.zst", "--path", "/etc/**", "--out", "good.rtset.zst", "--name", "good")
    assert "this is" in run("verify", "good.rtset.zst", "--key", "one.pub.pem", code=EXIT_DATA).err


def test_every_kind_of_source_has_its_command(run, tmp_path):
    (tmp_path / "x.tar").write_bytes(archives.tar(("opt/x", b"x")))
    (tmp_path / "x.img").write_bytes(archives.cpio(("opt/x", b"x", archives.FILE)))
    (tmp_path / "x.rpm").write_bytes(archives.rpm([("/opt/x", b"x", 0)]))
    (tmp_path / "root/opt").mkdir(parents=True)
    (tmp_path / "root/opt/x").write_bytes(b"x")
    for kind, path in {"tar": "x.tar", "initramfs": "x.img", "rpm": "x.rpm", "rootfs": "root"}.items():
        run("make", kind, path, "--hash", "sha384", "sha256", "--out", f"{kind}.rtset")
        assert [(e.path, e.digest) for e in load_set(tmp_path / f"{kind}.rtset")] == [
            (b"/opt/x", hashlib.sha256(b"x").digest()),
            (b"/opt/x", hashlib.sha384(b"x").digest()),
        ]


def test_weak_digests_are_noted(run, tiny, tmp_path):
    said = json.loads(run("make", "deb", tiny, "--hash", "sha1", "sha256", "--out", "x.rtset", "--json").out)
    assert said["digests"] == {"sha1": 4, "sha256": 4}
    assert said["notes"][0].startswith("4 digests are SHA-1")
    assert "SHA-1" not in run("prune", "x.rtset", "--hash", "sha256", "--out", "y.rtset").err


def test_what_is_wrong_is_named_and_nothing_is_written(run, tiny, tmp_path):
    tiny.write_bytes(tiny.read_bytes()[:-100])
    printed = run("make", "deb", tiny, "--out", "x.rtset", code=EXIT_DATA)
    assert str(tiny) in printed.err
    assert "at byte" in printed.err
    assert not (tmp_path / "x.rtset").exists()
    (tmp_path / "debs/empty").mkdir()
    assert "no .deb there" in run("make", "deb", tmp_path / "debs/empty", "--out", "x", code=EXIT_DATA).err
    assert "No such file" in run("show", "nothing.rtset", code=EXIT_DATA).err
    (tmp_path / "bad.rtset").write_text("vtpm-attest/runtime-set/1\nname BAD\n")
    assert "line 3" in run("show", "bad.rtset", code=EXIT_DATA).err
    assert "is no prefix" in run("make", "deb", tiny, "--prefix", "x", "--out", "x", code=EXIT_DATA).err
    assert "whole components" in run("make", "ima", LIST, "--exclude", "**", "--out", "x", code=EXIT_DATA).err
    run("make", "ima", LIST, code=EXIT_USAGE)
    leftovers = {path.name for path in tmp_path.iterdir()} - {"debs", "bad.rtset"}
    assert leftovers == set()
