"""What the store needs of a database, beyond SQL that both understand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Select, UpdateBase

from verifier.ports_observe import QueueState
from verifier.store.announcing import LocalAnnouncements
from verifier.store.recording import Outcome, PreparedRecording
from verifier.store.rows import Row, Values
from verifier.store.statements import InsertInto, Lookup

T = TypeVar("T")


class Backend(Protocol):
    """One database. Its own errors come out as `StoreUnavailable` or `StoredDataDamaged`."""

    @property
    def insert(self) -> InsertInto:
        """The dialect's INSERT, which knows ON CONFLICT."""

    partitioned: bool
    """Whether history is in partitions by time."""

    index_suffices: bool
    """Whether what an index holds is read from it alone, without a look at the rows."""

    plans_anew: bool
    """Whether a listing is planned each time, so that it had better be quick to plan."""

    @property
    def announcements(self) -> LocalAnnouncements:
        """Who is told of what is committed here."""

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Who waits for the database: `store-read` and `store-write`."""

    async def lookup(self, lookup: Lookup, key: str | bytes) -> Row | None:
        """The row with this key, as committed when it is asked for. The hot path."""

    async def rows(
        self, statement: Select[*tuple[Any, ...]], parameters: Values | None = None
    ) -> Sequence[Row]:
        """Every row of a query, as committed when it began."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction: durable when this returns, undone by an exception.

        `work` may run in another thread, and again where the database asks for that: it must touch nothing
        but the connection.
        """

    async def drop(self, work: Callable[[Connection], T]) -> T:
        """As `write`, for rows that nothing refers to: `work` itself sees to that, and no foreign key is looked after.

        SQLite would look through all of history for each judgement.
        """

    async def record(self, item: PreparedRecording) -> Outcome:
        """Store one recording; returns after the commit."""

    def dropped(self) -> None:
        """Blobs or judgements were dropped: nothing may be taken for stored because it was before."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the database."""


class StorePart:
    """A part of the store, on a backend that all parts share."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def _change(self, statement: UpdateBase) -> int:
        """Run one statement in a transaction of its own; how many rows it changed."""
        return await self._backend.write(lambda connection: changed(connection, statement))

    async def _first(
        self, statement: Select[*tuple[Any, ...]], parameters: Values | None = None
    ) -> Row | None:
        rows = await self._backend.rows(statement, parameters)
        return rows[0] if rows else None


def changed(connection: Connection, statement: UpdateBase) -> int:
    """How many rows a statement changed."""
    result: CursorResult[Any] = connection.execute(statement)
    return result.rowcount
