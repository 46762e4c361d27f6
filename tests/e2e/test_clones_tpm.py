"""Clones, rollbacks and what is neither, with real software TPMs, agents and verifiers; and each of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.demo import Verifier, token, wait_until_ready
from tests import swtpm
from tests.conftest import ROOT
from tests.dying import DIE_AT
from tests.real_guests import Machine, Operator, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]
HISTORY = ("clone", "clock", "ratchet", "rollback", "boot-", "firmware")
QUIET = {"ratchet-started", "ratchet-continues", "clock-first-seen", "clock-continues", "boot-log-replays"}


def said(verdict) -> tuple[str, set[str]]:
    """Its status, and what it says of the history beside what an undisturbed machine's says."""
    codes = {one["code"] for one in verdict["findings"] if one["code"].startswith(HISTORY)}
    return verdict["status"], codes - QUIET


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return with_vendor_ca(tmp_path_factory.mktemp("clones"))


@pytest.fixture(scope="module")
def verifier(work) -> Iterator[Verifier]:
    with Verifier.running(work) as running:
        yield replace(running, join_token=token(running.config, "join", "--uses", "200"))


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(1, 100))


@contextmanager
def living(verifier: Verifier, numbers: Iterator[int], attestations: int = 2) -> Iterator[Machine]:
    """A guest with a new TPM that has attested."""
    number = next(numbers)
    made = manufacture(verifier.work / f"guest{number}" / "tpm", verifier.work / "tpm-vendor-ca")
    with booted(made) as tpm:
        machine = guest(verifier, number, tpm)
        for _ in range(attestations):
            assert said(machine.attest()) == ("affirming", set())
        yield machine


@contextmanager
def running_copy(machine: Machine, numbers: Iterator[int], *, renamed: bool = True) -> Iterator[Machine]:
    copy = machine.copied(next(numbers))
    if not renamed:
        for name in ("sys/class/dmi/id/product_uuid", "proc/sys/kernel/hostname"):
            shutil.copy2(machine.root / name, copy.root / name)
    with copy.tpm:
        copy.booted()
        yield copy


# --- clones


@pytest.mark.parametrize("renamed", [True, False], ids=["new UUID", "same UUID"])
@pytest.mark.parametrize("copy_first", [True, False], ids=["copy first", "original first"])
def test_a_copied_state_folder_that_runs_beside_its_original_is_a_proven_clone(
    verifier, numbers, copy_first, renamed
):
    with living(verifier, numbers) as original, running_copy(original, numbers, renamed=renamed) as copy:
        first, second = (copy, original) if copy_first else (original, copy)
        first.attest()
        assert said(second.attest())[0] == "contraindicated"
        verdict = first.attest()
        status, codes = said(verdict)
        assert (status, "clone-proven" in codes) == ("contraindicated", True)
        (proven,) = [one for one in verdict["findings"] if one["code"] == "clone-proven"]
        for machine in (first, second):
            boot = (machine.root / "proc/sys/kernel/random/boot_id").read_text().strip()
            assert boot in proven["expected"] + proven["actual"], "both guests are listed"


# --- rollbacks


@pytest.mark.parametrize("whole", [True, False], ids=["whole VM", ".nvram alone"])
def test_a_restored_state_is_a_rollback_even_over_a_single_attestation(verifier, numbers, whole):
    with living(verifier, numbers) as machine:
        backup = machine.copied(next(numbers))
        assert said(machine.attest())[0] == "affirming"
        machine.tpm.stop()
        shutil.copytree(backup.tpm.state, machine.tpm.state, dirs_exist_ok=True)
        if whole:
            shutil.copytree(backup.state, machine.state, dirs_exist_ok=True)
        machine.tpm.start()
        machine.booted()
        for _ in range(2):
            status, codes = said(machine.attest())
            assert status == "contraindicated"
            assert {"rollback", "ratchet-rollback"} <= codes
            assert not codes & {"clone-proven", "clone-suspected"}
        operator = Operator(verifier, token(verifier.config, "operator"))
        (incident,) = [
            one
            for one in operator.json("clones")["incidents"]
            if one["hostname"] == (machine.root / "proc/sys/kernel/hostname").read_text().strip()
        ]
        done = operator.call(
            "resolve", incident["id"], "--keep", incident["guests"][-1]["id"], "--reason", "a drill"
        )
        assert done.returncode == 0, done.stderr
        for _ in range(2):
            assert said(machine.attest())[0] == "affirming", "somebody said that it was meant"


