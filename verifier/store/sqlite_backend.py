"""SQLite: one file, one writer at a time.

Three threads, each with its own connection: to write, to read, to scan. Recordings, the hot path, are written by a process
beside (`verifier.store.sqlite_process`); it and the thread that writes take turns.

The file is in WAL mode with synchronous=FULL: a commit is on the disk when it returns. Readers never wait for
the writer. Writers of other processes take turns by SQLite's own lock, for at most `BUSY_SECONDS`.

The hot path runs Core's statements as text, compiled once, on the standard library's module: an asynchronous
driver would cross threads once a statement, which costs several times the statement (docs/adr/0003-store.md).
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from sqlalchemy import ClauseElement, Connection, Engine, Select, create_engine, event, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import NullPool

from verifier.errors import StoreUnavailable
from verifier.ports_announcements import Announcement
from verifier.ports_observe import QueueState, part
from verifier.store import statements
from verifier.store.announcing import APPENDED, LocalAnnouncements, noting
from verifier.store.batching import Batcher
from verifier.store.faults import translated
from verifier.store.held import Held
from verifier.store.log_batches import sealing
from verifier.store.prepared import prepared
from verifier.store.recording import Outcome, PreparedRecording
from verifier.store.rows import Row, Values
from verifier.store.sqlite_child import opened
from verifier.store.sqlite_process import RecordingProcess, Setup
from verifier.store.statements import HotStatements, InsertInto, Lookup

BUSY_SECONDS: Final = 5.0
_TOGETHER: Final = 32
"""Writes in one transaction: recordings wait as long as these take."""
_WAL_PAUSE: Final = 0.01
PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -3072",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA wal_autocheckpoint = 4000",
)
_DIALECT: Final = sqlite.dialect(paramstyle="named")
_POSITIONAL: Final = sqlite.dialect(paramstyle="qmark")

T = TypeVar("T")
Read = tuple[str, Mapping[str, Any]]


def _text(statement: ClauseElement) -> str:
    """SQL with `:name` for every parameter. Constants must be literal columns: nobody would bind them."""
    return str(statement.compile(dialect=_DIALECT))


_HOT: Final = HotStatements(sqlite.insert)
_SPEND_NONCE: Final = prepared(_HOT.spend_nonce, _POSITIONAL)
_KNOWN, _JUDGED = (
    _text(lookup.query.where(lookup.key.in_(text("SELECT value FROM json_each(?)"))))
    for lookup in (statements.KNOWN_ATTESTER, statements.JUDGED_ATTESTER)
)
_BATCH: Final = {step: prepared(statement, _POSITIONAL) for step, statement in _HOT.batch.items()}
_LOOKUPS: Final = {lookup: _text(lookup.one) for lookup in statements.LOOKUPS}


def file_uri(path: Path) -> str:
    """Names a file that must exist; only a migration makes one."""
    return f"{path.absolute().as_uri()}?mode=rw"


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, set up as every one to this file is."""
    connection = opened(file_uri(path), BUSY_SECONDS, PRAGMAS)
    try:
        _use_wal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Kept in the file, so this does something only once; the busy timeout does not cover that once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE)
        else:
            break
    if mode != "wal":
        # Some network file systems cannot share the memory that this mode needs.
        raise StoreUnavailable(f"SQLite cannot keep a write-ahead log here (journal mode {mode})")


def engine(path: Path) -> Engine:
    """For Core's statements: `connect`, and transactions that are writers from the start."""
    made = _reading_engine(path)
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return made


def _reading_engine(path: Path) -> Engine:
    """For Core's statements, each its own snapshot: no transaction is held between them."""
    # What a statement was given is evidence and proofs: none of it belongs into an error, which is logged.
    return create_engine("sqlite://", creator=lambda: connect(path), poolclass=NullPool, hide_parameters=True)


class _Thread:
    """A thread that owns one connection, opened at its first use, and serves in the order of asking."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the thread; the database's errors become ours."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, work)

    async def close(self) -> None:
        """Finish what was asked for, then close the connection and end the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
            self._executor.shutdown(wait=False)

    def _run(self, work: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return work(self._connection)
        finally:
            # Whatever failed, and even if undoing it failed too: the next one starts from nothing.
            if raw_connection(self._connection).in_transaction:
                self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def raw_connection(connection: Connection) -> sqlite3.Connection:
    """The standard library's connection below Core's."""
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)  # noqa: S101 - what `connect` made
    return found


def read_all(connection: sqlite3.Connection, batch: Sequence[Read]) -> list[list[Row]]:
    """Each its own snapshot: no transaction is held between them."""
    return [connection.execute(sql, parameters).fetchall() for sql, parameters in batch]


class _Write(NamedTuple):
    """Work of one caller, and the context it was asked for in: the audit log says for which request."""

    work: Callable[[Connection], tuple[object, tuple[Announcement, ...]]]
    context: contextvars.Context


