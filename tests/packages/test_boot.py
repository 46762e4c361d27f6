"""The units as they are installed, under a real systemd: what a boot waits for, and what the agent may do."""

from __future__ import annotations

import json

import pytest

from tests import swtpm
from tests.packages.debian import DEB, System, can_boot
from tests.packages.guests import UNITS
from tests.real_guests import LOG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.swtpm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm is missing"),
    pytest.mark.skipif(not can_boot(), reason="SKIPPED: no root, or no namespaces and control groups"),
]


def started(system: System) -> dict[str, bool]:
    return {name: system.state(f"{name}.service") == "active" for name in UNITS}


def test_a_boot_is_attested_with_the_sealed_token_and_then_goes_on(guest):
    with guest.debian.booted() as system:
        system.wait_until("attested.target", "active")
        system.wait_until("requires.service", "active")
        system.wait_until("wanted.service", "active")
        assert system.show("attest-agent.service", "StatusText").startswith("affirming, number 1")
        assert guest.evidence().boot_log.content == LOG, "a log that only root may read"
        told = json.loads(system.run("cat", "/run/vtpm-attest/verdict.json").stdout)
        assert told["status"] == "affirming"
        online = int(system.show("online.service", "ExecMainStartTimestampMonotonic"))
        ready = int(system.show("attest-agent.service", "ActiveEnterTimestampMonotonic"))
        assert ready < online, "what waits for the network starts on a machine that was judged"


def test_the_agent_can_read_and_do_nothing_else(guest):
    with guest.debian.booted() as system:
        system.wait_until("attested.target", "active")
        pid = system.show("attest-agent.service", "MainPID")
        status = dict(
            line.split(":", 1) for line in system.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        )
        assert int(status["Uid"].split()[0]) >= 61184, "a user of its own"
        assert [int(status[name], 16) for name in ("CapEff", "CapBnd", "CapPrm")] == [1 << 2] * 3
        assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
        inside = ["nsenter", "--target", pid, "--mount", "--root"]
        for secret in ("/etc/shadow", "/root/token", "/etc/credstore.encrypted/vtpm-attest.join-token"):
            assert system.run("cat", secret).stdout != ""
            assert system.run(*inside, "cat", secret, check=False).stdout == "", secret
        for place in ("/usr/x", "/etc/x", "/guest/x", "/var/x"):
            assert system.run(*inside, "touch", place, check=False).returncode != 0, place


def test_only_an_affirming_verdict_opens_the_target_where_that_was_asked_for(guest):
    guest.verifier.status = "contraindicated"
    guest.configure(attested_on="affirming", attested_wait="2")
    with guest.debian.booted() as system:
        system.wait_until("attested.service", "failed")
        system.wait_until("multi-user.target", "active")
        assert system.state("attest-agent.service") == "active"
        assert system.state("attested.target") == "inactive"
        assert started(system) == {"requires": False, "wanted": False, "online": True}
        assert "the verdict is contraindicated" in system.journal("attested.service")


def test_any_verdict_opens_it_by_default(guest):
    guest.verifier.status = "contraindicated"
    with guest.debian.booted() as system:
        system.wait_until("attested.target", "active")


def test_a_verifier_that_is_away_holds_no_boot_up_and_is_waited_for_all_the_same(guest):
    guest.verifier.stop()
    guest.configure(ready_wait="1", attested_wait="1")
    with guest.debian.booted() as system:
        system.wait_until("attested.service", "failed")
        system.wait_until("multi-user.target", "active")
        assert started(system) == {"requires": False, "wanted": False, "online": True}
        assert "is unreachable" in system.show("attest-agent.service", "StatusText")
        guest.verifier.start()
        system.wait_until("attested.target", "active")
        system.wait_until("wanted.service", "active")


def test_a_restarted_agent_takes_nothing_down_and_a_stopped_one_leaves_no_verdict(guest):
    with guest.debian.booted() as system:
        system.wait_until("requires.service", "active")
        began = system.show("requires.service", "ActiveEnterTimestampMonotonic")
        system.run("dpkg", "--install", DEB)  # an update
        system.wait_for(lambda: guest.verifier.sequence == 2)
        assert system.show("requires.service", "ActiveEnterTimestampMonotonic") == began
        system.run("systemctl", "stop", "attest-agent.service")
        assert system.run("ls", "/run/vtpm-attest", check=False).returncode != 0
        assert system.state("requires.service") == "active"


def test_wrong_settings_fail_and_stay_so(guest):
    guest.configure(attested_on="sometimes")
    with guest.debian.booted() as system:
        system.wait_until("attest-agent.service", "failed")
        assert system.show("attest-agent.service", "ExecMainStatus") == "78"
        assert "'sometimes' is not known" in system.journal("attest-agent.service")
