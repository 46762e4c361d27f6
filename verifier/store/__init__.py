"""Durable state: the `Store` port on SQLAlchemy Core; SQLite by default, PostgreSQL for a fleet (docs/store.md)."""

from __future__ import annotations

import asyncio

from verifier.ports_announcements import Announcement
from verifier.store.backend import Backend
from verifier.store.faults import SchemaMismatch, StoreUrlError
from verifier.store.location import Location, parse_location
from verifier.store.store import SqlStore

__all__ = ["SchemaMismatch", "SqlStore", "StoreUrlError", "announce", "open_store", "upgrade"]


def upgrade(url: str) -> None:
    """Create the database or bring it up to date; see `verifier.store.migrate.upgrade`. Blocks."""
    from verifier.store import migrate  # noqa: PLC0415 - Alembic is slow to import and seldom needed

    migrate.upgrade(url)


async def open_store(url: str, *, migrate: bool = True) -> SqlStore:
    """Open the database at `url`.

    Args:
        url: `sqlite:///verifier.db` (relative), `sqlite:////var/lib/...` (absolute) or `postgresql://...`.
        migrate: bring it up to date first; otherwise one that is not is refused.

    Raises:
        StoreUrlError: not a database this store can use.
        SchemaMismatch: made by a newer version, or, without `migrate`, not up to date.
        StoreUnavailable: it cannot be reached or written.
    """
    from verifier.store import migrate as migrations  # noqa: PLC0415 - as above

    location = parse_location(url)
    await asyncio.to_thread(migrations.upgrade if migrate else migrations.check_revision, url)
    store = SqlStore(_backend(location))
    try:
        await store.ping()
    except BaseException:
        await store.close()
        raise
    return store


async def announce(url: str, change: Announcement) -> None:
    """Tell the replicas on a database of a change that is not in it, if it can be reached."""
    location = parse_location(url)
    if location.path is None:
        from verifier.store.postgresql_announcements import PostgresqlAnnouncements  # noqa: PLC0415 - as below

        telling = PostgresqlAnnouncements(location.dsn)
        telling.committed((change,))
        await telling.close()


def _backend(location: Location) -> Backend:
    if location.path is not None:
        from verifier.store.sqlite_backend import SqliteBackend  # noqa: PLC0415 - one of the two is needed

        return SqliteBackend(location.path)
    from verifier.store.postgresql_backend import PostgresqlBackend  # noqa: PLC0415 - one of the two is needed

    return PostgresqlBackend(location.dsn)