class _Failed(NamedTuple):
    """What came of a write that was undone, alone."""

    error: Exception


Written = tuple[object, tuple[Announcement, ...]] | _Failed


def write_all(connection: Connection, batch: Sequence[_Write]) -> list[Written]:
    """Run each write as a transaction of its own would be: whole or not at all. They are durable together."""
    with connection.begin():
        if len(batch) == 1:  # nobody else is to be kept from its failure
            return [batch[0].context.run(batch[0].work, connection)]
        return [_written(connection, write) for write in batch]


def _written(connection: Connection, write: _Write) -> Written:
    savepoint = connection.begin_nested()
    try:
        result = write.context.run(write.work, connection)
    except Exception as error:  # noqa: BLE001 - handed to the one caller whose work it is
        # Where the fault undid the whole transaction (a full disk), this fails too, and with it everybody.
        savepoint.rollback()
        return _Failed(error)
    savepoint.commit()
    return result


def _setup(path: Path) -> Setup:
    return Setup(file_uri(path), BUSY_SECONDS, PRAGMAS, _KNOWN, _JUDGED, _SPEND_NONCE, _BATCH)


def _unchecked(connection: Connection, work: Callable[[Connection], T]) -> T:
    raw = raw_connection(connection)
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            return work(connection)
    finally:
        # Does nothing inside a transaction that could not be undone: the thread then takes a new connection.
        raw.execute("PRAGMA foreign_keys = ON")


class SqliteBackend:
    """Reads, writes and group commit on one file."""

    insert: InsertInto = staticmethod(sqlite.insert)
    partitioned = False
    index_suffices = True
    plans_anew = False

    def __init__(self, path: Path) -> None:
        self.announcements = LocalAnnouncements()
        self._reader = _Thread(_reading_engine(path), "store-read")
        self._scanner = _Thread(_reading_engine(path), "store-scan")
        self._writer = _Thread(engine(path), "store-write")
        self._reads = Batcher(self._read_batch, "store-read")
        self._recordings = Batcher(self._write_batch, "store-write")
        self._writes = Batcher(self._write_all, "store-transaction", at_most=_TOGETHER)
        self._held = Held()
        self._process = RecordingProcess(lambda: _setup(path))
        self._turn = asyncio.Lock()
        """Of the thread and the process that write: who waited for the file's lock instead would have to ask again and again."""

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Those of the hot path."""
        return {"store-read": self._reads.state, "store-write": self._recordings.state}

    async def lookup(self, lookup: Lookup, key: str | bytes) -> Row | None:
        """A row by its key; whatever is asked for at once crosses the threads at once."""
        found = await self._reads.submit((_LOOKUPS[lookup], {"key": key}))
        return found[0] if found else None

    async def rows(
        self, statement: Select[*tuple[Any, ...]], parameters: Values | None = None
    ) -> Sequence[Row]:
        """Every row of a query."""
        # A listing may look at every attester: no attestation shall wait for it, hence a thread apart. Core compiles
        # a statement of one shape once.
        with part("store-query"):
            return await self._scanner.run(lambda connection: connection.execute(statement, parameters).all())

    async def write(self, work: Callable[[Connection], T]) -> T:
        """A transaction on the file's one writer, flushed to the disk together with those that wait beside it."""
        written = await self._writes.submit(_Write(noting(sealing(work)), contextvars.copy_context()))
        if isinstance(written, _Failed):
            with translated():
                raise written.error
        result, changes = written
        self.announcements.committed(changes)
        return cast(T, result)

    async def drop(self, work: Callable[[Connection], T]) -> T:
        """A transaction on the writer by itself, without foreign keys: they can only be set aside outside of one."""
        async with self._turn:
            return await self._writer.run(lambda connection: _unchecked(connection, work))

    async def record(self, item: PreparedRecording) -> Outcome:
        """Store one recording, together with whoever else asks now."""
        return await self._recordings.submit(item)

    def dropped(self) -> None:
        """Blobs or judgements are gone."""
        self._held.forget()

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        await self._recordings.close()
        await self._writes.close()
        await self._reads.close()
        await self._process.close()
        await self._writer.close()
        await self._reader.close()
        await self._scanner.close()

    async def _read_batch(self, batch: Sequence[Read]) -> Sequence[list[Row]]:
        return await self._reader.run(lambda connection: read_all(raw_connection(connection), batch))

    async def _write_all(self, batch: Sequence[_Write]) -> Sequence[Written]:
        async with self._turn:
            return await self._writer.run(lambda connection: write_all(connection, batch))

    async def _write_batch(self, batch: Sequence[PreparedRecording]) -> Sequence[Outcome]:
        async with self._turn:
            with translated():
                plan = await self._process.write(batch, self._held)
        if plan.events:
            self.announcements.committed((APPENDED,))
        return plan.outcomes
