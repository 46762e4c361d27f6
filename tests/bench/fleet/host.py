"""The verifier under load: started for the run on SQLite or on a PostgreSQL of its own, and what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.fleet.processors import children, family
from tests.conftest import ROOT
from tests.harness import write_anchors
from tests.postgresql import INSTALLED, Cluster, binaries

BIN = Path(sys.executable).parent / "attest-verifier"
POLICY = ROOT / "policies" / "permissive" / "policy.yaml"
_LIMITS = "[limits]\nattestations_per_attester = 1000000\ncalls_per_identity = 1000000"
"""A few guests and one token stand for many: they are counted, and never too often."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Memory:
    """Of a process, or several, in megabytes of 10^6 bytes."""

    resident: float
    proportional: float
    """With pages that are shared counted in part."""
    peak: float
    """The most that was ever resident."""

    @classmethod
    def of(cls, pid: int) -> Memory:
        """As the kernel counts it."""
        found = {}
        for name in ("smaps_rollup", "status"):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                key, _, value = line.partition(":")
                if value.endswith(" kB"):
                    found[key] = int(value.split()[0]) * 1024 / 1e6
        return cls(found["Rss"], found["Pss"], found["VmHWM"])

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.resident + other.resident, self.proportional + other.proportional, self.peak + other.peak
        )


@dataclass
class Verifier:
    """A running `attest-verifier serve`."""

    url: str
    ca: Path
    token: str
    process: subprocess.Popen[bytes]
    config: Path
    state: Path
    cluster: Cluster | None
    count: int = 1
    """Workers it was started with."""

    @property
    def database(self) -> str:
        """Its URL."""
        return f"sqlite:///{self.state}/verifier.db" if self.cluster is None else self.cluster.url("fleet")

    def processes(self) -> list[int]:
        """It and all below it."""
        return family(self.process.pid)

    def workers(self) -> list[int]:
        """Those that serve: it, or those that it supervises."""
        return [self.process.pid] if self.count == 1 else children(self.process.pid)

    def cpu(self) -> float:
        """Seconds of CPU that these processes have used so far."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self.processes()) / _TICKS

    def resident(self) -> dict[int, int]:
        """Bytes in memory of each."""
        return {pid: int(_stat(pid)[21]) * _PAGE for pid in self.processes()}

    def memory(self) -> Memory:
        """Of a worker with the processes beside it: the parent of several workers is not meant."""
        return sum(map(Memory.of, family(self.workers()[0])), Memory(0, 0, 0))

    def database_bytes(self) -> int:
        """How large the database is on disk."""
        if self.cluster is None:
            # In pages: those still in the write-ahead log alone are counted, and the log itself is not.
            with contextlib.closing(sqlite3.connect(self.state / "verifier.db")) as connection:
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])
        return self.cluster.size("fleet")


@contextlib.contextmanager
def verifier(*, workers: int = 1, database: str = "sqlite", more: str = "") -> Iterator[Verifier]:
    """Start one in a directory of its own; `more` is TOML for its settings."""
    with tempfile.TemporaryDirectory(prefix="vtpm-fleet-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        cluster = stack.enter_context(_cluster()) if database == "postgresql" else None
        config = _configuration(directory, None if cluster is None else cluster.url("fleet"), more)
        log = stack.enter_context((directory / "log").open("wb"))
        process = subprocess.Popen(
            [BIN, "serve", "--config", config, "--workers", str(workers)],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            line = process.stdout.readline().decode() if process.stdout else ""
            if "listening on" not in line:
                raise RuntimeError((directory / "log").read_text()[-3000:])
            secret = api_token(config, "join", "--uses", "1000000")
            state = directory / "state"
            yield Verifier(
                line.split()[-1], state / "tls" / "ca.pem", secret, process, config, state, cluster, workers
            )
        finally:
            process.terminate()
            process.wait(60)


def api_token(config: Path, scope: str, *more: str) -> str:
    """Make a token of this scope."""
    command = [BIN, "tokens", "create", "--config", config, "--scope", scope, *more, "--json"]
    made = subprocess.run(command, capture_output=True, check=True)
    return str(json.loads(made.stdout)["token"])


def _configuration(directory: Path, database: str | None, more: str) -> Path:
    policies = directory / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_bytes(POLICY.read_bytes())
    lines = [
        f'state_dir = "{directory / "state"}"',
        f'trust_anchors = ["{write_anchors(directory / "anchors")}"]',
        f'policies_dir = "{policies}"',
        'default_policy = "permissive"',
        *([] if database is None else [f'database = "{database}"']),
        more.replace("[limits]", _LIMITS) if "[limits]" in more else f"{more}\n{_LIMITS}",
        "[listen]\nport = 0",
        '[log]\nlevel = "warning"\nformat = "json"',
    ]
    path = directory / "verifier.toml"
    path.write_text("\n".join(lines))
    return path


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    found = binaries()
    if found is None:
        raise SystemExit(f"no PostgreSQL server under {INSTALLED}: install the Debian package `postgresql`")
    server = Cluster(found, durable=True)
    try:
        server.initialise()
        server.sql("CREATE DATABASE fleet")
        yield server
    finally:
        server.remove()


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name; zeros for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 40
