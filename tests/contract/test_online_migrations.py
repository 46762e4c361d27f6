"""Replicas of two versions work on one database, and an upgrade holds nobody up."""

from __future__ import annotations

import asyncio
import shutil
import threading
import uuid
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import pytest
from sqlalchemy import bindparam
from sqlalchemy.dialects import postgresql, sqlite

from tests.contract.records import MINUTE, NOW, enrol, recording
from tests.eventually import eventually
from verifier.store import (
    SchemaMismatch,
    SqlStore,
    log_batches,
    migrate,
    open_store,
    postgresql_hot,
    sqlite_backend,
    upgrade,
)
from verifier.store.leaves import LogBatch
from verifier.store.location import parse_location
from verifier.store.postgresql_backend import PostgresqlBackend
from verifier.store.prepared import prepared, several
from verifier.store.recording import Plan, Step
from verifier.store.schema import attestation
from verifier.store.sqlite_backend import SqliteBackend
from verifier.store.statements import HotStatements

DIVIDES = "0016"
"""The revision that divides history, and brings `schema_support`."""
BEFORE = migrate._script(DIVIDES).down_revision
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None
older_replicas = {older_replicas}


def upgrade():
    op.add_column("attester", sa.Column("asset_tag", sa.Text(), nullable=True))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        path = tmp_path / "verifier.db"
        path.touch()
        return f"sqlite:///{path}"
    server = request.getfixturevalue("cluster")
    name = f"online_{uuid.uuid4().hex}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


def on(url, work):
    return migrate._on_connection(parse_location(url), work, create=False)


def scalar(url, statement):
    return on(url, lambda connection: connection.exec_driver_sql(statement).scalar())


def unlogged(into):
    """Statements of the hot path from before there was a transparency log."""
    batch = dict(HotStatements(into).batch)
    del batch[Step.LOG_BATCHES]
    names = [column.name for column in attestation.c if not column.name.startswith("log_")]
    batch[Step.ATTESTATIONS] = into(attestation).values({name: bindparam(name) for name in names})
    return batch


@contextmanager
def code_of_before():
    """This program as it was before there was a log: no row is a leaf."""
    on_postgresql = unlogged(postgresql.insert)
    many = {step: several(on_postgresql[step]) for step in postgresql_hot.MANY if step in on_postgresql}
    on_sqlite = {
        step: prepared(statement, sqlite_backend._POSITIONAL)
        for step, statement in unlogged(sqlite.insert).items()
    }
    rows = Plan.rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Plan, "rows", lambda plan: (part for part in rows(plan) if part[0] is not Step.LOG_BATCHES)
        )
        patch.setattr(LogBatch, "add_verdict", lambda batch, row: None)
        patch.setattr(LogBatch, "add_audit", lambda batch, row: None)
        patch.setattr(log_batches, "of", lambda connection: LogBatch(0))
        patch.setattr(sqlite_backend, "_BATCH", on_sqlite)
        patch.setattr(postgresql_hot, "MANY", many)
        yield


@asynccontextmanager
async def of_before(url):
    """A replica at work on the schema before history was divided."""
    await asyncio.to_thread(on, url, lambda connection: migrate.apply(connection, BEFORE))
    location = parse_location(url)
    store = SqlStore(SqliteBackend(location.path) if location.path else PostgresqlBackend(location.dsn))
    with code_of_before():
        yield store
    await store.close()


@contextmanager
def newer(monkeypatch, folder, *, older_replicas: bool):
    """The next version of this program."""
    head = migrate.ScriptDirectory.from_config(migrate._config()).get_current_head()
    scripts = folder / "migrations"
    shutil.copytree(migrate._SCRIPTS, scripts)
    (scripts / "versions" / "9999_next.py").write_text(NEXT.format(head=head, older_replicas=older_replicas))
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_SCRIPTS", scripts)
        yield


