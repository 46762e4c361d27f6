"""What an operator decides, with the commands as people run them: real software TPMs, agent, verifier, attestctl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo import Verifier, token
from tests import swtpm
from tests.real_guests import Operator, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]
REFUSED, TRY_LATER = 65, 75


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return with_vendor_ca(tmp_path_factory.mktemp("decisions"))


@pytest.fixture(scope="module")
def verifier(work) -> Iterator[Verifier]:
    more = '[enrollment]\nmethods = ["certificate|approve", "token"]\n'
    with Verifier.running(work, more=more) as running:
        yield running


@pytest.fixture(scope="module")
def operator(verifier) -> Operator:
    return Operator(verifier, token(verifier.config, "operator"))


def test_a_machine_without_a_certificate_is_let_in_by_an_operator(verifier, operator, work):
    bare = manufacture(work / "bare" / "tpm", work / "bare-ca", certificates=False)
    with booted(bare) as tpm:
        machine = guest(verifier, 1, tpm)
        pending = machine.agent("enroll")
        assert pending.returncode == TRY_LATER
        item = operator.waiting()
        assert f"attestctl enrollments approve {item['id']}" in pending.stderr
        status = json.loads(machine.agent("status", "--json").stdout)
        assert status["pending"] == {"enrollment_id": item["id"], "code": "enrollment-pending"}
        assert machine.agent("enroll", token=False).returncode == TRY_LATER
        assert operator.waiting()["id"] == item["id"], "asking again is the same question"

        table = operator.call("enrollments")
        assert item["id"] in table.stdout
        assert "web-01" in table.stdout
        shown = operator.call("enrollments", "show", item["id"]).stdout
        assert item["endorsement"]["ek_sha256"] in shown
        assert item["endorsement"]["profile"]["methods"] == ["token"]
        approved = operator.call("enrollments", "approve", item["id"], "--reason", "rack 7 & [bold]more[/]")
        assert approved.returncode == 0, approved.stderr
        attester = operator.json("enrollments", "show", item["id"])["attester"]
        assert attester in approved.stdout

        done = machine.agent("enroll", "--json", token=False)
        assert json.loads(done.stdout)["attester_id"] == attester
        assert machine.attest(token=False)["status"] == "affirming"
        assert "no pending enrolments" in operator.call("enrollments").stdout
        twice = operator.call("enrollments", "approve", item["id"])
        assert twice.returncode == 69
        assert "409 conflict" in twice.stderr
        assert "was approved by tok-" in twice.stderr
        assert "rack 7 & [bold]more[/]" in operator.call("audit", "--subject", item["id"]).stdout


def test_a_refused_machine_is_told_why(verifier, operator, work):
    bare = manufacture(work / "stranger" / "tpm", work / "bare-ca", certificates=False)
    with booted(bare) as tpm:
        machine = guest(verifier, 2, tpm)
        assert machine.agent("enroll").returncode == TRY_LATER
        number = operator.waiting()["id"]
        assert operator.call("enrollments", "refuse", number, "--reason", "not one of ours").returncode == 0
        told = machine.agent("enroll")
        assert told.returncode == REFUSED
        assert "not one of ours" in told.stderr
        assert operator.json("enrollments", "--status", "refused")["enrollments"][0]["id"] == number


def test_a_replaced_vtpm_is_noticed_by_both_sides_and_goes_on_after_approval(verifier, operator, work):
    """Restored without .nvram: same machine, same agent state, another TPM."""
    first = manufacture(work / "guest3" / "tpm", work / "tpm-vendor-ca")
    with booted(first) as tpm:
        machine = guest(verifier, 3, tpm)
        before = machine.attest()
        assert before["status"] == "affirming"
    second = manufacture(work / "guest3" / "new-tpm", work / "tpm-vendor-ca")
    with booted(second) as tpm:
        machine.tpm = tpm
        waits = machine.agent("attest", "--once")
        assert waits.returncode == TRY_LATER
        assert "not the one this machine was enrolled with" in waits.stderr
        assert "known with another TPM" in waits.stderr
        assert "known with another TPM" in machine.agent("status").stdout
        item = operator.waiting()
        assert (item["code"], item["candidates"]) == ("identity-replaced", [before["attester_id"]])
        assert item["endorsement"]["profile"]["methods"] == ["certificate", "token"]
        done = operator.call("enrollments", "approve", item["id"], "--reason", "restored without .nvram")
        assert f"in place of {before['attester_id']}" in done.stdout

        after = machine.attest(token=False)
        assert (after["status"], after["sequence"]) == ("affirming", 1)
        assert after["attester_id"] != before["attester_id"]
        history = operator.json("history", before["attester_id"])["verdicts"]
        assert [verdict["status"] for verdict in history] == ["affirming"]
        assert operator.call("verdict", before["attester_id"]).returncode == 3
        assert before["attester_id"] in operator.call("attesters", "--status", "retired").stdout


def test_a_clone_is_listed_with_both_guests_and_the_kept_one_goes_on(verifier, operator, work):
    made = manufacture(work / "guest4" / "tpm", work / "tpm-vendor-ca")
    with booted(made) as tpm:
        original = guest(verifier, 4, tpm)
        assert original.attest()["status"] == "affirming"
    copied = made.copy(work / "guest5" / "tpm")
    shutil.copytree(original.state, work / "guest5" / "agent")
    with booted(made) as tpm, booted(copied) as other:
        original.tpm = tpm
        copy = guest(verifier, 5, other)
        for _ in range(2):
            assert original.attest()["status"] == "affirming"
        assert copy.attest()["status"] == "contraindicated"
        assert original.attest()["status"] == "contraindicated"

        (incident,) = operator.json("clones")["incidents"]
        assert {one["hostname"] for one in incident["guests"]} >= {"web-04", "web-05"}
        shown = operator.call("clones").stdout
        assert incident["id"] in shown
        assert "web-05" in shown
        wrong = operator.call("resolve", incident["id"], "--keep", "web-99")
        assert wrong.returncode == 69
        assert "none of the guests" in wrong.stderr
        done = operator.call(
            "resolve", incident["id"], "--keep", "web-04", "--reenrol", "web-05", "--reason", "test copy"
        )
        assert done.returncode == 0, done.stderr
        assert "web-04 goes on" in done.stdout
        for _ in range(2):
            assert original.attest()["status"] == "affirming"
        refused = copy.agent("attest", "--once", token=False)
        assert refused.returncode == REFUSED
        assert "reenrollment-required" in refused.stderr
        assert "no open incidents" in operator.call("clones").stdout
        assert "incident.resolved" in operator.call("audit", "--subject", incident["id"]).stdout
