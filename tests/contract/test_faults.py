"""When the database fails: `StoreUnavailable` and nothing half-written, or damage by name; never a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy.exc
from sqlalchemy import func, select, update

from tests.contract.records import NOW, enrol, policy, recording, sha256, token
from tests.contract.writer_process import ATTESTERS
from tests.small_disk import mounted
from verifier.errors import StoredDataDamaged, StoreUnavailable
from verifier.ports import FleetFilter, GuestIdentity
from verifier.store import open_store, postgresql_backend, sqlite_backend, statements
from verifier.store.identities import identity_values
from verifier.store.schema import attester, latest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the SQLite file is."""
    return tmp_path / "verifier.db"


@pytest.fixture
async def sqlite_store(path):
    """A store on that file with one attester."""
    store = await open_store(f"sqlite:///{path}")
    await enrol(store, "att-1")
    yield store
    await store.close()


@pytest.fixture
def small_disk():
    """A file system of one megabyte, or a loud skip."""
    with mounted("1m") as disk:
        yield disk


@pytest.fixture
def protected_file():
    """A database, and how to take the right to write it away; pytest's own folders cannot be entered by others."""
    folder = Path(tempfile.mkdtemp(prefix="vtpm-ro-"))
    yield folder / "verifier.db", lambda: (folder / "verifier.db").chmod(0o444) or folder.chmod(0o555)
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def _changes_nothing(store, item):
    """Every kind of write is refused."""
    for call in (
        store.record(item),
        store.add_token(token()),
        store.revoke_attester("default", "att-1", NOW),
        store.add_policy(policy()),
        store.purge_expired(NOW),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailable):
            await call


async def _on_writer(store, sql):
    """Run a PRAGMA on the connection of the thread that writes."""
    return await store._backend._writer.run(
        lambda c: sqlite_backend.raw_connection(c).execute(sql).fetchall()
    )


@pytest.fixture
def on_writers(monkeypatch):
    """Runs a PRAGMA on both connections that write: that of the thread, and that of the process, which is started anew."""

    async def run(store, sql):
        monkeypatch.setattr(sqlite_backend, "PRAGMAS", (*sqlite_backend.PRAGMAS, sql))
        await store._backend._process.close()
        await _on_writer(store, sql)

    return run