async def history(store, attester_id="att-1"):
    return await store.history("default", attester_id, before=None, limit=1000)


async def test_no_verdict_of_before_is_lost_and_sequences_go_on(url):
    async with of_before(url) as old:
        for attester_id in ("att-1", "att-2"):
            await enrol(old, attester_id)
            for number in range(5):
                await old.record(recording(attester_id, at=NOW + number * MINUTE))
        before = {attester_id: await history(old, attester_id) for attester_id in ("att-1", "att-2")}
        await asyncio.to_thread(upgrade, url)
        new = await open_store(url, migrate=False)
        try:
            for attester_id, verdicts in before.items():
                assert await history(new, attester_id) == verdicts
            # The old replica does not know of it, and goes on.
            assert (await old.record(recording("att-1"))).sequence == 6
            assert (await new.record(recording("att-1"))).sequence == 7
            assert [one.sequence for one in await history(old)] == [7, 6, 5, 4, 3, 2, 1]
            assert await new.evidence_of("default", "att-2", 5) is not None
        finally:
            await new.close()


async def test_what_was_there_before_goes_as_one_once_it_is_old_but_for_what_stands(cluster):
    name = f"old_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name}")
    url = cluster.url(name)
    async with of_before(url) as old:
        await enrol(old, "att-1")
        for number in range(5):
            await old.record(recording("att-1", at=NOW + number * MINUTE))
        await asyncio.to_thread(upgrade, url)
        (before,) = [one for one in await old.storage() if one.ends is not None]
        assert before.begins is None
        assert await old.history_begins() == NOW
        assert (await old.purge_history(before.ends)).partitions == 1
        assert [one.sequence for one in await history(old)] == [5]
        assert (await old.record(recording("att-1"))).sequence == 6


async def test_rows_that_a_wrong_clock_has_dated_are_carried_over_too(url):
    async with of_before(url) as old:
        await enrol(old, "att-1")
        await old.record(recording("att-1", at=NOW.replace(year=2062)))
        await old.record(recording("att-1", at=NOW.replace(year=1999)))
        before = await history(old)
        await asyncio.to_thread(upgrade, url)
        assert await history(old) == before


async def test_an_upgrade_that_was_broken_off_is_taken_up_where_it_was(url):
    async with of_before(url) as old:
        await enrol(old, "att-1")
        if "postgresql" in url:
            module = migrate._script(DIVIDES).module
            await asyncio.to_thread(on, url, module.ahead)
            await asyncio.to_thread(on, url, module.ahead)
        await old.record(recording("att-1"))
        await asyncio.to_thread(upgrade, url)
        assert len(await history(old)) == 1


@pytest.fixture
async def before_the_index(cluster):
    """A database before revision 0015, and what that makes."""
    name = f"index_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name}")
    module = migrate._script("0015").module
    apply = lambda connection: migrate.apply(connection, module.down_revision)  # noqa: E731
    await asyncio.to_thread(on, cluster.url(name), apply)
    return name, module


def fleet_index(cluster, name) -> str:
    made = cluster.rows("SELECT indexdef FROM pg_indexes WHERE tablename = 'latest'", name)
    (found,) = [one for one in made if "ix_latest_fleet" in one]
    return found.rpartition(" USING ")[2]


_LISTED = "btree (tenant, attester_id, lifecycle, tier, judged_at, valid_until)"


async def test_the_index_of_listings_is_made_anew_beside_replicas_that_write(cluster, before_the_index):
    name, _ = before_the_index
    writing = await asyncpg.connect(host=str(cluster.root), user="verifier", database=name)
    upgrading = None
    try:
        async with writing.transaction():
            await writing.execute("UPDATE latest SET position = 1")
            upgrading = asyncio.create_task(asyncio.to_thread(upgrade, cluster.url(name)))
            waits = "SELECT true FROM pg_stat_progress_create_index"
            await eventually(lambda: bool(cluster.rows(waits, name)))
            # It waits for whoever writes, and holds up nobody.
            cluster.sql("SET lock_timeout = '100ms'; UPDATE latest SET position = 2", name)
    finally:
        await writing.close()
        if upgrading is not None:
            await upgrading
    assert fleet_index(cluster, name) == _LISTED
    assert cluster.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid", name) == ["0"]


