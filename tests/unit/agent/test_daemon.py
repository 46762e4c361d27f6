"""`run` as a service manager sees it: a real process, told by signals, telling by a socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from agent.manager import Manager
from tests.conftest import ROOT
from tests.fake_verifier import FakeVerifier

# The real command, with a fake TPM put where the adapter would be loaded.
PROGRAM = """
import sys
from tests.fake_tpm import FakeTpm
from agent import commands
tpm = FakeTpm()
commands.open_tpm = lambda _settings: tpm
from agent.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def running(*arguments: str, environment: dict[str, str] | None = None):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def verifier(tmp_path):
    with FakeVerifier(tmp_path) as fake:
        yield fake


@pytest.fixture
def options(verifier, tmp_path):
    state, root = tmp_path / "state", tmp_path / "root"
    return [
        "--server",
        verifier.url,
        "--token",
        verifier.token,
        "--state-dir",
        str(state),
        "--root",
        str(root),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_pause_of_five_minutes_at_once_and_well(verifier, options, number):
    with running(*options) as process:
        assert verifier.attested.wait(15)
        time.sleep(0.1)
        before = time.monotonic()
        process.send_signal(number)
        assert process.wait(5) == 0
        assert time.monotonic() - before < 1.0


def test_a_signal_ends_waiting_for_a_verifier_that_is_not_there(verifier, options):
    verifier.stop()
    with running(*options) as process:
        for line in process.stderr:
            if "unreachable" in line:
                break
        process.terminate()
        assert process.wait(5) == 0


class ServiceManager:
    """Its end of the socket, and the environment it gives a service."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        self.socket = listening
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000000"}

    def hears(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(15)
        yield ServiceManager(listening, str(tmp_path / "notify"))


def test_systemd_is_told_how_it_stands_when_it_was_judged_and_that_it_stops(verifier, options, manager):
    with running(*options, environment=manager.environment) as process:
        assert manager.hears() == ["STATUS=attesting"]
        ready, status = manager.hears()
        assert (ready, status[:16]) == ("READY=1", "STATUS=affirming")
        alive, limit = manager.hears()
        assert alive == "WATCHDOG=1"
        # The pause is 85 to 100 % of 300 s; then a round may take the watchdog's ten minutes.
        assert 855e6 <= int(limit.removeprefix("WATCHDOG_USEC=")) <= 900e6
        process.terminate()
        assert manager.hears() == ["STOPPING=1"]
        process.wait(5)


def test_each_round_has_the_watchdog_s_time_again(verifier, options, manager):
    verifier.next_in = 0.0
    with running(*options, environment=manager.environment):
        heard = [manager.hears() for _ in range(5)]
    assert heard[3] == ["WATCHDOG=1", "WATCHDOG_USEC=600000000"]
    assert heard[4][0].startswith("STATUS=affirming, number 2"), "and READY only once"


def test_a_watchdog_meant_for_another_process_is_left_alone(verifier, options, manager):
    with running(*options, environment={**manager.environment, "WATCHDOG_PID": "1"}) as process:
        heard = [manager.hears() for _ in range(2)]
        process.terminate()
        heard.append(manager.hears())
    assert heard[-1] == ["STOPPING=1"]


def test_a_boot_does_not_wait_for_a_verifier_that_is_away(verifier, options, manager):
    verifier.stop()
    with running(*options, "--ready-wait", "0.3", environment=manager.environment) as process:
        heard = []
        while heard[-1:] != [["READY=1"]]:
            heard.append(manager.hears())
        assert any("is unreachable" in line for message in heard for line in message)
        verifier.start()
        while not heard[-1][0].startswith("STATUS=affirming"):  # and no second READY
            heard.append(manager.hears())
        process.terminate()
    assert heard.count(["READY=1"]) == 1


def test_without_patience_it_is_ready_at_once(verifier, options, manager):
    verifier.stop()
    with running(*options, "--ready-wait", "0", environment=manager.environment):
        assert [manager.hears(), manager.hears()] == [["STATUS=attesting"], ["READY=1", "STATUS=attesting"]]


def test_a_refusal_s_text_says_nothing_else_to_the_manager(manager):
    Manager(manager.environment).tell("STATUS=refused\nREADY=1")
    assert manager.hears() == ["STATUS=refused READY=1"]


def test_a_manager_that_does_not_listen_or_is_abstract_does_no_harm(tmp_path):
    Manager({}).ready("fine")
    Manager({}).ready_within(1.0)
    Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("fine")
    name = f"vtpm-attest-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        Manager({"NOTIFY_SOCKET": "@" + name}).tell("STATUS=heard")
        assert manager.recv(100) == b"STATUS=heard"


def test_the_verdict_stands_where_other_programs_look_and_goes_with_the_agent_s_folder(
    verifier, options, manager, tmp_path
):
    """systemd names the folder, and removes it when the service ends."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    environment = {**manager.environment, "RUNTIME_DIRECTORY": str(runtime)}
    with running(*options, "--attested-on", "affirming", environment=environment):
        while manager.hears()[0] != "READY=1":
            pass
        assert sorted(path.name for path in runtime.iterdir()) == ["attested", "verdict.json"]
        told = json.loads((runtime / "verdict.json").read_text())
        assert (told["status"], told["sequence"], told["attester_id"]) == ("affirming", 1, "attester-1")


def test_attesting_goes_on_where_the_verdict_cannot_be_written_down(verifier, options, tmp_path):
    with running(*options, "--runtime-dir", str(tmp_path / "nowhere")) as process:
        lines = [process.stderr.readline()]
        while "verdict affirming" not in lines[-1]:
            lines.append(process.stderr.readline())
    assert any("cannot be written down" in line for line in lines)


@pytest.mark.timeout(20)
def test_a_steady_verdict_is_said_once_and_a_change_again(verifier, options):
    verifier.next_in = 0.0  # the agent makes it one second
    with running(*options) as process:
        lines = [process.stderr.readline()]
        while verifier.sequence < 2:  # two affirming verdicts, then another
            time.sleep(0.02)
        verifier.status = "contraindicated"
        while "contraindicated" not in lines[-1]:
            lines.append(process.stderr.readline())
    assert [line.split()[-1] for line in lines if "verdict" in line] == ["affirming", "contraindicated"]
