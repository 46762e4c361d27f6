"""What the agent remembers is damaged or gone: real agent, verifier and software TPM. It says what to do, and stays who it is."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from scripts import demo
from scripts.demo import BIN, Verifier, token
from tests import swtpm
from tests.real_guests import Machine, Operator, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [
    pytest.mark.slow,
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]
CONFIGURATION = 78
DAMAGES = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return with_vendor_ca(tmp_path_factory.mktemp("states"))


@pytest.fixture(scope="module")
def verifier(work) -> Iterator[Verifier]:
    often = demo.configuration
    with (
        patch.object(demo, "configuration", lambda *where: often(*where).replace('"1m"', '"2s"')),
        Verifier.running(work) as running,
    ):
        yield replace(running, join_token=token(running.config, "join", "--uses", "20"))


@pytest.fixture(scope="module")
def machine(verifier, work) -> Iterator[Machine]:
    with booted(manufacture(work / "guest1" / "tpm", work / "tpm-vendor-ca")) as tpm:
        yield guest(verifier, 1, tpm)


def remembered(machine: Machine) -> dict[str, object]:
    return json.loads((machine.state / "agent.json").read_text())


def attesters(verifier: Verifier) -> list[str]:
    operator = Operator(verifier, token(verifier.config, "operator"))
    return [one["id"] for one in operator.json("attesters")["attesters"]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_the_way_out_leads_back_to_the_same_attester(machine, damage):
    assert machine.attest()["status"] == "affirming"
    before, path = remembered(machine)["attester_id"], machine.state / "agent.json"
    DAMAGES[damage](path)
    spoilt = None if path.is_dir() else path.read_bytes()
    for _ in range(2):
        done = machine.agent("attest", "--once")
        assert done.returncode == CONFIGURATION
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr
        assert (None if path.is_dir() else path.read_bytes()) == spoilt, "it is the evidence of what happened"
    path.rename(machine.state / f"agent.json.{damage}")  # what the message says
    assert machine.attest()["status"] == "affirming"
    assert remembered(machine)["attester_id"] == before
    assert attesters(machine.verifier) == [before]


def test_without_its_state_and_a_token_the_agent_says_to_enrol(machine):
    assert machine.attest()["status"] == "affirming"
    before, path = remembered(machine)["attester_id"], machine.state / "agent.json"
    path.unlink()
    done = machine.agent("attest", "--once", token=False)
    assert done.returncode not in {0, 1, 2, 3}, "no verdict"
    assert "enrol" in done.stderr
    assert machine.attest()["status"] == "affirming"
    assert attesters(machine.verifier) == [before]


def test_an_agent_that_runs_says_so_and_waits_for_a_person(machine):
    """It neither goes on as somebody else nor writes over what is there, nor asks again and again."""
    assert machine.attest()["status"] == "affirming"
    path = machine.state / "agent.json"
    arguments = [BIN / "attest-agent", *machine.command("run")]
    running = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert any("verdict affirming" in line for line in running.stderr)
        DAMAGES["half"](path)
        spoilt = path.read_bytes()
        assert any("is damaged" in line for line in running.stderr)
        assert running.poll() is None
        assert path.read_bytes() == spoilt
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, said.count("is damaged")) == (0, 0), said
    path.rename(machine.state / "agent.json.broken")
    assert machine.attest()["status"] == "affirming"


def test_one_tpm_in_two_tenants_keeps_a_ratchet_for_each(machine, verifier):
    assert machine.attest()["status"] == "affirming"
    theirs = replace(verifier, join_token=token(verifier.config, "join", "--tenant", "globex"))
    other = replace(machine, verifier=theirs, state=machine.state.with_name("agent-of-globex"))
    for _ in range(3):
        for one, status in ((other, "none"), (machine, "affirming")):  # the other tenant has no policy
            verdict = one.attest()
            codes = {each["code"] for each in verdict["findings"] if each["code"].startswith("ratchet")}
            assert (verdict["status"], codes - {"ratchet-started", "ratchet-continues"}) == (status, set())
    assert codes == {"ratchet-continues"}
    assert len({remembered(one)["ratchet"]["index"] for one in (machine, other)}) == 2
