"""One database per test: a SQLite file, and a real PostgreSQL where its server can be started."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.doctoring import Made, fill
from tests.once import migrated
from tests.postgresql import Cluster, started
from verifier.store import SqlStore, open_store, upgrade
from verifier.store.schema import metadata

_EMPTY = "; ".join(
    f"DELETE FROM {table.name}"
    for table in reversed(metadata.sorted_tables)
    if table.name not in {"probe", "schema_support"}
)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL with a migrated database `template`, or a loud skip."""
    with started() as server:
        server.sql("CREATE DATABASE template_store")
        upgrade(server.url("template_store"))
        server.sql("CREATE DATABASE shared_store TEMPLATE template_store")
        yield server


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
        migrated(tmp_path / "verifier.db")
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


@pytest.fixture(scope="session")
def logged(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("auditing")
    url = f"sqlite:///{folder}/verifier.db"
    upgrade(url)
    return asyncio.run(fill(url, folder / "old.db"))


@pytest.fixture(scope="session")
def logged_on_server(cluster) -> Made:
    cluster.sql("CREATE DATABASE audited TEMPLATE template_store")
    return asyncio.run(fill(cluster.url("audited")))


@pytest.fixture
def made(logged, tmp_path) -> Made:
    """A copy of its own."""
    shutil.copy(logged.url.removeprefix("sqlite:///"), tmp_path / "copy.db")
    return dataclasses.replace(logged, url=f"sqlite:///{tmp_path}/copy.db")


@pytest.fixture
def made_on_server(logged_on_server, cluster) -> Iterator[Made]:
    """The same on PostgreSQL."""
    name = f"copy_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE audited")
    yield dataclasses.replace(logged_on_server, url=cluster.url(name))
    cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
