"""Steady attestations that are stored at once, against the transaction that asks first."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from msgspec import structs
from sqlalchemy import select

from tests.contract.conftest import Database, _on_cluster
from tests.contract.records import CLOCK, MINUTE, NOW, enrol, recording, sha256
from tests.once import migrated
from verifier.appraisal.lineage import Lineage
from verifier.errors import StateMovedError
from verifier.store import postgresql_backend, postgresql_hot, sqlite_process
from verifier.store import recording as recording_module
from verifier.store.postgresql_hot import Line
from verifier.store.postgresql_steady import write_steady
from verifier.store.schema import attestation, blob, judgement, latest, nonce
from verifier.store.schema_events import event
from verifier.store.schema_log import log_batch

_NAMES = [f"att-{number}" for number in range(5)]


@pytest.fixture
async def store(database):
    """With five attesters that have attested once."""
    return await _attested(await database.open())


async def _attested(store, names=_NAMES):
    for name in (*names, "att-warm"):
        await enrol(store, name)
        await store.record(recording(name, quote=b"first of " + name.encode()))
    # What is held is forgotten when a connection is made, and known again after its first use.
    await store.record(await _steady(store, "att-warm", nonce_hash=b"warm".rjust(32)))
    return store


async def _steady(store, name="att-0", minutes=1, **changes):
    """Evidence of a machine of which nothing but its clock changes."""
    state = await store.attester_state(name)
    item = recording(
        name,
        at=NOW + minutes * MINUTE,
        clock=structs.replace(CLOCK, clock=minutes),
        quote=f"{name} {minutes}".encode(),
        identity=state.attester.identity,
    )
    changed = {"position": state.position, "judged_by": state, "boot_goes_on": True} | changes
    return structs.replace(item, **changed)


@pytest.fixture
def the_long_way(monkeypatch):
    """How many rounds went by the transaction that asks first."""
    rounds = []
    transaction, ask = Line.transaction, sqlite_process._Talk.ask

    async def begun(self, work):
        rounds.append("PostgreSQL")
        return await transaction(self, work)

    async def asked(self, *request):
        rounds.extend("SQLite" for _ in request[:1] if request[0] == "write")
        return await ask(self, *request)

    monkeypatch.setattr(Line, "transaction", begun)
    monkeypatch.setattr(sqlite_process._Talk, "ask", asked)
    return rounds


def _together(store, items):
    return asyncio.gather(*map(store.record, items), return_exceptions=True)


async def _rows(store, *columns):
    return sorted(map(repr, await store._backend.rows(select(*columns))))


async def _everything(store):
    """All that a recording writes, but for what is made anew each time."""
    random = {"log_batch", "nonce_hash"}
    tables = (attestation, latest, blob, judgement)
    kept = {
        table.name: await _rows(store, *(column for column in table.c if column.name not in random))
        for table in tables
    }
    return kept | {
        "log": await _rows(store, log_batch.c.leaf_count, log_batch.c.leaves),
        "nonces": await _rows(store, nonce.c.hash),
        "events": await _rows(store, event.c.kind, event.c.subject, event.c.at),
    }


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_it_stores_what_the_transaction_would(request, tmp_path, kind, monkeypatch, the_long_way):
    stored = []
    for long in (False, True):
        if kind == "sqlite":
            migrated(path := tmp_path / f"{long}.db")
            database = Database(f"sqlite:///{path}", "verifier.db")
        else:
            database = _on_cluster(request.getfixturevalue("cluster"))
        found = await _attested(await database.open())
        if long:
            monkeypatch.setattr(recording_module, "plan_steady", lambda *_given: None)
        the_long_way.clear()
        first = await _rows(found, nonce.c.hash)
        for minutes in (1, 2, 3):
            line = None if minutes == 2 else Lineage(clock=CLOCK, step=minutes)
            items = [
                await _steady(
                    found, name, minutes, nonce_hash=f"{name} {minutes}".rjust(32).encode(), lineage=line
                )
                for name in _NAMES
            ]
            await _together(found, items)
        assert bool(the_long_way) is long
        rows = await _everything(found)
        rows["nonces"] = sorted(set(rows["nonces"]) - set(first))
        stored.append(rows | {"log": rows["log"][-3:]})
        await database.close()
    at_once, asked = stored
    assert len(at_once["nonces"]) == 3 * len(_NAMES)
    for table, rows in asked.items():
        assert at_once[table] == rows, table


@pytest.mark.parametrize("number", [1, 3, 9, 13])
async def test_any_number_of_machines_is_one_transaction(database, the_long_way, number):
    found = await database.open()
    names = [f"att-{n}" for n in range(number)]
    await _attested(found, names)
    the_long_way.clear()
    before = len(await _rows(found, log_batch.c.id))
    answers = await _together(found, [await _steady(found, name) for name in names])
    assert [one.sequence for one in answers] == [2] * number
    assert the_long_way == []
    assert len(await _rows(found, log_batch.c.id)) == before + 1
    for name in names:
        assert (await found.attester_state(name)).position == 2


async def test_more_than_one_statement_takes_are_two(postgresql_database, the_long_way):
    found = await postgresql_database.open()
    names = [f"att-{n}" for n in range(postgresql_hot.MOST + 2)]
    await _attested(found, names)
    the_long_way.clear()
    answers = await _together(found, [await _steady(found, name) for name in names])
    assert {one.sequence for one in answers} == {2}
    assert the_long_way == []


async def test_a_spent_nonce_takes_nothing_from_the_others(store, the_long_way):
    spent = await _steady(store)
    await store.record(spent)
    the_long_way.clear()
    before = len(await _rows(store, log_batch.c.id))
    items = [await _steady(store, name, 2) for name in _NAMES]
    items[2] = structs.replace(items[2], nonce_hash=spent.nonce_hash)
    answers = await _together(store, items)
    assert [one and one.sequence for one in answers] == [3, 2, None, 2, 2]
    assert not await store.has_blob(items[2].verdict.evidence_sha256)
    assert the_long_way
    assert len(await _rows(store, log_batch.c.id)) == before + 1, "all others together"


async def test_of_two_machines_with_one_nonce_one_is_heard(store):
    first, second = [await _steady(store, name) for name in _NAMES[:2]]
    answers = await _together(store, [first, structs.replace(second, nonce_hash=first.nonce_hash)])
    assert [one and one.sequence for one in answers] == [2, None]


async def test_of_one_machine_twice_the_second_is_judged_again(store):
    items = [await _steady(store, minutes=1), await _steady(store, minutes=2), await _steady(store, "att-1")]
    answers = await _together(store, items)
    assert answers[0].sequence == 2
    assert isinstance(answers[1], StateMovedError)
    assert answers[2].sequence == 2
    assert not await store.has_blob(items[1].verdict.evidence_sha256)


async def test_a_machine_that_is_another_now_takes_nothing_from_the_others(store):
    items = [await _steady(store, name) for name in _NAMES]
    await store.revoke_attester("default", "att-3", NOW)
    answers = await _together(store, items)
    assert [type(one).__name__ for one in answers] == [
        *["VerdictRecord"] * 3,
        "StateMovedError",
        "VerdictRecord",
    ]
    (again,) = await _together(store, [await _steady(store, "att-3", nonce_hash=items[3].nonce_hash)])
    assert again.sequence == 2, "its nonce was not spent"


async def test_the_number_of_a_verdict_is_the_one_after_the_stored_one(store):
    """Whatever the number was when this was judged: a database that was restored gives numbers again."""
    item = await _steady(store)
    latest_then = structs.replace(item.judged_by.latest, sequence=41)
    item = structs.replace(item, judged_by=structs.replace(item.judged_by, latest=latest_then))
    assert (await store.record(item)).sequence == 2


async def test_a_machine_of_another_tenant_is_not_found(store):
    item = await _steady(store)
    foreign = structs.replace(item, verdict=structs.replace(item.verdict, tenant="other"))
    (answer,) = await _together(store, [foreign])
    assert type(answer).__name__ == "NotFoundError"
    assert (await store.record(item)).sequence == 2


async def test_whoever_changes_a_machine_meanwhile_is_waited_for(postgresql_database):
    """And what was changed then is seen, although the statement had begun before."""
    store = await _attested(await postgresql_database.open())
    items = [await _steady(store, name) for name in _NAMES[:2]]
    other = await asyncpg.connect(postgresql_database.url)
    try:
        async with other.transaction():
            await other.execute("""UPDATE attester SET labels = '{"site":"b"}' WHERE id = 'att-1'""")
            recorded = asyncio.ensure_future(_together(store, items))
            await _somebody_waits(postgresql_database)
        answers = await recorded
    finally:
        await other.close()
    assert [type(one).__name__ for one in answers] == ["VerdictRecord", "StateMovedError"]


async def _somebody_waits(database):
    watcher = await asyncpg.connect(database.url)
    try:
        async with asyncio.timeout(10):
            while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    finally:
        await watcher.close()


async def test_of_two_replicas_one_is_overtaken(store, database):
    second = await database.open()
    for minutes in range(1, 6):
        items = [await _steady(store, name, minutes) for name in _NAMES]
        theirs = [await _steady(second, name, minutes, nonce_hash=bytes([minutes]) * 31 + bytes([n]))
                  for n, name in enumerate(_NAMES)]  # fmt: skip
        answers = await asyncio.gather(_together(store, items), _together(second, theirs[::-1]))
        for mine, other in zip(answers[0], answers[1][::-1], strict=True):
            assert sorted(type(one).__name__ for one in (mine, other)) == ["StateMovedError", "VerdictRecord"]
    for name in _NAMES:
        assert (await store.attester_state(name)).latest.sequence == 6


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError("reset by peer"),
    ],
)
@pytest.mark.parametrize("done", [False, True])
async def test_cut_while_it_waits_for_the_answer_nothing_is_stored_twice(
    postgresql_database, monkeypatch, done, error
):
    """Whether the server had done it nobody knows; the nonce does."""

    async def cut(connection, *given):
        if done:
            await write_steady(connection, *given)
        connection.terminate()
        raise error

    store = await _attested(await postgresql_database.open())
    item = await _steady(store)
    monkeypatch.setattr(postgresql_backend, "write_steady", cut)
    (answer,) = await _together(store, [item])
    assert isinstance(answer, StateMovedError) is done
    monkeypatch.undo()
    if done:
        assert await store.record(await _steady(store, minutes=2, nonce_hash=item.nonce_hash)) is None
    assert [one.sequence for one in await store.history("default", "att-0", before=None, limit=9)] == [2, 1]
    assert (await store.record(await _steady(store, minutes=2))).sequence == 3


async def test_what_is_said_for_the_first_time_goes_the_long_way_once_on_postgresql(
    store, database, the_long_way
):
    items = [await _steady(store, name) for name in _NAMES]
    said = (
        {"code": "quote-verified", "status": "passed", "severity": "info", "message": "new", "pcr": None},
    )
    items = [structs.replace(one, verdict=structs.replace(one.verdict, findings=said)) for one in items]
    the_long_way.clear()
    for some in (items[:1], items[1:]):
        await _together(store, some)
        assert len(the_long_way) == (1 if database.url.startswith("postgresql") else 0)
    assert (await store.attester_state("att-4")).latest.findings == said


async def test_what_failed_is_no_promise(store):
    """What it would have stored is stored by the next: see `TestContents` of the same name."""
    log = b"a log that is new"
    first, second = [_with_log(await _steady(store, name), log) for name in _NAMES[:2]]
    broken = structs.replace(first, verdict=structs.replace(first.verdict, policy_revision=object()))
    (failed,) = await _together(store, [broken])
    assert isinstance(failed, Exception)
    assert (await store.record(second)).sequence == 2
    assert await store.blob(sha256(log)) == log


def _with_log(item, log):
    evidence = {**item.evidence, "boot-log": sha256(log).hex()}
    return structs.replace(item, blobs={**item.blobs, sha256(log): log}, evidence=evidence)


async def test_the_clock_of_the_verdicts_is_the_newest(store):
    for minutes in (1, 2):
        await store.record(await _steady(store, minutes=minutes))
    state = await store.attester_state("att-0")
    assert state.boot.clock.clock == 2
    assert state.boot.seen_at == NOW + timedelta(minutes=2)
