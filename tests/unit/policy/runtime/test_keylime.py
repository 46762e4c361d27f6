"""Runtime policies of Keylime: what is carried, what is not, and that nothing is lost silently."""

from __future__ import annotations

import base64
import json
import re
import subprocess

import pytest
import yaml

from tests.conftest import ROOT
from verifier.cli import attestctl
from verifier.cli.output import EXIT_DATA
from verifier.policy.parse import parse_policy
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.keylime import read_keylime
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import Handling
from verifier.policy.runtime.runtime_set import Head
from verifier.policy.runtime.writing import digest_of
from verifier.runtime_sets.files import load_set

CORPUS = ROOT.parent / "shared/corpus/keylime_keylime/create-runtime-policy"
A, B = "aa" * 32, "bb" * 20


def keylime(**more) -> dict:
    document = {
        "meta": {"version": 1, "generator": 3, "timestamp": "2024-09-12 13:44:44.797331"},
        "release": 0,
        "digests": {"/usr/bin/a": [A, B], "/opt/My App": ["cc" * 64], "boot_aggregate": [A]},
        "excludes": [],
        "keyrings": {},
        "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": None},
        "ima-buf": {},
        "verification-keys": "",
    }
    return document | more


def read(document: dict):
    return read_keylime(json.dumps(document).encode(), Head(name="web"))


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "k"],
        cwd=folder,
        check=True,
    )
    command = ["openssl", "pkey", "-in", "k", "-pubout", "-outform", "DER"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout


def test_digests_keyrings_and_buffers_become_a_set():
    imported = read(keylime(**{"ima-buf": {"dm_table_load": [A]}, "keyrings": {".ima": [A]}}))
    assert [(each.path, each.kind.text, each.digest.hex()) for each in imported.runtime_set] == [
        (b".ima", "buffer:sha256:", A),
        (b"/opt/My_App", "sha512:", "cc" * 64),
        (b"/usr/bin/a", "sha1:", B),
        (b"/usr/bin/a", "sha256:", A),
        (b"dm_table_load", "buffer:sha256:", A),
    ]
    assert [each.text for each in imported.runtime_set.sources] == ["web (keylime)"]
    assert imported.notes == ("boot_aggregate is left out: it is held against the quote, not against a list",)
    assert len(imported.losses) == 1
    assert imported.losses[0].startswith("keyrings: keys that were measured")


def test_excludes_match_the_beginning_of_a_path_as_they_did():
    imported = read(keylime(excludes=["/tmp/", r".*\.log$", "(/sysroot)?/var/cache"]))
    assert imported.losses == ()
    patterns = Patterns(imported.part["excludes"][0]["paths"])
    for path, expected in [
        ("/tmp/x/y", True),
        ("/var/tmp/", False),
        ("/var/log/x.log", True),
        ("/var/log/x.log.1", False),
        ("/sysroot/var/cache-of-mine", True),
    ]:
        assert patterns.match(path.encode()) is expected, path


def test_part_of_a_policy_that_can_be_used(public):
    own = subprocess.run(
        ["openssl", "dgst", "-sha1", "-binary"], input=public[-65:], check=True, capture_output=True
    ).stdout
    ring = {"pubkeys": [base64.b64encode(public).decode()], "keyids": [int.from_bytes(own[-4:], "big")]}
    document = keylime(excludes=["/tmp/.*"], **{"verification-keys": json.dumps(json.dumps(ring))})
    document["ima"]["ignored_keyrings"] = [".blacklist"]
    imported = read(document)
    assert imported.losses == ()
    section = parse_policy(
        yaml.safe_dump(
            {
                "schema": "vtpm-attest/policy/1",
                "id": "p",
                "quote": {"pcrs": [7, 10]},
                "rules": [{"id": "sb", "claim": "configuration", "secure_boot": "enabled"}],
                "unjudged": [{"pcrs": [7], "why": "not what this is about"}],
                "runtime": {"sets": [{"sha256": digest_of(imported.runtime_set)}], **imported.part},
            }
        )
    ).runtime
    (key,) = section.keys
    assert key.public == public
    assert key.key_id == own[-4:]
    assert section.ignored_keyrings == {".blacklist"}
    document["ima"]["ignored_keyrings"] = ["*"]
    everything = read(document)
    assert everything.part["unknown_keys"] == Handling.ALLOW.value
    assert "ignored_keyrings" not in everything.part


LOSSES = {
    "a digest that is none": (keylime(digests={"/x": ["00" * 31]}), "digests: .* is no SHA-1"),
    "a path without digests": (keylime(digests={"/x": []}), "has no digest"),
    "an exclude of everything": (keylime(excludes=["/tmp/", ".*"]), "lets through"),
    "an empty exclude": (keylime(excludes=[""]), "lets through"),
    "excludes of everything together": (keylime(excludes=["/[a-m]", "/[n-z]"]), "all together let through"),
    "an exclude that looks ahead": (keylime(excludes=["/tmp/(?!x)"]), "cannot be matched here"),
    "device-mapper rules": (
        keylime(ima={"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": {"version": 1}}),
        "ima.dm_policy",
    ),
    "keys that do not read": (keylime(**{"verification-keys": "{}{"}), "verification-keys: cannot be read"),
    "rules": (keylime(rules="x"), "rules: not known"),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_is_not_carried_is_said(name):
    document, said = LOSSES[name]
    losses = read(document).losses
    assert len(losses) == 1
    assert re.search(said, losses[0]), losses


def test_a_key_with_an_id_of_its_own_is_said(public):
    ring = {"pubkeys": [base64.b64encode(public).decode()], "keyids": [1]}
    (loss,) = read(keylime(**{"verification-keys": json.dumps(ring)})).losses
    assert "key 00000001 has an id of its own" in loss


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "no runtime policy"),
        (b"{", "no runtime policy"),
        (json.dumps(keylime(surprise=1)).encode(), "surprise"),
        (json.dumps(keylime(meta={"version": 2})).encode(), "version 2"),
        (json.dumps({"payload": "!", "payloadType": "x"}).encode(), "no runtime policy"),
    ],
)
def test_what_is_no_such_policy_is_refused(data, said):
    with pytest.raises(RuntimeSetError, match=said):
        read_keylime(data, Head(name="web"))