async def test_an_index_that_was_begun_and_not_finished_is_not_taken_for_it(cluster, before_the_index):
    name, module = before_the_index
    cluster.sql(f"CREATE INDEX {module._NEW} ON latest (tenant)", name)
    await asyncio.to_thread(upgrade, cluster.url(name))
    assert fleet_index(cluster, name) == _LISTED


async def _more_than(store, count) -> bool:
    return await _newest(store) > count


async def _newest(store) -> int:
    """Number of the newest verdict: its history may be longer than a page."""
    found = await history(store)
    return found[0].sequence if found else 0


async def test_whoever_attests_is_not_held_up_by_an_upgrade_that_waits_for_a_long_query(cluster):
    name = f"busy_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name}")
    url = cluster.url(name)
    async with of_before(url) as store:
        await enrol(store, "att-1")
        begun, over = threading.Event(), asyncio.Event()

        def survey(connection):
            connection.exec_driver_sql("SELECT count(*) FROM attestation")
            begun.set()
            done.wait()

        async def attest():
            count = 0
            while not over.is_set():
                assert await store.record(recording("att-1")) is not None
                count += 1
            return count

        done = threading.Event()
        surveying = asyncio.create_task(asyncio.to_thread(on, url, survey))
        await asyncio.to_thread(begun.wait)
        attesting = asyncio.create_task(attest())
        upgrading = asyncio.create_task(asyncio.to_thread(upgrade, url))
        try:
            # The upgrade asks for the table again and again, and everybody else gets on.
            seen = 0
            for _ in range(3):
                await asyncio.sleep(0.6)
                assert not upgrading.done()
                before = seen
                await eventually(lambda before=before: _more_than(store, before))
                seen = await _newest(store)
        finally:
            done.set()
        await surveying
        await upgrading
        await store.record(recording("att-1"))
        over.set()
        count = await attesting
        stored = cluster.rows("SELECT sequence FROM attestation ORDER BY sequence", name)
        assert list(map(int, stored)) == list(range(1, count + 2))
        assert scalar(url, "SELECT relkind FROM pg_class WHERE relname = 'attestation'") == b"p"


async def test_an_older_version_goes_on_where_the_newer_one_says_it_can(url, tmp_path, monkeypatch):
    upgrade(url)
    old = await open_store(url)
    with newer(monkeypatch, tmp_path, older_replicas=True):
        await asyncio.to_thread(upgrade, url)
    await enrol(old, "att-1")
    restarted = await open_store(url)
    unmigrated = await open_store(url, migrate=False)
    assert (await restarted.record(recording("att-1"))).sequence == 1
    assert (await unmigrated.record(recording("att-1"))).sequence == 2
    assert scalar(url, "SELECT version_num FROM alembic_version") == "9999"
    for store in (old, restarted, unmigrated):
        await store.close()


async def test_an_older_version_is_refused_where_the_newer_one_does_not_say_so(url, tmp_path, monkeypatch):
    upgrade(url)
    with newer(monkeypatch, tmp_path, older_replicas=False):
        await asyncio.to_thread(upgrade, url)
        await (await open_store(url)).close()
    for migrating in (True, False):
        with pytest.raises(SchemaMismatch, match="9999"):
            await open_store(url, migrate=migrating)


def test_every_revision_says_whether_older_replicas_can_go_on():
    scripts = migrate.ScriptDirectory.from_config(migrate._config())
    for script in scripts.walk_revisions():
        assert isinstance(script.module.older_replicas, bool), script.revision
        if script.revision == DIVIDES:
            return