# --- neither


def test_reboot_sleep_and_power_loss_raise_no_alarm_and_are_told_apart(verifier, numbers):
    with living(verifier, numbers) as machine:
        before = machine.attest()["clock"]
        machine.reboot()
        verdict = machine.attest()
        assert said(verdict) == ("affirming", set())
        assert verdict["clock"]["reset_count"] == before["reset_count"] + 1
        machine.tpm.suspend()
        verdict = machine.attest()
        assert said(verdict) == ("affirming", set())
        assert verdict["clock"]["reset_count"] == before["reset_count"] + 1
        assert verdict["clock"]["restart_count"] == 1
        machine.reboot(orderly=False)
        verdict = machine.attest()
        assert said(verdict) == ("affirming", {"clock-unsafe"})
        assert verdict["clock"]["safe"] is False
        machine.tpm.stop()
        machine.tpm.start()
        machine.reboot()
        assert said(machine.attest())[0] == "affirming"


# --- the index


def test_an_index_that_was_deleted_is_missing_and_one_made_by_another_agent_is_foreign(verifier, numbers):
    with living(verifier, numbers) as machine:
        delete_ratchets(machine)
        for _ in range(2):
            assert said(machine.attest()) == ("none", {"ratchet-missing"})
        assert "the ratchet is gone" in machine.agent("attest", "--once").stderr
        hidden = machine.state.rename(machine.state.with_name("forgotten"))
        shutil.copytree(hidden, machine.state)
        file = machine.state / "agent.json"
        file.write_text(file.read_text().replace('"ratchet"', '"forgotten"'))
        for _ in range(2):
            assert said(machine.attest()) == ("contraindicated", {"ratchet-foreign"})
        assert machine.agent("enroll", "--again").returncode == 0
        assert said(machine.attest()) == ("affirming", set()), "a join token lets it begin anew"
        delete_ratchets(machine)
        assert said(machine.attest()) == ("none", {"ratchet-missing"})
        assert machine.agent("enroll", "--again").returncode == 0
        for _ in range(2):
            assert said(machine.attest()) == ("affirming", set()), "the index was made anew"


def test_a_cleared_tpm_is_named_and_begins_anew_with_a_join_token(verifier, numbers):
    """Same EK and AK; clock, counters and the owner's indices are gone."""
    from tpm2_pytss.constants import ESYS_TR

    with living(verifier, numbers) as machine:
        with machine.tpm.esapi() as esapi:
            esapi.clear(ESYS_TR.LOCKOUT)
        machine.reboot()
        status, codes = said(machine.attest())
        assert (status, codes) == ("contraindicated", {"rollback", "clock-rollback", "ratchet-missing"})
        assert machine.agent("enroll", "--again").returncode == 0
        for _ in range(2):
            assert said(machine.attest()) == ("affirming", set())


def delete_ratchets(machine: Machine) -> None:
    """As root of a guest can."""
    from tpm2_pytss.constants import ESYS_TR

    for handle in machine.tpm.handles(0x01810000):
        if handle < 0x01820000:
            with machine.tpm.esapi() as esapi:
                esapi.nv_undefine_space(esapi.tr_from_tpmpublic(handle), ESYS_TR.OWNER)


def test_a_tpm_whose_owner_has_a_password_attests_without_a_ratchet(verifier, numbers):
    from tpm2_pytss.constants import ESYS_TR

    with living(verifier, numbers, attestations=0) as machine:
        with machine.tpm.esapi() as esapi:
            esapi.hierarchy_change_auth(ESYS_TR.OWNER, b"secret")
        done = machine.agent("attest", "--once")
        assert "the owner hierarchy has a password" in done.stderr
        assert said(machine.attest()) == ("affirming", {"ratchet-unsupported"})


def test_a_tpm_without_room_attests_without_a_ratchet(verifier, numbers):
    with living(verifier, numbers, attestations=0) as machine:
        fill(machine)
        done = machine.agent("attest", "--once")
        assert "no ratchet" in done.stderr
        assert said(machine.attest()) == ("affirming", {"ratchet-unsupported"})


