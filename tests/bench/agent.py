"""The resident agent on a real software TPM: how soon its evidence is out, what it weighs, and that it sleeps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import swtpm
from tests.bench.measure import Result
from tests.fake_verifier import FakeVerifier

_COMMAND = Path(sys.executable).with_name("attest-agent")
_START_BUDGET = 1.5
_RESIDENT_BUDGET = 40 * 1024
_IDLE_SECONDS = 60.0
_SETTLE_SECONDS = 2.0
_STARTS = 5


class _Guest:
    """A machine with a TPM, a verifier for it, and the options of its agent."""

    def __init__(self, folder: Path, verifier: FakeVerifier, tcti: str) -> None:
        self.verifier = verifier
        self._options = ["--server", verifier.url, "--token", verifier.token, "--tcti", tcti]
        self._options += ["--state-dir", str(folder / "state"), "--root", str(folder / "root")]

    @contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        """The agent, once its evidence has arrived, and the seconds that took from its start."""
        self.verifier.attested.clear()
        begun = time.monotonic()
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([_COMMAND, "run", *self._options], stdout=quiet, stderr=quiet)
        try:
            if not self.verifier.attested.wait(60):
                raise RuntimeError("the agent did not attest")
            yield process, time.monotonic() - begun
        finally:
            process.terminate()
            process.wait()

    def start(self) -> float:
        with self.running() as (_, seconds):
            return seconds


@contextmanager
def _guest() -> Iterator[_Guest]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = swtpm.manufacture(folder / "tpm", folder / "ca")
        with swtpm.Swtpm(made.state) as machine, FakeVerifier(folder) as verifier:
            yield _Guest(folder, verifier, machine.tcti)


def _bare_start() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import ssl, http.client"], check=True)
    return time.monotonic() - begun


def _resident(pid: int) -> int:
    """Kibibytes."""
    return int(re.findall(r"^Rss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[0])


def _activity(pid: int) -> tuple[float, int]:
    """CPU seconds and context switches so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    switches = re.findall(r"ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return ticks / os.sysconf("SC_CLK_TCK"), sum(map(int, switches))


def start() -> list[Result]:
    """From the start of the process until its evidence is at the verifier: first boot (with enrolment), later boots."""
    with _guest() as guest:
        first = guest.start()
        later = min(guest.start() for _ in range(_STARTS))
    bare = min(_bare_start() for _ in range(_STARTS))
    named = f"python with ssl {bare * 1e3:.0f} ms"
    return [
        Result(
            f"agent: start to evidence, {what}",
            seconds * 1e3,
            "ms",
            named,
            seconds / bare,
            f"<= {_START_BUDGET * 1e3:g} ms",
            seconds <= _START_BUDGET,
        )
        for what, seconds in (("first boot", first), ("later boots", later))
    ]


def resident() -> list[Result]:
    """Memory and rest between two attestations."""
    with _guest() as guest, guest.running() as (process, _):
        time.sleep(_SETTLE_SECONDS)
        weight = _resident(process.pid)
        cpu, switches = _activity(process.pid)
        time.sleep(_IDLE_SECONDS)
        later_cpu, later_switches = _activity(process.pid)
    code = "import ssl, http.client; print(open('/proc/self/smaps_rollup').read())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    bare = int(re.findall(r"^Rss:\s+(\d+)", shown, re.MULTILINE)[0])
    woken, used = later_switches - switches, later_cpu - cpu
    return [
        Result(
            "agent: resident memory",
            weight / 1024,
            "MiB",
            f"python with ssl {bare / 1024:.1f} MiB",
            weight / bare,
            f"<= {_RESIDENT_BUDGET / 1024:g} MiB",
            weight <= _RESIDENT_BUDGET,
        ),
        Result(
            f"agent: switches in {_IDLE_SECONDS:g} s of rest",
            woken,
            "",
            f"{used:.2f} s of CPU",
            None,
            "<= 0",
            woken == 0 and used == 0,
        ),
    ]


BENCHES = {"agent-start": start, "agent-resident": resident}
