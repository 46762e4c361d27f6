"""A database opened to be read: one snapshot, no writes, no service."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from verifier.errors import StoreUnavailable
from verifier.store.faults import translated
from verifier.store.location import parse_location

_CACHE: Final = "PRAGMA cache_size = -65536"

T = TypeVar("T")


def reading(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` on a snapshot of the database that a URL of the setting `database.url` names.

    Raises:
        StoreUrlError: the URL names no database.
        StoreUnavailable: it cannot be read.
        StoredDataDamaged: the database says of itself that it is corrupt.
    """
    location = parse_location(url)
    if location.path is not None:
        return _reading_sqlite(location.path, work)
    return asyncio.run(_reading_postgresql(location.dsn, work))


def _reading_sqlite(path: Path, work: Callable[[Connection], T]) -> T:
    if not path.is_file():
        raise StoreUnavailable(f"there is no database at {path}")
    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=NullPool)
    try:
        with translated(), engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            return work(connection)
    finally:
        engine.dispose()


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A copy where nothing can be written beside it, as its mode would need: nobody else writes to it either.
        connection = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    connection.execute(_CACHE)
    return connection


async def _reading_postgresql(dsn: str, work: Callable[[Connection], T]) -> T:
    # asyncpg is an extra: whoever has SQLite needs none.
    from verifier.store.postgresql_connections import Connector, engine  # noqa: PLC0415

    made = engine(Connector(dsn, {"default_transaction_read_only": "on"}), poolclass=NullPool)
    try:
        with translated(unreachable=OSError):
            async with made.connect() as connection:
                snapshot = await connection.execution_options(isolation_level="REPEATABLE READ")
                return await snapshot.run_sync(work)
    finally:
        await made.dispose()