def fill(machine: Machine) -> None:
    """Define indices until the TPM has no more NV memory."""
    from tpm2_pytss import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC
    from tpm2_pytss.constants import TPM2_ALG, TPMA_NV
    from tpm2_pytss.TSS2_Exception import TSS2_Exception

    size = 2048
    with machine.tpm.esapi() as esapi:
        for index in range(0x01900000, 0x01900400):
            public = TPMS_NV_PUBLIC(
                nvIndex=index,
                nameAlg=TPM2_ALG.SHA256,
                attributes=TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD,
                dataSize=size,
            )
            try:
                esapi.nv_define_space(None, TPM2B_NV_PUBLIC(nvPublic=public))
            except TSS2_Exception:
                if size == 1:
                    return
                size //= 2
    raise AssertionError("the TPM never became full")


# --- killed


def deaths(machine: Machine) -> Iterator[str]:
    """Kill the agent at one boundary after another, until an attestation has no more of them."""
    for boundary in range(60):
        name = machine.dying(boundary)
        if name is None:
            return
        yield name


def test_an_agent_killed_at_any_step_raises_no_alarm(verifier, numbers):
    """Of the steady attestation; that which makes the index is next."""
    seen = []
    with living(verifier, numbers) as machine:
        for name in deaths(machine):
            seen.append(name)
            assert said(machine.attest()) == ("affirming", set()), f"after it died {name}"
    assert {"before nv_extend", "after nv_extend", "after nv_certify", "after quote", "before save"} <= set(
        seen
    )
    assert seen.count("after post") == 2, "the challenge's and the attestation's"


def test_an_agent_killed_at_any_step_of_the_first_attestation_raises_no_alarm(verifier, numbers, work):
    """Each of these is a first attestation: the index is undefined and the machine enrolled before it."""
    seen = []
    with living(verifier, numbers) as machine:
        for boundary in range(60):
            delete_ratchets(machine)
            assert machine.agent("enroll", "--again").returncode == 0
            name = machine.dying(boundary)
            if name is None:
                break
            seen.append(name)
            assert said(machine.attest()) == ("affirming", set()), f"after it died {name}"
    assert {
        "before nv_define_extend",
        "after nv_define_extend",
        "before nv_extend",
        "after nv_extend",
    } <= set(seen)


@pytest.mark.parametrize("moment", ["after save", "after nv_extend", "after post"])
def test_a_clone_made_while_the_agent_was_dead_is_found_within_one_interval(verifier, numbers, moment):
    with living(verifier, numbers) as original:
        for name in deaths(original):
            if name == moment:
                break
            original.attest()
        with running_copy(original, numbers, renamed=False) as copy:
            # A step that no verifier has seen yet is in both, so both may go on from it once.
            verdicts = [said(machine.attest()) for machine in (original, copy, original, copy)]
        assert verdicts[0] == ("affirming", set())
        assert [status for status, _ in verdicts[2:]] == ["contraindicated"] * 2
        assert "clone-proven" in verdicts[3][1]


BOUNDARIES = [f"{when} {name}" for name in ("issue", "attest", "record") for when in ("before", "after")]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_verifier_killed_at_any_step_raises_no_alarm_and_clones_are_found(mortal, numbers, boundary):
    verifier, started = mortal
    with living(verifier, numbers, attestations=0) as machine:
        with started():
            machine.attest()
            machine.attest()
            (verifier.work / "verifier" / DIE_AT).write_text(boundary)
            done = machine.agent("attest", "--once")
            assert done.returncode == 69, "the verifier is gone"
        with started():
            assert said(machine.attest("--wait", "60")) == ("affirming", set())
            with running_copy(machine, numbers, renamed=False) as copy:
                assert said(machine.attest()) == ("affirming", set())
                assert said(copy.attest())[0] == "contraindicated"
                assert "clone-proven" in said(machine.attest())[1]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A verifier that can be started again and again on one database, and what starts it."""
    work = tmp_path_factory.mktemp("mortal")
    with_vendor_ca(work)
    with Verifier.running(work) as verifier:
        pass
    verifier = replace(verifier, join_token=token(verifier.config, "join", "--uses", "20"))

    @contextmanager
    def started() -> Iterator[None]:
        command = [sys.executable, "-m", "tests.dying", "verifier", str(work / "verifier")]
        log = work / "verifier.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*command, "serve", "--config", str(verifier.config)], cwd=ROOT, stdout=file, stderr=file
            )
        try:
            wait_until_ready(process, f"{verifier.url}/readyz", verifier.ca, log)
            yield
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
            process.wait(20)

    return verifier, started
