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
from tests.faults.purger import DAY
from tests.faults.striking import Strike, Striker
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Trust
from verifier.store import open_store

MACHINES = ("att-1", "att-2", "silent")
MOST_STEPS = 1000


async def grow_old(store) -> None:
    """A long time ago, and once lately but for one machine. No week is made again once it was dropped."""
    for days in (200, 199, 150):
        for each in MACHINES:
            log = b"a log of then %d" % days * 50
            await store.record(recording(each, at=NOW - days * DAY, boot_log=log))
    for each in MACHINES[:2]:
        await store.record(recording(each, at=NOW))
    await store._backend.write(sequence)


async def what_stays(store) -> dict[str, int]:
    """The latest verdict of each machine; with its evidence."""
    found = {each: (await store.attester_state(each)).latest.sequence for each in MACHINES}
    for each, number in found.items():
        assert await held(store, each, number) == {"quote", "boot-log"}, (each, number)
        assert (await store.history("default", each, before=None, limit=1))[0].sequence == number
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strike", [Strike.KILL, Strike.TEAR], ids=["killed", "torn"])
async def test_killed_while_what_is_old_is_dropped(tmp_path, strike):
    striker, place = Striker(tmp_path), f"sqlite:///{tmp_path / 'verifier.db'}"
    store = await open_store(place)
    try:
        for each in MACHINES:
            await enrol(store, each)
        after, reached = 0, True
        while reached:
            assert after < MOST_STEPS, "a purge has no end"
            await grow_old(store)
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
            with sqlite3.connect(tmp_path / "verifier.db") as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert (await store.record(recording("att-1"))).sequence == before["att-1"] + 1
            after += 1 + after // 8
        assert after > 10
        left = {each: len(await store.history("default", each, before=None, limit=1000)) for each in MACHINES}
        assert left["silent"] == 1, "and in the end it is dropped"
    finally:
        await store.close()
