"""Killed while old verdicts, their evidence and their part of the transparency log are dropped: nothing that is to stay is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime

import pytest

from tests.contract.doctoring import KEY, sequence
from tests.contract.records import NOW, enrol, recording
from tests.contract.test_evidence import held
from tests.eventually import eventually
from tests.faults.purger import DAY
from tests.faults.striking import Strike, Striker
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Trust
from verifier.store import open_store, partitions, values

MACHINES = ("att-1", "att-2", "silent")
MOST_STEPS = 1000
WEEK = 7 * DAY


async def grow_old(store, turn: int) -> None:
    """A long time ago, and once lately but for one machine. No week is made again once it was dropped."""
    for days in (158, 157, 150):
        then = NOW - days * DAY - 3 * turn * WEEK
        if store._backend.partitioned:
            await make_week(store, then)
        for each in MACHINES:
            log = b"a log of then %d %d" % (turn, days) * 50
            await store.record(recording(each, at=then, boot_log=log))
    for each in MACHINES[:2]:
        await store.record(recording(each, at=NOW))
    await store._backend.write(sequence)


async def make_week(store, at: datetime) -> None:
    """The partition of that week, as there was one. Whoever was killed may hold its locks until the server has noticed."""
    week = partitions.week_of(values.micros(at))

    async def made() -> bool:
        await store._backend.write(lambda connection: partitions.make(connection, week))
        return week in {one.begins for one in await store._backend.write(partitions.partitions)}

    await eventually(made)


async def what_stays(store) -> dict[str, int]:
    """The latest verdict of each machine; with its evidence."""
    found = {each: (await store.attester_state(each)).latest.sequence for each in MACHINES}
    for each, number in found.items():
        assert await held(store, each, number) == {"quote", "boot-log"}, (each, number)
        assert (await store.history("default", each, before=None, limit=1))[0].sequence == number
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path) -> str:
    """A database that is not there yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'verifier.db'}"
    server, name = request.getfixturevalue("durable_cluster"), f"retention_{os.urandom(6).hex()}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.mark.slow
@pytest.mark.parametrize("strike", [Strike.KILL, Strike.TEAR], ids=["killed", "torn"])
async def test_killed_while_what_is_old_is_dropped(tmp_path, place, strike):
    striker = Striker(tmp_path)
    store = await open_store(place)
    try:
        for each in MACHINES:
            await enrol(store, each)
        after, turn, reached = 0, 0, True
        while reached:
            assert after < MOST_STEPS, "a purge has no end"
            await grow_old(store, turn)
            before = await what_stays(store)
            striker.arm(strike, after)
            purger = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.purger", place,
                stderr=PIPE, env={**os.environ, **striker.environment},
            )  # fmt: skip
            _, said = await purger.communicate()
            reached = striker.disarm() > after
            assert purger.returncode == (-signal.SIGKILL if reached else 0), said.decode()
            assert await what_stays(store) == before, f"killed at step {after}"
            report = await asyncio.to_thread(
                audit_database, place, Trust(keys=(KEY.key,)), kept_since=datetime.now(UTC) + DAY
            )
            assert list(report.findings) == [], f"killed at step {after}"
            if not store._backend.partitioned:
                with sqlite3.connect(tmp_path / "verifier.db") as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert (await store.record(recording("att-1"))).sequence == before["att-1"] + 1
            after += 1 + after // 8
            turn += 1
        assert after > 10
        left = {each: len(await store.history("default", each, before=None, limit=1000)) for each in MACHINES}
        assert left["silent"] == 1, "and in the end it is dropped"
        kept = {one.name for one in await store.storage()}
        assert not [name for name in kept if name.startswith("dropped_")]
    finally:
        await store.close()
