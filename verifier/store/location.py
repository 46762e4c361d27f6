"""Where the database is: the URL as configured, understood once."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from verifier.store.faults import StoreUrlError


class Dialect(enum.Enum):
    """The databases this store speaks."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


_NAMES: Final = {
    "sqlite": Dialect.SQLITE,
    "sqlite+aiosqlite": Dialect.SQLITE,
    "postgres": Dialect.POSTGRESQL,
    "postgresql": Dialect.POSTGRESQL,
    "postgresql+asyncpg": Dialect.POSTGRESQL,
}
_DRIVERS: Final = {Dialect.SQLITE: "sqlite", Dialect.POSTGRESQL: "postgresql+asyncpg"}


@dataclass(frozen=True, slots=True)
class Location:
    """A database: `url` names the driver; `path` is SQLite's file."""

    dialect: Dialect
    url: URL
    path: Path | None


def parse_location(url: str) -> Location:
    """Understand a database URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://...`.

    Raises:
        StoreUrlError: not a URL, another database, or SQLite in memory, which no second connection would see.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUrlError("the database URL does not parse; try sqlite:///verifier.db") from error
    dialect = _NAMES.get(parsed.drivername)
    if dialect is None:
        known = ", ".join(f"{name}://" for name in ("sqlite", "postgresql"))
        raise StoreUrlError(f"database URLs begin with {known}; this one with {parsed.drivername}://")
    located = parsed.set(drivername=_DRIVERS[dialect])
    if dialect is Dialect.POSTGRESQL:
        return Location(dialect, located, None)
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise StoreUrlError("SQLite needs a plain file path: an in-memory database keeps nothing")
    return Location(dialect, located, Path(parsed.database))
