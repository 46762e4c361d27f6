"""The schema of a database is that of this version, or the database is left alone."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.contract.records import enrol
from verifier.errors import StoredDataDamaged, StoreUnavailable
from verifier.store import SchemaMismatch, migrate, open_store, upgrade
from verifier.store.location import parse_location
from verifier.store.schema import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path) -> str:
    """A database without any table; SQLite's file does not even exist."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/verifier.db"
    server = request.getfixturevalue("cluster")
    name = f"empty_{uuid.uuid4().hex}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


def _on(url, work):
    return migrate._on_connection(parse_location(url), work, create=False)


def _pretend_newer(url, oldest):
    def pretend(connection):
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql(f"UPDATE schema_support SET oldest = '{oldest}'")

    _on(url, pretend)


def _differences(connection):
    options = {"compare_type": True, "include_object": _is_the_same_everywhere}
    found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    on_sqlite_alone = {
        "ix_attestation_judged_at",
        "fk_attestation_attester_id",
        "fk_attestation_judgement",
        "fk_latest_judgement",
    }
    if connection.dialect.name == "postgresql":
        names = {difference[1].name for difference in found}
        assert names == on_sqlite_alone
        return []
    return found


def _is_the_same_everywhere(_object, name, kind, _reflected, _compared) -> bool:
    """Partitions are PostgreSQL's alone, and as many as there are weeks; so is the index of trigrams, where it may be made."""
    if kind == "index" and name == "ix_attester_trigrams":
        return False
    return kind != "table" or not name.startswith("attestation_") or name in metadata.tables


def test_the_migrations_make_the_tables_of_the_code(empty_url):
    upgrade(empty_url)
    assert _on(empty_url, _differences) == []


def test_the_history_of_the_schema_is_one_line():
    assert len(migrate.ScriptDirectory.from_config(migrate._config()).get_heads()) == 1


def test_upgrading_twice_changes_nothing_and_loses_nothing(empty_url):
    upgrade(empty_url)

    async def use():
        store = await open_store(empty_url)
        await enrol(store, "att-1")
        await store.close()

    async def look():
        store = await open_store(empty_url, migrate=False)
        found = await store.attester_state("att-1")
        await store.close()
        return found

    asyncio.run(use())
    upgrade(empty_url)
    assert asyncio.run(look()) is not None


def test_a_database_of_a_newer_version_is_refused_by_name(empty_url):
    upgrade(empty_url)
    _pretend_newer(empty_url, oldest="9999")
    for attempt in (lambda: upgrade(empty_url), lambda: asyncio.run(open_store(empty_url))):
        with pytest.raises(SchemaMismatch, match="9999"):
            attempt()


def test_a_store_told_not_to_migrate_refuses_an_old_database_and_says_what_to_do(empty_url):
    with pytest.raises(SchemaMismatch, match="attest-verifier db upgrade"):
        asyncio.run(open_store(empty_url, migrate=False))


async def test_many_that_start_at_once_upgrade_once(empty_url):
    stores = await asyncio.gather(*(open_store(empty_url) for _ in range(4)))
    for store in stores:
        await store.ping()
        await store.close()


async def test_many_processes_that_start_at_once_on_a_new_file_all_start(tmp_path):
    """Making the write-ahead log is the one step that SQLite's own waiting does not cover."""
    for attempt in range(10):
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        stores = await asyncio.gather(*(open_store(url) for _ in range(6)))
        await asyncio.gather(*(store.close() for store in stores))


def test_the_file_is_for_its_owner_only(tmp_path):
    upgrade(f"sqlite:///{tmp_path}/verifier.db")
    assert (tmp_path / "verifier.db").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_not_touched(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    with pytest.raises(StoredDataDamaged):
        upgrade(f"sqlite:///{path}")
    assert path.read_text() == "my notes\n" * 1000


def test_a_place_where_nothing_can_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "verifier.db", tmp_path):
        with pytest.raises(StoreUnavailable):
            upgrade(f"sqlite:///{path}")


def test_an_upgrade_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "verifier.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE latest (something_else)")
    with pytest.raises(Exception, match="latest"):
        upgrade(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("latest",)]


def test_opening_a_migrated_sqlite_store_loads_no_network_driver(tmp_path):
    """Start-up time and memory of the small installation."""
    url = f"sqlite:///{tmp_path}/verifier.db"
    code = f"""
import asyncio, sys
from verifier.store import open_store
async def main():
    await (await open_store({url!r})).close()
asyncio.run(main())
print(sorted({{"asyncpg", "aiosqlite"}} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
