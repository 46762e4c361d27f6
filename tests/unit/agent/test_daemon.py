"""`run` as a service manager sees it: a real process, told by signals, telling by a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from agent import daemon
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


def test_systemd_is_told_when_it_is_ready_how_it_stands_and_that_it_stops(verifier, options, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        with running(*options, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as process:
            assert manager.recv(4096).decode().startswith("READY=1\n")
            assert manager.recv(4096).decode().startswith("STATUS=affirming")
            process.terminate()
            assert manager.recv(4096) == b"STOPPING=1"
            process.wait(5)


def test_a_manager_that_does_not_listen_or_is_abstract_does_no_harm(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    daemon.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    daemon.notify("READY=1")
    name = f"vtpm-attest-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        daemon.notify("READY=1")
        assert manager.recv(100) == b"READY=1"


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
