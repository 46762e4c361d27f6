"""A relying party checks a guest with a nonce of its own: agent, verifier and a real software TPM."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.demo import BIN, Verifier, token
from tests import swtpm
from tests.harness import POLICY
from tests.real_guests import Machine, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory) -> Iterator[Verifier]:
    work = tmp_path_factory.mktemp("appraisals")
    with_vendor_ca(work)
    with Verifier.running(work) as running:
        yield replace(running, join_token=token(running.config, "join"))


@pytest.fixture(scope="module")
def machine(verifier) -> Iterator[Machine]:
    made = manufacture(verifier.work / "guest1" / "tpm", verifier.work / "tpm-vendor-ca")
    with booted(made) as tpm:
        machine = guest(verifier, 1, tpm)
        for _ in range(2):
            assert machine.attest()["status"] == "affirming"
        yield machine


@pytest.fixture(scope="module")
def secret(verifier) -> str:
    return token(verifier.config, "relying-party")


def ask(verifier: Verifier, secret: str, nonce: bytes, evidence: object) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"{verifier.url}/v1/appraisals",
        json.dumps({"nonce": b64encode(nonce).decode(), "evidence": evidence}).encode(),
        {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    try:
        context = ssl.create_default_context(cafile=str(verifier.ca))
        with urllib.request.urlopen(request, context=context) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def evidence_of(machine: Machine, nonce: str, *options: str, server: bool = False) -> dict:
    where = ["--tcti", machine.tpm.tcti, "--root", str(machine.root), "--state-dir", str(machine.state)]
    if server:
        where += ["--server", machine.verifier.url]
    out = machine.root / "evidence.json"
    out.unlink(missing_ok=True)
    done = agent("attest", "--nonce", nonce, "--out", str(out), *options, *where)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "attest-agent", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "form",
    [
        lambda nonce: nonce.hex(),
        lambda nonce: b64encode(nonce).decode(),
        lambda nonce: "base64:" + urlsafe_b64encode(nonce).decode().rstrip("="),
    ],
    ids=["hex", "base64", "base64url"],
)
def test_the_agents_evidence_over_a_nonce_is_affirmed(verifier, machine, secret, form):
    nonce = b"\xfb\xff" + os.urandom(14)
    evidence = evidence_of(machine, form(nonce))
    assert evidence["relying_party_nonce"] == nonce.hex()
    status, answer = ask(verifier, secret, nonce, evidence)
    assert status == 200, answer
    assert answer["verdict"]["status"] == "affirming"
    assert "ratchet-continues" in {one["code"] for one in answer["verdict"]["findings"]}
    status, problem = ask(verifier, secret, os.urandom(16), evidence)
    assert (status, problem["code"]) == (403, "quote-nonce")


def test_the_agent_asks_the_verifier_nothing_and_changes_nothing(verifier, machine, secret):
    before = (machine.state / "agent.json").read_bytes()
    dead = replace(verifier, url="https://127.0.0.1:1")
    lonely = Machine(dead, machine.root, machine.state, machine.tpm)
    evidence = evidence_of(lonely, os.urandom(8).hex(), server=True)
    assert evidence["ratchet"] is not None
    assert (machine.state / "agent.json").read_bytes() == before
    assert machine.attest()["status"] == "affirming", "the ratchet was not moved"


def test_the_bundle_is_one_that_the_offline_tool_reads(machine, tmp_path):
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(evidence_of(machine, os.urandom(32).hex())))
    policy = tmp_path / "any.yaml"
    policy.write_text(POLICY)
    command = [BIN / "attestctl", "appraise", file, "--policy", policy, "--ak-trusted", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["status"] == "affirming"


@pytest.mark.parametrize(
    "options",
    [
        ["--nonce", "00112233445566"],
        ["--nonce", "zz%"],
        ["--nonce", "utf8:hello"],
        ["--nonce", "hex:0g"],
        ["--nonce", "00" * 65],
        ["--nonce", "0011223344556677", "--ear"],
    ],
)
def test_a_nonce_that_is_none_is_wrong_usage(machine, tmp_path, options):
    done = agent("attest", *options, "--out", str(tmp_path / "x"), "--tcti", machine.tpm.tcti)
    assert done.returncode == 64, done.stderr
    assert "what to do" in done.stderr
    assert not (tmp_path / "x").exists()


def test_nonce_and_out_go_together(machine):
    for options in (["--nonce", "0011223344556677"], ["--out", "x"]):
        done = agent("attest", *options, "--tcti", machine.tpm.tcti)
        assert done.returncode == 64, done.stderr


def test_a_machine_that_is_not_enrolled_says_so(verifier, secret, tmp_path):
    made = manufacture(verifier.work / "guest2" / "tpm", verifier.work / "tpm-vendor-ca")
    with booted(made) as tpm:
        stranger = guest(verifier, 2, tpm)
        nonce = os.urandom(16)
        evidence = evidence_of(stranger, nonce.hex())
        status, problem = ask(verifier, secret, nonce, evidence)
        assert (status, problem["code"]) == (403, "ak-unproven")
