"""SQLite: one file, one writer. Two threads of its own serve the hot path with the standard library's module.

The file is in WAL mode with synchronous=FULL: a commit is on the disk when it returns. Readers never wait for
the writer. Writers of this process take turns by a lock; other processes by SQLite's own, for `BUSY_SECONDS`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
from sqlalchemy import ClauseElement, Select, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from verifier.errors import StoreUnavailable
from verifier.store import recording, statements
from verifier.store.batching import Batcher
from verifier.store.faults import translated
from verifier.store.recording import Outcome, PreparedRecording
from verifier.store.rows import Row, Values
from verifier.store.statements import HotStatements, InsertInto

BUSY_SECONDS: Final = 5.0
PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA wal_autocheckpoint = 4000",
)
_DIALECT: Final = sqlite.dialect(paramstyle="named")

T = TypeVar("T")
Read = tuple[str, Mapping[str, Any]]


def _text(statement: ClauseElement) -> str:
    """SQL with `:name` for every parameter. Constants must be literal columns: nobody would bind them."""
    return str(statement.compile(dialect=_DIALECT))


_HOT: Final = HotStatements(sqlite.insert)
_SPEND_NONCE: Final = _text(_HOT.spend_nonce)
_KNOWN: Final = _text(statements.KNOWN_ATTESTER)
_BATCH: Final = {step: _text(statement) for step, statement in _HOT.batch.items()}
_PREPARED: Final = {statement: _text(statement) for statement in statements.PREPARED}


def file_uri(path: Path) -> str:
    """Names a file that must exist; only a migration makes one."""
    return f"{path.absolute().as_uri()}?mode=rw"


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, set up as every one to this file is."""
    connection = sqlite3.connect(
        file_uri(path), uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256
    )
    try:
        for pragma in PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


class _Worker:
    """A thread that owns one connection: sqlite3 objects stay where they were made."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the thread."""
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = connect(self._path)
        return work(self._connection)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def read_all(connection: sqlite3.Connection, batch: Sequence[Read]) -> list[list[Row]]:
    """Each its own snapshot: no transaction is held between them."""
    return [connection.execute(sql, parameters).fetchall() for sql, parameters in batch]


def write_batch(connection: sqlite3.Connection, batch: Sequence[PreparedRecording]) -> list[Outcome]:
    """Store a batch of recordings in one transaction, durably."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = _known(connection, batch)
        fresh = {
            nonce["hash"]
            for nonce in recording.spendable(batch, known)
            if connection.execute(_SPEND_NONCE, nonce).rowcount == 1
        }
        plan = recording.plan(batch, known, fresh)
        for step, rows in plan.rows():
            connection.executemany(_BATCH[step], rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return plan.outcomes


def _known(connection: sqlite3.Connection, batch: Sequence[PreparedRecording]) -> dict[str, recording.Known]:
    found: dict[str, recording.Known] = {}
    for attester_id in {item.attester_id for item in batch}:
        row = connection.execute(_KNOWN, {"attester_id": attester_id}).fetchone()
        if row is not None:
            found[attester_id] = recording.known(row)
    return found


class SqliteBackend:
    """Reads, writes and group commit on one file."""

    insert: InsertInto = staticmethod(sqlite.insert)

    def __init__(self, path: Path) -> None:
        self._reader = _Worker(path, "store-read")
        self._writer = _Worker(path, "store-write")
        self._turn = asyncio.Lock()
        self._reads = Batcher(self._read_batch, "store-read")
        self._recordings = Batcher(self._write_batch, "store-write")
        self._engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=lambda: _connect_async(path),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
        )
        event.listen(self._engine.sync_engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
        self._closed = False

    async def rows(self, statement: Select[Any], parameters: Values | None = None) -> Sequence[Row]:
        """Every row of a query."""
        sql = _PREPARED.get(statement)
        if sql is not None:
            return await self._reads.submit((sql, parameters or {}))
        state = statement.compile(dialect=_DIALECT).construct_expanded_state(parameters)
        return await self._reads.submit((state.statement, state.parameters))

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the file's one write lock, committed on leaving."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        with translated():
            async with self._turn, self._engine.begin() as connection:
                yield connection

    async def record(self, item: PreparedRecording) -> Outcome:
        """Store one recording, together with whoever else asks now."""
        return await self._recordings.submit(item)

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        if self._closed:
            return
        self._closed = True
        await self._recordings.close()
        await self._reads.close()
        await self._engine.dispose()
        await self._writer.close()
        await self._reader.close()

    async def _read_batch(self, batch: Sequence[Read]) -> Sequence[list[Row]]:
        return await self._reader.run(lambda connection: read_all(connection, batch))

    async def _write_batch(self, batch: Sequence[PreparedRecording]) -> Sequence[Outcome]:
        async with self._turn:
            return await self._writer.run(lambda connection: write_batch(connection, batch))


async def _connect_async(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(file_uri(path), uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        for pragma in PRAGMAS:
            await connection.execute(pragma)
    except BaseException:
        await connection.close()
        raise
    return connection