class TestSqlite:
    async def test_every_connection_is_durable_and_checks_references(self, sqlite_store):
        full = 2
        per_connection = {"synchronous": full, "foreign_keys": 1, "busy_timeout": 5000}
        for thread in (sqlite_store._backend._writer, sqlite_store._backend._reader):
            for name, value in per_connection.items():
                found = await thread.run(lambda c, n=name: c.exec_driver_sql(f"PRAGMA {n}").scalar())
                assert found == value, name
            assert await thread.run(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"

    async def test_a_full_disk(self, sqlite_store, on_writers):
        """SQLite's own limit stands for the disk: it takes the same path as ENOSPC (SQLITE_FULL)."""
        store = sqlite_store
        ((pages,),) = await _on_writer(store, "PRAGMA page_count")
        await on_writers(store, f"PRAGMA max_page_count = {pages}")
        big = recording("att-1", boot_log=os.urandom(200_000))
        small = [recording("att-1") for _ in range(3)]
        answers = await asyncio.gather(store.record(big), *map(store.record, small), return_exceptions=True)
        assert isinstance(answers[0], StoreUnavailable)
        assert not any([await store.has_blob(digest) for digest in big.blobs])
        stored = len(await store.history("default", "att-1", before=None, limit=10))
        assert stored == sum(not isinstance(answer, BaseException) for answer in answers)
        await on_writers(store, "PRAGMA max_page_count = 1000000")
        for item, answer in zip([big, *small], answers, strict=True):
            again = await store.record(item)
            assert (again is None) == (not isinstance(answer, BaseException)), (
                "its nonce was spent, or it was not"
            )
        assert len(await store.history("default", "att-1", before=None, limit=10)) == 4

    async def test_a_disk_that_is_really_full(self, small_disk):
        store = await open_store(f"sqlite:///{small_disk}/verifier.db")
        await enrol(store, "att-1")
        stored, refused = [], None
        while refused is None:
            item = recording("att-1", boot_log=os.urandom(20_000))
            try:
                assert await store.record(item) is not None
                stored.append(item)
            except StoreUnavailable:
                refused = item
        assert stored
        history = await store.history("default", "att-1", before=None, limit=1000)
        assert len(history) == len(stored)
        assert not any([await store.has_blob(digest) for digest in refused.blobs])
        await store.close()
        reopened = sqlite_backend.connect(small_disk / "verifier.db")
        with contextlib.closing(reopened):
            assert reopened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def test_a_file_that_may_only_be_read(self, protected_file):
        file, protect = protected_file
        store = await open_store(f"sqlite:///{file}")
        await enrol(store, "att-1")
        await store.close()
        protect()
        with _without_privilege(), pytest.raises(StoreUnavailable):
            await open_store(f"sqlite:///{file}")

    async def test_a_transaction_left_open_by_a_bug_is_undone(self, path, sqlite_store):
        await _on_writer(sqlite_store, "BEGIN IMMEDIATE")
        assert await sqlite_store.record(recording("att-1")) is not None
        await sqlite_store.add_token(token())

    async def test_a_store_that_becomes_read_only_still_answers(self, sqlite_store, on_writers):
        await sqlite_store.record(recording("att-1"))
        await on_writers(sqlite_store, "PRAGMA query_only = 1")
        await _changes_nothing(sqlite_store, recording("att-1"))
        state = await sqlite_store.attester_state("att-1")
        assert state is not None
        assert state.latest is not None
        assert state.latest.sequence == 1

    async def test_a_file_locked_by_another_for_too_long(self, path, monkeypatch):
        monkeypatch.setattr(sqlite_backend, "PRAGMAS", (*sqlite_backend.PRAGMAS, "PRAGMA busy_timeout = 50"))
        store = await open_store(f"sqlite:///{path}")
        await enrol(store, "att-1")
        items = [recording("att-1") for _ in range(5)]
        other = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            answers = await asyncio.gather(*map(store.record, items), return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
            await _changes_nothing(store, items[0])
            assert await store.attester_state("att-1") is not None, "readers do not wait for a writer"
            other.execute("ROLLBACK")
        for item in items:
            assert await store.record(item) is not None
        await store.close()

    async def test_a_damaged_blob_is_named_and_not_returned(self, path, sqlite_store):
        item = recording("att-1")
        await sqlite_store.record(item)
        digests = list(item.blobs)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE blob SET (codec, size, content) = (SELECT codec, size, content FROM blob WHERE digest = ?)"
                " WHERE digest = ?",
                digests,
            )
        with pytest.raises(StoredDataDamaged, match=digests[1].hex()):
            await sqlite_store.blob(digests[1])
        assert await sqlite_store.blob(digests[0]) == item.blobs[digests[0]]

    @pytest.mark.parametrize(
        "change", ["UPDATE judgement SET content = x'00'", "PRAGMA foreign_keys = OFF; DELETE FROM judgement"]
    )
    async def test_a_damaged_judgement_is_never_a_verdict(self, path, sqlite_store, change):
        await sqlite_store.record(recording("att-1"))
        with sqlite3.connect(path) as connection:
            connection.executescript(change)
        for call in (
            sqlite_store.attester_state("att-1"),
            sqlite_store.history("default", "att-1", before=None, limit=5),
            sqlite_store.list_attesters("default", FleetFilter(), now=NOW, cursor=None, limit=5),
        ):
            with pytest.raises(StoredDataDamaged):
                await call

    async def test_a_file_damaged_on_the_disk_is_damage(self, path, sqlite_store):
        await sqlite_store.close()
        damaged = bytearray(path.read_bytes())
        damaged[: 4096 * 8] = os.urandom(4096 * 8)
        path.write_bytes(damaged)
        with pytest.raises(StoredDataDamaged):
            await open_store(f"sqlite:///{path}")

    async def test_a_bug_is_not_an_outage(self, path, sqlite_store):
        """Neither of the two faults: whoever sees it must not just try again."""
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE attestation RENAME COLUMN evidence TO something_else")
        with pytest.raises(sqlite3.OperationalError):
            await sqlite_store.record(recording("att-1"))
        with pytest.raises(sqlalchemy.exc.OperationalError):
            await sqlite_store.evidence_of("default", "att-1", 1)

    async def test_a_file_that_vanished_is_not_made_anew(self, path, sqlite_store):
        await sqlite_store.close()
        path.unlink()
        with pytest.raises(sqlite3.OperationalError):
            sqlite_backend.connect(path)
        assert not path.exists()


@contextlib.contextmanager
def _without_privilege():
    """Root may write everything; be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def _check_after_death(database, acknowledged):
    """Everything that was said to be stored is, once, and the rest is consistent."""
    store = await database.open()
    for nonce, attester_id, _ in acknowledged:
        assert await store.record(recording(attester_id, nonce_hash=bytes.fromhex(nonce))) is None
    for number in range(ATTESTERS):
        history = await store.history("default", f"att-{number}", before=None, limit=100_000)
        assert [verdict.sequence for verdict in history] == list(range(len(history), 0, -1))
        told = {int(sequence) for _, attester_id, sequence in acknowledged if attester_id == f"att-{number}"}
        assert told <= {verdict.sequence for verdict in history}
        state = await store.attester_state(f"att-{number}")
        assert state is not None
        assert state.latest == history[0]
        for verdict in history[:5]:
            evidence = await store.evidence_of("default", verdict.attester_id, verdict.sequence)
            assert evidence is not None
            assert all([await store.blob(bytes.fromhex(digest)) for digest in evidence.values()])


def _write_and_die(url):
    """What a process said it stored before it was killed."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.writer_process", url], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        lines = [writer.stdout.readline() for _ in range(200)]
        writer.send_signal(signal.SIGKILL)
        return b"".join(lines) + writer.stdout.read()
    finally:
        writer.kill()
        writer.wait()


