"""What the store needs of a database, beyond SQL that both understand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection

from verifier.store.recording import Outcome, PreparedRecording
from verifier.store.rows import Row, Values
from verifier.store.statements import InsertInto


class Backend(Protocol):
    """One database. Its own errors come out as `StoreUnavailable` or `StoredDataDamaged`."""

    @property
    def insert(self) -> InsertInto:
        """The dialect's INSERT, which knows ON CONFLICT."""

    async def rows(self, statement: Select[Any], parameters: Values | None = None) -> Sequence[Row]:
        """Every row of a query, as committed when it began."""

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction: committed on leaving, undone by an exception."""

    async def record(self, item: PreparedRecording) -> Outcome:
        """Store one recording; returns after the commit."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the database."""


class StorePart:
    """A part of the store, on a backend that all parts share."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def _first(self, statement: Select[Any], parameters: Values | None = None) -> Row | None:
        rows = await self._backend.rows(statement, parameters)
        return rows[0] if rows else None
