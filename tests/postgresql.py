"""A real PostgreSQL server for tests and benches."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

INSTALLED = Path("/usr/lib/postgresql")


def binaries() -> Path | None:
    """Where the newest installed server's programs are; None where there is none."""
    found = sorted(INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def started(*, durable: bool = False, below: Path | None = None) -> Iterator[Cluster]:
    """A running server, or a loud skip where there is none. `below`: where its folder is made."""
    found = binaries()
    if found is None:
        pytest.skip(f"POSTGRESQL NOT TESTED: no server under {INSTALLED} (Debian package `postgresql`)")
    if importlib.util.find_spec("asyncpg") is None:
        pytest.skip("POSTGRESQL NOT TESTED: the driver asyncpg is not installed")
    server = Cluster(found, durable=durable, below=below)
    try:
        server.initialise()
        yield server
    finally:
        server.remove()


class Cluster:
    """A PostgreSQL server of our own: temporary directory, Unix socket only, gone afterwards.

    `durable`: a commit is on the disk when it is answered, as where it counts; tests of behaviour do without.
    """

    def __init__(self, binaries: Path, *, durable: bool = False, below: Path | None = None) -> None:
        self._binaries = binaries
        self._durable = durable
        # A socket's path may have 107 bytes, which pytest's own directories exceed.
        self.root = Path(tempfile.mkdtemp(prefix="vtpm-pg-", dir=below))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.root, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the cluster."""
        self._call("initdb", "-D", "data", "-U", "verifier", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._binaries / "postgres", "-D", "data", "-k", str(self.root),
                 "-c", "listen_addresses=", "-c", f"fsync={'on' if self._durable else 'off'}", "-c", "max_connections=200", "-c", "deadlock_timeout=100ms"],
                cwd=self.root, stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(200):
            ready = subprocess.run(
                [self._binaries / "pg_isready", "-h", str(self.root)], capture_output=True, check=False
            )
            if ready.returncode == 0:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise RuntimeError(f"PostgreSQL did not start: {(self.root / 'log').read_text()[-2000:]}")

    def stop(self, mode: str = "fast") -> None:
        """Shutdown: `fast` cuts clients off, `immediate` leaves recovery to the next start."""
        if self._process is not None:
            self._call("pg_ctl", "-D", "data", "-m", mode, "stop", check=False)
            self._process.wait(20)
            self._process = None

    def running(self) -> bool:
        """Whether it has not ended, by itself or otherwise."""
        return self._process is not None and self._process.poll() is None

    def standby(self) -> Cluster:
        """Another server, which has what this one has and follows it; from now on nothing is committed without it."""
        other = Cluster(self._binaries, durable=self._durable)
        other._call(
            "pg_basebackup",
            "-h",
            str(self.root),
            "-U",
            "verifier",
            "-D",
            "data",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        )
        other.start()
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        return other

    def promote(self) -> None:
        """A standby takes writes from now on."""
        self._call("pg_ctl", "-D", "data", "-w", "promote")

    def pause(self) -> None:
        """All of its processes stand still; connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of `pause`."""
        self._signal(signal.SIGCONT)

    def url(self, database: str) -> str:
        """For the store."""
        return f"postgresql://verifier@/{database}?host={self.root}"

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement."""
        self._call("psql", "-h", str(self.root), "-U", "verifier", "-qX", "-d", database, "-c", statement)

    def rows(self, statement: str, database: str) -> list[str]:
        """What a query finds, a line each with `|` between the columns."""
        text = self._call(
            "psql", "-h", str(self.root), "-U", "verifier", "-qXAt", "-d", database, "-c", statement
        )
        return text.splitlines()

    def size(self, database: str) -> int:
        """Bytes of a database on disk."""
        return int(self.rows("SELECT pg_database_size(current_database())", database)[0])

    def wal(self) -> int:
        """Bytes of write-ahead log so far."""
        return int(self.rows("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint", "postgres")[0])

    def processes(self) -> list[int]:
        """The postmaster and those that it has started."""
        assert self._process is not None
        postmaster = self._process.pid
        below = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, below)]

    def cpu(self) -> float:
        """CPU seconds of the server's processes so far, those that have ended included."""
        found = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.processes())
        return sum(sum(map(int, fields[11:15])) for fields in found) / os.sysconf("SC_CLK_TCK")

    def disconnect(self, database: str) -> None:
        """Cut off whoever is connected to a database."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def remove(self) -> None:
        """Stop the server and delete everything."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _call(self, program: str, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            cwd=self.root, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()[-2000:]}")
        return done.stdout.decode()
