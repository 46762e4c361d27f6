"""The process that writes recordings to SQLite: it ends, is stopped, or is told nonsense; nothing is lost, and nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import text

from tests.bench.fleet.processors import children
from tests.contract.records import enrol, recording, token
from tests.eventually import eventually
from verifier.errors import StoreUnavailable
from verifier.store import open_store, sqlite_backend, sqlite_process
from verifier.store.judgements import Judgements
from verifier.store.recording import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def store(tmp_path):
    """With one attester that has attested once, so that the process is there."""
    made = await open_store(f"sqlite:///{tmp_path}/verifier.db")
    await enrol(made, "att-1")
    assert (await made.record(recording("att-1"))).sequence == 1
    yield made
    await made.close()


def pid_of(store) -> int:
    return store._backend._process._process.pid


def state_of(pid: int) -> str:
    """As in proc(5); X: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


async def history(store) -> list[int]:
    return [verdict.sequence for verdict in await store.history("default", "att-1", before=None, limit=100)]


async def test_it_is_started_for_the_first_recording_and_ends_with_the_store(tmp_path):
    store = await open_store(f"sqlite:///{tmp_path}/verifier.db")
    before = set(children(os.getpid()))
    await enrol(store, "att-1")
    assert set(children(os.getpid())) == before, "whoever records nothing needs no process"
    await store.record(recording("att-1"))
    pid = pid_of(store)
    assert set(children(os.getpid())) - before == {pid}
    await store.close()
    assert state_of(pid) == "X"


async def test_its_connection_is_durable_and_checks_references(store):
    talk = store._backend._process._talk
    for name, value in {"synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}.items():
        assert await talk.ask("begin", f"SELECT * FROM pragma_{name} WHERE ?1 = 'x'", "x") == [(value,)], name
        await talk.ask("undo")


async def test_killed_between_two_recordings_it_is_started_again(store):
    first = pid_of(store)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: store._backend._process._talk.over)
    assert (await store.record(recording("att-1"))).sequence == 2
    assert pid_of(store) != first


async def test_killed_in_the_middle_whoever_waits_is_told_that_nobody_knows(store):
    items = [recording("att-1") for _ in range(3)]
    os.kill(pid_of(store), signal.SIGSTOP)
    calls = [asyncio.create_task(store.record(item)) for item in items]
    await eventually(lambda: store._backend._process._talk._asked)
    os.kill(pid_of(store), signal.SIGKILL)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert await history(store) == [1]
    again = [await store.record(item) for item in items]
    assert [verdict.sequence for verdict in again] == [2, 3, 4], "no nonce was spent"


@pytest.mark.parametrize("answering", [False, True])
async def test_it_ends_with_its_worker_however_that_ends(tmp_path, answering):
    """Without a word, also where it has an answer that nobody takes any more."""
    url = f"sqlite:///{tmp_path}/verifier.db"
    command = [sys.executable, "-m", "tests.contract.writer_process", url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    worker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes)
    try:
        await worker.stdout.readline()  # it has recorded, and goes on
        (pid,) = children(worker.pid)
        if answering:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.1)  # until the worker waits for it
    finally:
        worker.kill()
    await eventually(lambda: state_of(worker.pid) in {"X", "Z"})
    if answering:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: state_of(pid) in {"X", "Z"})
    assert await worker.stderr.read() == b""
    await worker.wait()


async def test_what_is_sent_to_all_processes_of_a_service_ends_the_worker_and_not_it(store):
    pid = pid_of(store)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert (await store.record(recording("att-1"))).sequence == 2
    assert pid_of(store) == pid


async def test_one_spent_nonce_among_fresh_ones_takes_nothing_from_the_others(store):
    spent = recording("att-1")
    assert (await store.record(spent)).sequence == 2
    items = [recording("att-1"), spent, recording("att-1")]
    answers = await asyncio.gather(*map(store.record, items))
    assert [answer and answer.sequence for answer in answers] == [3, None, 4]
    assert await history(store) == [4, 3, 2, 1]
    assert all([await store.has_blob(digest) for item in items for digest in item.blobs])


async def test_what_cannot_be_written_fails_its_own_caller(store):
    """More than SQLite's integers hold: a bug, and no outage."""
    good, bad = recording("att-1"), recording("att-1")
    bad = structs.replace(bad, verdict=structs.replace(bad.verdict, policy_revision=2**70))
    answers = await asyncio.gather(store.record(bad), store.record(good), return_exceptions=True)
    assert isinstance(answers[0], RuntimeError)
    assert "OverflowError" in str(answers[0])
    assert answers[1].sequence == 2
    assert (await store.record(recording("att-1"))).sequence == 3


async def test_one_that_cannot_be_started_is_an_outage_until_it_can(store, monkeypatch, tmp_path):
    await store._backend._process.close()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_process, "_PROGRAM", tmp_path / "gone.py")
        with pytest.raises(StoreUnavailable):
            await store.record(recording("att-1"))
        patch.setattr(sys, "executable", str(tmp_path / "gone"))
        with pytest.raises(StoreUnavailable, match="cannot be started"):
            await store.record(recording("att-1"))
    assert (await store.record(recording("att-1"))).sequence == 2


async def test_each_request_gets_its_own_answer(store):
    talk = store._backend._process._talk
    read, undone = talk.ask("begin", "SELECT ?1", "x"), talk.ask("undo")
    assert await asyncio.gather(read, undone) == [[("x",)], None]


async def test_whoever_gives_up_gets_nobody_elses_answer(store):
    process, said = store._backend._process, Judgements()
    items = [prepare(recording("att-1"), said) for _ in range(2)]
    os.kill(pid_of(store), signal.SIGSTOP)
    given_up = asyncio.create_task(process.write(items[:1], store._backend._held))
    await eventually(lambda: process._talk._asked)
    given_up.cancel()
    await asyncio.sleep(0)
    os.kill(pid_of(store), signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await given_up
    plan = await process.write(items[1:], store._backend._held)
    assert plan.outcomes == [2]
    assert await history(store) == [2, 1]


async def test_it_and_the_thread_that_writes_take_turns(tmp_path, monkeypatch):
    """Here nobody waits for a lock on the file: whoever meets one fails."""
    pragmas = (*sqlite_backend.PRAGMAS, "PRAGMA busy_timeout = 0")
    monkeypatch.setattr(sqlite_backend, "PRAGMAS", pragmas)
    store = await open_store(f"sqlite:///{tmp_path}/verifier.db")
    await enrol(store, "att-1")
    for _ in range(10):
        recorded = store.record(recording("att-1")), store.record(recording("att-1"))
        dropped = store._backend.drop(
            lambda connection: connection.execute(text("DELETE FROM event")).rowcount
        )
        await asyncio.gather(*recorded, store.add_token(token()), dropped)
    assert await history(store) == list(range(20, 0, -1))
    await store.close()
