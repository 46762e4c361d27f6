"""Bring a database to the schema of this version: one transaction, one process at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from verifier.errors import StoreUnavailable
from verifier.store.faults import SchemaMismatch, translated
from verifier.store.location import Location, parse_location

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x7674706D
"""Key of PostgreSQL's advisory lock: "vtpm"."""

T = TypeVar("T")


def upgrade(url: str) -> None:
    """Create the database's tables, or bring those of an older version up to date.

    Safe to call from any number of processes at once; does nothing where there is nothing to do. Blocks.

    Raises:
        StoreUrlError: not a database this store can use.
        SchemaMismatch: the database was made by a newer version; it was not touched.
        StoreUnavailable: it cannot be reached or written; nothing was changed.
    """
    location = parse_location(url)
    with translated(unreachable=OSError):
        _on_connection(location, _upgrade, create=True)


def check_revision(url: str) -> None:
    """Raise `SchemaMismatch` unless the database is of exactly this version. Blocks, changes nothing."""
    location = parse_location(url)
    with translated(unreachable=OSError):
        _on_connection(location, _check, create=False)


def _upgrade(connection: Connection) -> None:
    config = _config()
    _refuse_newer(connection, config)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check(connection: Connection) -> None:
    config = _config()
    _refuse_newer(connection, config)
    head = ScriptDirectory.from_config(config).get_current_head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current != head:
        raise SchemaMismatch(
            f"the database is at revision {current or 'none'}, this version needs {head}: "
            "run `attest-verifier db upgrade`"
        )


def _refuse_newer(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    for revision in MigrationContext.configure(connection).get_current_heads():
        if revision not in known:
            raise SchemaMismatch(
                f"the database is at revision {revision}, which this version does not know: "
                "it was made by a newer one; install that, or restore a backup from before"
            )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _on_connection(location: Location, work: Callable[[Connection], T], *, create: bool) -> T:
    if location.path is not None:
        return _on_sqlite(location.path, work, create=create)
    return _run_apart(lambda: asyncio.run(_on_postgresql(location, work)))


def _on_sqlite(path: Path, work: Callable[[Connection], T], *, create: bool) -> T:
    if not path.exists():
        if not create:
            raise SchemaMismatch(f"there is no database at {path}: run `attest-verifier db upgrade`")
        _create_file(path)
    from verifier.store import sqlite_backend  # noqa: PLC0415 - migrating PostgreSQL needs none of it

    engine = sqlite_backend.engine(path)
    try:
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()


def _create_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Evidence and digests of secrets are inside: nobody else's business.
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot create {path}: {error}") from error


async def _on_postgresql(location: Location, work: Callable[[Connection], T]) -> T:
    engine = create_async_engine(location.url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _run_apart(work: Callable[[], T]) -> T:
    """In a thread of its own: the caller may be inside an event loop."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller below
            failure.append(error)

    thread = threading.Thread(target=run, name="store-migrate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