async def test_a_writer_killed_in_the_middle_loses_nothing_it_acknowledged(database):
    """The process dies, not the machine: what the disk does when power fails is not shown here."""
    text = (await asyncio.to_thread(_write_and_die, database.url)).decode()
    acknowledged = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    assert len(acknowledged) >= 200
    await _check_after_death(database, acknowledged)
    if database.url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(database.url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


class TestPostgresql:
    async def test_a_server_that_restarts_is_unavailable_and_then_is_not(self, cluster, postgresql_database):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        item = recording("att-1")
        cluster.stop()
        try:
            await _changes_nothing(store, item)
            with pytest.raises(StoreUnavailable):
                await store.attester_state("att-1")
            with pytest.raises(StoreUnavailable):
                await open_store(postgresql_database.url)
        finally:
            cluster.start()
        assert await store.record(item) is not None
        await store.ping()

    async def test_a_connection_that_was_cut_meanwhile_is_made_again_and_nobody_notices(
        self, cluster, postgresql_database
    ):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        for sequence in (1, 2, 3):
            assert (await store.record(recording("att-1"))).sequence == sequence
            state = await store.attester_state("att-1")
            assert state.latest.sequence == sequence
            cluster.disconnect(postgresql_database.name)

    async def test_a_batch_that_fails_leaves_nothing_open_behind_it(self, cluster, postgresql_database):
        """Nothing it locked stays locked, and its connection goes on."""
        store, other = await postgresql_database.open(), await postgresql_database.open()
        await enrol(store, "att-1")
        cluster.sql(
            "ALTER TABLE attestation RENAME COLUMN evidence TO something_else", postgresql_database.name
        )
        for _ in range(2):
            with pytest.raises(asyncpg.UndefinedColumnError):
                await store.record(recording("att-1"))
        cluster.sql(
            "ALTER TABLE attestation RENAME COLUMN something_else TO evidence", postgresql_database.name
        )
        item = recording("att-1")
        assert (await asyncio.wait_for(other.record(item), 5)).sequence == 1
        assert (await store.record(recording("att-1"))).sequence == 2

    async def test_a_restart_under_load_loses_nothing_it_acknowledged(self, cluster, postgresql_database):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        stored, refused, stop = [], [], asyncio.Event()

        async def write():
            while not stop.is_set():
                item = recording("att-1")
                try:
                    assert await store.record(item) is not None
                    stored.append(item)
                except StoreUnavailable:
                    refused.append(item)
                    await asyncio.sleep(0.02)

        writers = [asyncio.ensure_future(write()) for _ in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(cluster.stop)
        await asyncio.to_thread(cluster.start)
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*writers)
        assert await store.record(recording("att-1")) is not None, "it goes on afterwards"
        assert refused
        for item in stored:
            assert await store.record(item) is None
        history = await store.history("default", "att-1", before=None, limit=100_000)
        assert [verdict.sequence for verdict in history] == list(range(len(history), 0, -1))
        # A commit whose answer was cut off may have been made: refused to the caller, yet spent.
        assert len(stored) + 1 <= len(history) <= len(stored) + 1 + len(refused)

    async def test_a_server_that_says_nothing_is_given_up_and_asked_again(
        self, cluster, postgresql_database, monkeypatch
    ):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        item = recording("att-1")
        cluster.pause()
        try:
            with monkeypatch.context() as impatient:
                for name in ("_SHORT", "_LONG"):
                    impatient.setattr(postgresql_backend, name, 0.3)
                calls = (
                    store.record(item),
                    store.attester_state("att-1"),
                    store.ping(),
                    store.add_token(token()),
                )
                answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailable] * 4, answers
            assert "within 0.3 s" in str(answers[0])
        finally:
            cluster.go_on()
        for _ in range(2):  # what was given up may still be made
            await store.record(item)
        assert [
            verdict.sequence for verdict in await store.history("default", "att-1", before=None, limit=9)
        ] == [1]
        assert await store.record(recording("att-1")) is not None

    async def test_a_replica_that_stands_still_holds_nobody_up_for_ever(
        self, postgresql_database, monkeypatch
    ):
        monkeypatch.setattr(postgresql_backend, "_IDLE_IN_TRANSACTION", "2000")
        frozen, other = await postgresql_database.open(), await postgresql_database.open()
        await enrol(frozen, "att-1")

        async def hold():
            async with frozen._backend._engine.begin() as connection:
                await connection.execute(
                    update(latest).where(latest.c.attester_id == "att-1").values(sequence=7)
                )
                await asyncio.sleep(20)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0.1)
        stored = await asyncio.wait_for(other.record(recording("att-1")), 10)
        assert stored.sequence == 1
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert await frozen.record(recording("att-1")) is not None

    async def test_a_read_only_standby_takes_no_writes(self, cluster, postgresql_database):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        await store.record(recording("att-1"))
        cluster.sql(f"ALTER DATABASE {postgresql_database.name} SET default_transaction_read_only = on")
        cluster.disconnect(postgresql_database.name)
        await _changes_nothing(store, recording("att-1"))
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.latest is not None
        assert state.latest.sequence == 1

    async def test_no_claim_is_lost_to_an_enrolment_on_another_replica(self, postgresql_database):
        store = await postgresql_database.open()
        before = await enrol(store, "att-1")
        claims = frozenset({before.identity.smbios_uuid, "claimed-elsewhere"})

        def enrolled_elsewhere(connection):
            connection.execute(statements.CHANGE_IDENTITY, identity_values("att-1", before.identity, claims))
            connection.execute(select(func.pg_sleep(0.3)))

        elsewhere = asyncio.ensure_future(store._backend.write(enrolled_elsewhere))
        await asyncio.sleep(0.15)
        await store.record(recording("att-1", identity=GuestIdentity(smbios_uuid="claimed-here")))
        await elsewhere
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester.smbios_uuids == claims | {"claimed-here"}

    async def test_of_two_in_a_deadlock_one_starts_again(self, postgresql_database):
        store = await postgresql_database.open()
        for name in ("att-1", "att-2"):
            await enrol(store, name)
        begun = []

        def change(first, second):
            def work(connection):
                begun.append(first)
                for name in (first, second):
                    connection.execute(update(attester).where(attester.c.id == name).values(policy_id=first))
                    connection.execute(select(func.pg_sleep(0.2)))

            return work

        await asyncio.gather(
            store._backend.write(change("att-1", "att-2")), store._backend.write(change("att-2", "att-1"))
        )
        assert len(begun) >= 3  # whoever starts again may be the faster one once more
        states = [await store.attester_state(name) for name in ("att-1", "att-2")]
        assert len({state.attester.policy_id for state in states}) == 1

    async def test_what_the_server_that_took_over_lacks_is_written_anew(self, cluster, postgresql_database):
        """A standby that followed from afar may not have what the primary had confirmed."""
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        log = b"a log of many" * 50
        await store.record(recording("att-1", boot_log=log))
        cluster.sql("DELETE FROM blob", postgresql_database.name)
        cluster.disconnect(postgresql_database.name)
        await store.record(recording("att-1", boot_log=log))
        assert await store.blob(sha256(log)) == log

    async def test_connections_cut_off_are_replaced(self, cluster, postgresql_database):
        store = await postgresql_database.open()
        await enrol(store, "att-1")
        await asyncio.gather(*(store.attester_state("att-1") for _ in range(8)))
        cluster.disconnect(postgresql_database.name)
        assert await store.attester_state("att-1") is not None
        assert await store.record(recording("att-1")) is not None
