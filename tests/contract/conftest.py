"""One database per test: a SQLite file, and a real PostgreSQL where its server can be started."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from verifier.store import SqlStore, open_store, upgrade
from verifier.store.schema import metadata

_BINARIES = Path("/usr/lib/postgresql")
_EMPTY = "; ".join(
    f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables) if table.name != "probe"
)


class Cluster:
    """A PostgreSQL server of our own: temporary directory, Unix socket only, gone afterwards."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # A socket's path may have 107 bytes, which pytest's own directories exceed.
        self.root = Path(tempfile.mkdtemp(prefix="vtpm-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.root, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the cluster; durability is not what these tests are about."""
        self._call("initdb", "-D", "data", "-U", "verifier", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._binaries / "postgres", "-D", "data", "-k", str(self.root),
                 "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200", "-c", "deadlock_timeout=100ms"],
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

    def stop(self) -> None:
        """Fast shutdown: clients are cut off."""
        if self._process is not None:
            self._call("pg_ctl", "-D", "data", "-m", "fast", "stop", check=False)
            self._process.wait(20)
            self._process = None

    def url(self, database: str) -> str:
        """For the store."""
        return f"postgresql://verifier@/{database}?host={self.root}"

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement."""
        self._call("psql", "-h", str(self.root), "-U", "verifier", "-qX", "-d", database, "-c", statement)

    def disconnect(self, database: str) -> None:
        """Cut off whoever is connected to a database."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def remove(self) -> None:
        """Stop the server and delete everything."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _call(self, program: str, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            cwd=self.root, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()[-2000:]}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL with a migrated database `template`, or a loud skip."""
    found = sorted(_BINARIES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip(f"POSTGRESQL NOT TESTED: no server under {_BINARIES} (Debian package `postgresql`)")
    if importlib.util.find_spec("asyncpg") is None:
        pytest.skip("POSTGRESQL NOT TESTED: the driver asyncpg is not installed")
    server = Cluster(found[-1].parent)
    try:
        server.initialise()
        server.sql("CREATE DATABASE template_store")
        upgrade(server.url("template_store"))
        server.sql("CREATE DATABASE shared_store TEMPLATE template_store")
        yield server
    finally:
        server.remove()


class Database:
    """Where a test's stores are. Every store it opens is closed after the test."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._opened: list[SqlStore] = []

    async def open(self) -> SqlStore:
        """One more store on this database."""
        store = await open_store(self.url)
        self._opened.append(store)
        return store

    async def close(self) -> None:
        """Close what was opened."""
        await asyncio.gather(*(store.close() for store in self._opened))


def _on_cluster(server: Cluster) -> Database:
    name = f"test_{uuid.uuid4().hex}"
    server.sql(f"CREATE DATABASE {name} TEMPLATE template_store")
    return Database(server.url(name), name)


@pytest.fixture
async def postgresql_database(cluster) -> AsyncIterator[Database]:
    """An empty database on a real PostgreSQL."""
    found = _on_cluster(cluster)
    yield found
    await found.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request, tmp_path) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        found = Database(f"sqlite:///{tmp_path}/verifier.db", "verifier.db")
    else:
        # One for all: making a database costs more than most tests. Emptied before, so that a failure can be seen.
        server = request.getfixturevalue("cluster")
        server.sql(_EMPTY, "shared_store")
        found = Database(server.url("shared_store"), "shared_store")
    yield found
    await found.close()


@pytest.fixture
async def store(database) -> SqlStore:
    """A store on an empty database."""
    return await database.open()