def test_signed_policies_are_unpacked_and_it_is_said_that_nobody_checked():
    envelope = {
        "payload": base64.b64encode(json.dumps(keylime()).encode()).decode(),
        "payloadType": "application/vnd.keylime+json",
        "signatures": [{"keyid": "", "sig": "AAAA"}],
    }
    imported = read_keylime(json.dumps(envelope).encode(), Head(name="web"))
    assert "it is signed; the signature was not checked" in imported.notes
    assert len(imported.runtime_set) == 3


@pytest.mark.parametrize("name", ["policy-sha1", "policy-sha256", "policy-sha384", "policy-sha512"])
def test_policies_that_keylime_made(name):
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is not there: real policies of Keylime lie beside the repository")
    imported = read_keylime((CORPUS / name).read_bytes(), Head(name="web"))
    (found,) = imported.runtime_set
    assert found.kind.text == name.removeprefix("policy-") + ":"
    assert imported.losses == ()


def test_the_command_writes_nothing_that_was_not_agreed_to(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, part = tmp_path / "policy.json", tmp_path / "part.yaml"
    source.write_text(json.dumps(keylime(excludes=["/tmp/", ".*"])))

    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as caught:
            attestctl.main(["runtime", "import-keylime", str(source), "--out", "web.rtset", *arguments])
        assert caught.value.code == code
        return capsys.readouterr()

    assert "cannot be carried: excludes: '.*'" in run(code=EXIT_DATA).err
    assert "say with --part" in run("--lossy", code=EXIT_DATA).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.json"]
    said = json.loads(run("--lossy", "--part", "part.yaml", "--json").out)
    assert "excludes: '.*'" in said["notes"][0]
    document = yaml.safe_load(part.read_text())["runtime"]
    assert document["sets"] == [{"sha256": said["sha256"], "name": "web"}]
    assert document["excludes"][0]["paths"] == ["regex:(?:/tmp/).*"]
    assert digest_of(load_set(tmp_path / "web.rtset")) == said["sha256"]
