"""What only replicas on PostgreSQL have: changes told to each other by NOTIFY, and history in weekly partitions.

Held against the bare operation on the same server: one row and a NOTIFY from one connection to another, a DELETE of as many rows, the
same history in one partition.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from tests.bench.measure import Result
from tests.contract import records
from tests.eventually import eventually
from tests.postgresql import Cluster, binaries
from verifier.logs import configure_logs
from verifier.store import SqlStore, open_store, partitions, values
from verifier.store.schema import attestation

_TOLD: Final = 100
_ROWS: Final = 200_000
"""Of the week that is dropped."""
_READS: Final = 200
_WEEKS: Final = 13
"""Of 90 days."""
_POLL_MS: Final = 250.0
"""So often a replica looks by itself where nobody tells it."""
_PATTERN: Final = "pattern"


async def _told(server: Cluster, url: str) -> list[Result]:
    """From before the change to when another replica hears of it, its commit included."""
    first, second = await open_store(url), await open_store(url)
    heard = asyncio.Event()
    second.announcements.listen(lambda _: heard.set())
    for store in (first, second):
        store.follow()
    await eventually(lambda: first.announcements.state.told and second.announcements.state.told)
    try:
        took = []
        for number in range(_TOLD):
            change = records.policy(revision=f"{number:064x}")
            took.append(await _until(heard, lambda change=change: first.add_policy(change)))
    finally:
        await asyncio.gather(first.close(), second.close())
    bare = statistics.median(await _bare_notify(server))
    median, worst = statistics.median(took), max(took)
    return [
        Result(
            f"another replica hears of a change, slowest of {_TOLD} (median {median:.1f} ms)",
            worst,
            "ms",
            f"a row and a bare NOTIFY {bare:.1f} ms",
            median / bare,
            f"<= {_POLL_MS:g} ms",
            worst <= _POLL_MS,
        )
    ]


async def _bare_notify(server: Cluster) -> list[float]:
    says, hears = [
        await asyncpg.connect(host=str(server.root), user="verifier", database="replicas") for _ in range(2)
    ]
    heard = asyncio.Event()
    try:
        await hears.add_listener("bare", lambda *_: heard.set())
        await says.execute("CREATE TABLE bare (n int)")

        async def act() -> None:
            await says.execute("INSERT INTO bare VALUES (1)")
            await says.execute("NOTIFY bare, 'x'")

        return [await _until(heard, act) for _ in range(_TOLD)]
    finally:
        await asyncio.gather(says.close(), hears.close())


async def _until(heard: asyncio.Event, act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds from the act until it was heard of."""
    heard.clear()
    started = time.perf_counter()
    await act()
    await asyncio.wait_for(heard.wait(), 30)
    return (time.perf_counter() - started) * 1e3


async def _partitions(server: Cluster, url: str) -> list[Result]:
    store = await open_store(url)
    try:
        old = datetime.now(UTC) - timedelta(weeks=_WEEKS)
        for weeks in range(_WEEKS):
            await store.prepare_history(old + timedelta(weeks=weeks))
        await records.enrol(store, _PATTERN)
        await store.record(records.recording(_PATTERN, at=datetime.now(UTC)))
        week = partitions.week_of(values.micros(old))
        return [await _dropped(server, store, week), await _read(server, store, week)]
    finally:
        await store.close()


async def _dropped(server: Cluster, store: SqlStore, week: int) -> Result:
    """A week goes as a table; the one after it, as large, row by row."""
    for begins in (week, week + partitions.WEEK):
        _fill(server, begins, f"'bench-' || n, 1, {begins} + n")
    ends = week + partitions.WEEK
    server.sql("CHECKPOINT")
    started = server.cpu()
    purged = await store.purge_history(values.moment(ends))
    cost = server.cpu() - started
    assert purged.partitions == 1, purged
    started = server.cpu()
    server.sql(
        f"DELETE FROM attestation WHERE judged_at >= {ends} AND judged_at < {ends + partitions.WEEK}",
        "replicas",
    )
    bare = server.cpu() - started
    return Result(
        f"a week of {_ROWS:,} verdicts dropped, PostgreSQL's CPU",
        cost * 1e3,
        "ms",
        f"DELETE of as many {bare * 1e3:.0f} ms, VACUUM to come",
        cost / bare,
        "<= 0.5x",
        cost / bare <= 0.5,
    )


async def _read(server: Cluster, store: SqlStore, week: int) -> Result:
    """A page of the history of an attester: one whose verdicts are in all weeks, and one with as many in the last."""
    last = week + _WEEKS * partitions.WEEK
    step = (last - week) // 100
    _fill(
        server,
        week,
        f"'spread', n, {week + partitions.WEEK} + n * {step} % {last - week - partitions.WEEK}",
        100,
    )
    _fill(server, week, f"'recent', n, {last} + n", 100)
    spread = recent = 1e9
    for _ in range(5):
        spread = min(spread, await _history(server, store, "spread"))
        recent = min(recent, await _history(server, store, "recent"))
    return Result(
        f"history of an attester, 50 verdicts, {_WEEKS} partitions, verifier and PostgreSQL",
        spread * 1e3,
        "ms",
        f"all of them in one {recent * 1e3:.1f} ms",
        spread / recent,
        "<= 2x",
        spread / recent <= 2,
    )


async def _history(server: Cluster, store: SqlStore, attester_id: str) -> float:
    """CPU seconds of a page."""
    before, started = server.cpu(), time.process_time()
    for _ in range(_READS):
        found = await store.history("default", attester_id, before=None, limit=50)
        assert len(found) == 50, len(found)
    return (time.process_time() - started + server.cpu() - before) / _READS


def _fill(server: Cluster, at: int, own: str, count: int = _ROWS) -> None:
    """Copies of the one real verdict; `own`: attester, sequence and time of the n-th."""
    columns = ", ".join(
        column.name for column in attestation.c if column.name not in {"attester_id", "sequence", "judged_at"}
    )
    server.sql(
        f"INSERT INTO attestation (attester_id, sequence, judged_at, {columns}) "
        f"SELECT {own}, {columns} FROM attestation, generate_series(1, {count}) AS n "
        f"WHERE attester_id = '{_PATTERN}'",
        "replicas",
    )


def replicas() -> list[Result]:
    found = binaries()
    if found is None:
        return []
    configure_logs("json", "error", sys.stderr)
    server = Cluster(found, durable=True)
    try:
        server.initialise()
        server.sql("CREATE DATABASE replicas")
        url = server.url("replicas")
        return asyncio.run(_told(server, url)) + asyncio.run(_partitions(server, url))
    finally:
        server.remove()


BENCHES: Final = {"replicas": replicas}
