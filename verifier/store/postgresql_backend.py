"""PostgreSQL: any number of replicas on one database, by asyncpg.

READ COMMITTED is enough: what must be exact is a unique key, a conditional UPDATE, or a row locked first. Rows
that several replicas touch are locked in one order, so that they wait for each other and never in a circle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from verifier.errors import StoreUnavailable
from verifier.ports_observe import QueueState, part
from verifier.store import postgresql_connections, statements
from verifier.store.announcing import APPENDED, noting
from verifier.store.batching import Batcher
from verifier.store.faults import PG_READ_ONLY, begun_again, sqlstate, translated
from verifier.store.held import Held
from verifier.store.log_batches import sealing
from verifier.store.postgresql_announcements import PostgresqlAnnouncements
from verifier.store.postgresql_connections import Connector
from verifier.store.postgresql_hot import CUT, KEPT_TEXT, MOST, HotConnection, Line, looking_up, write
from verifier.store.postgresql_steady import write_steady
from verifier.store.recording import Outcome, Plan, PreparedRecording
from verifier.store.rows import Row, Values
from verifier.store.statements import InsertInto, Lookup

_POOL: Final = 16
"""Connections that are kept once they were needed, the one used last first: to make one costs both sides as much as a guest that enrols."""
_ATTEMPTS: Final = 5
_SHORT: Final = 10.0
"""Seconds that the hot path waits for the server; a guest that is put off then comes back."""
_LONG: Final = 120.0
"""Seconds for anything else: a survey of a large fleet, or dropping what is old, takes its time."""
_IDLE_IN_TRANSACTION: Final = "60000"
"""Milliseconds after which the server ends a transaction of a replica that stands still, and frees what it has locked."""
T = TypeVar("T")


class PostgresqlBackend:
    """Reads, writes and group commit through a pool of connections."""

    insert: InsertInto = staticmethod(postgresql.insert)
    partitioned = True
    index_suffices = False
    plans_anew = True

    def __init__(self, dsn: str) -> None:
        self._held = Held()
        self.announcements = PostgresqlAnnouncements(dsn)
        settings = {"idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION}
        connector = Connector(dsn, settings, kept_text=KEPT_TEXT)
        self._engine = postgresql_connections.engine(
            connector,
            pool_size=_POOL,
            max_overflow=0,
            pool_use_lifo=True,
            pool_timeout=_SHORT,
        )
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._recordings = Batcher(self._write_batch, "store-write")
        # By themselves, so that one guest that boots does not make all others take the long way.
        self._steady = Batcher(self._write_steady, "store-write", self._recordings.state, at_most=MOST)
        self._read_state = QueueState()
        # Another server may have taken over, and lack what the one before was told.
        self._writer, self._steady_writer = (Line(connector, self._held.forget) for _ in range(2))
        self._readers = {lookup: Line(connector) for lookup in statements.LOOKUPS}
        self._lookups = {lookup: self._batched(lookup) for lookup in statements.LOOKUPS}
        self._closed = False

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Those of the hot path."""
        return {"store-read": self._read_state, "store-write": self._recordings.state}

    async def lookup(self, lookup: Lookup, key: str | bytes) -> Row | None:
        """A row by its key; whatever is asked for at once is one query."""
        return await self._lookups[lookup].submit(key)

    async def rows(
        self, statement: Select[*tuple[Any, ...]], parameters: Values | None = None
    ) -> Sequence[Row]:
        """Every row of a query."""
        return await self._rows(statement, parameters, _LONG)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """A transaction, begun again when another replica's got in its way."""
        self._check_open()
        with part("store-transaction"):
            result, changes = await self._transaction(
                lambda connection: connection.run_sync(noting(sealing(work))), _LONG
            )
        self.announcements.committed(changes)
        return result

    async def drop(self, work: Callable[[Connection], T]) -> T:
        """As any other: history has no foreign keys here."""
        return await self.write(work)

    async def record(self, item: PreparedRecording) -> Outcome:
        """Store one recording, together with whoever else asks now."""
        return await (self._recordings if item.follows is None else self._steady).submit(item)

    def dropped(self) -> None:
        """Blobs or judgements are gone."""
        self._held.forget()

    async def close(self) -> None:
        """Finish what was asked for, then let go of the connections."""
        await asyncio.gather(self._recordings.close(), self._steady.close())
        await asyncio.gather(*(batcher.close() for batcher in self._lookups.values()))
        self._closed = True
        for line in self._lines:
            await line.close()
        await self.announcements.close()
        await self._engine.dispose()

    @property
    def _lines(self) -> tuple[Line, ...]:
        return (self._writer, self._steady_writer, *self._readers.values())

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _batched(self, lookup: Lookup) -> Batcher[str | bytes, Row | None]:
        query, line = looking_up(lookup), self._readers[lookup]

        async def read(keys: Sequence[str | bytes]) -> Sequence[Row | None]:
            self._check_open()
            async with _within(_SHORT):
                rows = await line.read(query, list(set(keys)))
            found = {row[lookup.position]: tuple(row) for row in rows}
            return [found.get(key) for key in keys]

        return Batcher(read, "store-read", self._read_state)

    async def _write_batch(self, batch: Sequence[PreparedRecording]) -> Sequence[Outcome]:
        return await self._written(self._recorded(self._writer, batch))

    async def _write_steady(self, batch: Sequence[PreparedRecording]) -> Sequence[Outcome]:
        return await self._written(self._recorded_steady(self._steady_writer, batch))

    async def _written(self, work: Awaitable[Plan]) -> Sequence[Outcome]:
        try:
            async with _within(_SHORT):
                plan = await work
        except BaseException:
            self._held.forget()
            raise
        self._held.note(plan.shared, plan.named)
        if plan.events:
            self.announcements.committed((APPENDED,))
        return plan.outcomes

    async def _recorded_steady(self, line: Line, batch: Sequence[PreparedRecording]) -> Plan:
        """At once; or, where that stored nothing or may have, in a transaction that finds out why."""
        with suppress(asyncpg.PostgresError, *CUT):
            plan = await line.alone(lambda connection: write_steady(connection, batch, self._held))
            if plan is not None:
                return plan
        return await self._recorded(line, batch)

    async def _recorded(self, line: Line, batch: Sequence[PreparedRecording]) -> Plan:
        def work(connection: HotConnection) -> Awaitable[Plan]:
            return write(connection, batch, self._held)

        try:
            return await line.transaction(work)
        except asyncpg.ReadOnlySQLTransactionError:
            await self._turn_away()
            return await line.transaction(work)

    async def _turn_away(self) -> None:
        """Of several servers another one takes writes now: that is found by connecting anew."""
        for line in self._lines:
            line.turn_away()
        await self._engine.dispose()

    async def _rows(
        self, statement: Select[*tuple[Any, ...]], parameters: Values | None, seconds: float
    ) -> Sequence[Row]:
        self._check_open()
        with part("store-query"):
            async with _within(seconds), self._reader.connect() as connection:
                found: Sequence[Row] = (await connection.execute(statement, parameters)).all()
        return found

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]], seconds: float) -> T:
        async with _within(seconds):
            for _ in range(_ATTEMPTS - 1):
                try:
                    async with self._engine.begin() as connection:
                        return await work(connection)
                except DBAPIError as error:
                    if sqlstate(error) == PG_READ_ONLY:
                        await self._turn_away()
                    if not begun_again(error):
                        raise
            async with self._engine.begin() as connection:
                return await work(connection)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Errors become ours, and so does silence: a connection that said nothing for so long is given up."""
    with translated(unreachable=OSError, native=asyncpg.PostgresError):
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise StoreUnavailable(f"PostgreSQL did not answer within {seconds:g} s") from error
        except asyncpg.InterfaceError as error:
            if "closed" not in str(error):  # its other errors are bugs of ours
                raise
            raise StoreUnavailable(f"PostgreSQL has cut the connection: {error}") from error
        except asyncpg.InternalClientError as error:  # its farewell came between two statements
            raise StoreUnavailable(f"PostgreSQL has cut the connection: {error}") from error
