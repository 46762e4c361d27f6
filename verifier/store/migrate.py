"""Bring a database to the schema of this version: one process at a time, and never in the way of replicas at work.

On SQLite all of it is one transaction. On PostgreSQL a revision may have work to be done `ahead`, statement by statement,
while replicas work on. What then needs a table for itself waits half a second for it and no longer, since whoever comes
after waits in the same queue; it lets everybody pass and tries again. docs/upgrading.md has the rules for revisions.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from verifier.errors import StoreUnavailable
from verifier.store.faults import SchemaMismatch, sqlstate, translated
from verifier.store.location import Location, parse_location

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x7674706D
"""Key of PostgreSQL's advisory lock: "vtpm"."""
_PATIENCE: Final = "SET lock_timeout = '500ms'"
_IN_THE_WAY: Final = frozenset({"55P03", "40P01", "40001"})
"""A lock that did not come in time, a deadlock, a serialisation failure: nothing was changed."""
_ATTEMPTS: Final = 300
_PAUSE: Final = 1.0
"""Seconds, about; with the attempts, some ten minutes in all."""
_TURN: Final = 0.2
"""Seconds after which whoever waits for another process to be done asks again."""

_log = structlog.get_logger("vtpm_attest.migrate")
T = TypeVar("T")


def upgrade(url: str) -> None:
    """Create the database's tables, or bring those of an older version up to date.

    Safe to call from any number of processes at once; does nothing where there is nothing to do, or where a newer version
    has changed the schema so that this one can go on. Blocks.

    Raises:
        StoreUrlError: not a database this store can use.
        SchemaMismatch: the database was made by a newer version that this one cannot work beside; it was not touched.
        StoreUnavailable: it cannot be reached or written, or others never let go of a table; what was done is whole
            revisions.
    """
    location = parse_location(url)
    with translated(unreachable=OSError):
        if location.path is not None:
            _on_sqlite(location.path, _upgrade_at_once, create=True)
        else:
            _run_apart(lambda: asyncio.run(_upgrade_online(location)))


def check_revision(url: str) -> None:
    """Raise `SchemaMismatch` unless this version can work on the database as it is. Blocks, changes nothing."""
    location = parse_location(url)
    with translated(unreachable=OSError):
        _on_connection(location, _check, create=False)


def pending(connection: Connection) -> list[str]:
    """The revisions that are still to be applied, oldest first; none where the database is of a newer version."""
    scripts = ScriptDirectory.from_config(_config())
    heads = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if any(revision not in known for revision in heads):
        _refuse_unsupported(connection, known, heads)
        return []
    applied = {script.revision for head in heads for script in scripts.iterate_revisions(head, "base")}
    return [
        script.revision
        for script in reversed(list(scripts.walk_revisions()))
        if script.revision not in applied
    ]


def apply(connection: Connection, revision: str) -> None:
    """Apply everything up to a revision, in the caller's transaction."""
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    before = MigrationContext.configure(connection).get_current_heads()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    applied = [
        one for one in scripts.iterate_revisions(revision, before or "base") if one.revision not in before
    ]
    breaking = [one.revision for one in applied if not getattr(one.module, "older_replicas", True)]
    if breaking:
        statement = text("UPDATE schema_support SET oldest = :oldest")
        connection.execute(statement, {"oldest": breaking[0]})


def _upgrade_at_once(connection: Connection) -> None:
    todo = pending(connection)
    if todo:
        apply(connection, todo[-1])


def _check(connection: Connection) -> None:
    todo = pending(connection)
    if todo:
        current = MigrationContext.configure(connection).get_current_revision()
        raise SchemaMismatch(
            f"the database is at revision {current or 'none'}, this version needs {todo[-1]}: "
            "run `attest-verifier db upgrade`"
        )


def _refuse_unsupported(connection: Connection, known: AbstractSet[str], heads: tuple[str, ...]) -> None:
    """Unless the newer version has said that this one, which knows the oldest revision it supports, can go on."""
    oldest = None
    if inspect(connection).has_table("schema_support"):
        oldest = connection.execute(text("SELECT oldest FROM schema_support")).scalar()
    if oldest not in known:
        raise SchemaMismatch(
            f"the database is at revision {', '.join(heads)}, which this version does not know: "
            "it was made by a newer one; install that, or restore a backup from before"
        )
    _log.info("store.newer-schema", database=heads, effect="this version works beside the newer one")


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


def postgresql_engine(location: Location) -> AsyncEngine:
    """For a few statements, on connections of their own."""
    # Migrating SQLite needs none of it.
    from verifier.store.postgresql_connections import Connector, engine  # noqa: PLC0415

    return engine(Connector(location.dsn, {}), poolclass=NullPool)


async def _on_postgresql(location: Location, work: Callable[[Connection], T]) -> T:
    engine = postgresql_engine(location)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


async def _is_mine(keeper: AsyncConnection) -> bool:
    """Take the lock, of the session, if nobody has it.

    Asked for again and again, not waited for: a statement that waits is one that an index made CONCURRENTLY waits for.
    """
    taken = await keeper.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK})
    return bool(taken.scalar())


async def _upgrade_online(location: Location) -> None:
    engine = postgresql_engine(location)
    try:
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as keeper:
            while await keeper.run_sync(pending) and not await _is_mine(keeper):  # noqa: ASYNC110 - another process has it
                await asyncio.sleep(_TURN)
            await keeper.execute(text(_PATIENCE))
            for revision in _steps(await keeper.run_sync(pending)):
                await _patiently(revision, partial(_apply_online, engine, keeper, revision))
    finally:
        await engine.dispose()


async def _apply_online(engine: AsyncEngine, keeper: AsyncConnection, revision: str) -> None:
    ahead = getattr(_script(revision).module, "ahead", None)
    if ahead is not None:
        await keeper.run_sync(ahead)
    async with engine.begin() as connection:
        await connection.execute(text(_PATIENCE))
        await connection.run_sync(apply, revision)


async def _patiently(revision: str, work: Callable[[], Awaitable[None]]) -> None:
    for attempt in range(1, _ATTEMPTS):
        try:
            await work()
        except DBAPIError as error:
            if sqlstate(error) not in _IN_THE_WAY:
                raise
            _log.info("store.migration-waits", revision=revision, attempt=attempt, problem=str(error.orig))
        else:
            return
        await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    await work()


def _steps(todo: list[str]) -> list[str]:
    """What one transaction goes up to: all before a revision that has work to be done ahead is another one's."""
    apart = {revision for revision in todo if hasattr(_script(revision).module, "ahead")}
    return [
        revision
        for revision, after in zip(todo, [*todo, None][1:], strict=True)
        if after is None or after in apart or revision in apart
    ]


def _script(revision: str) -> Script:
    found = ScriptDirectory.from_config(_config()).get_revision(revision)
    assert found is not None  # noqa: S101 - it was listed
    return found


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
