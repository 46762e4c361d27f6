"""Where the database is: the URL as configured, understood once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from verifier.store.faults import StoreUrlError

_SQLITE: Final = frozenset({"sqlite", "sqlite+aiosqlite"})
_POSTGRESQL: Final = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_PORT: Final = re.compile(r":([^:\]]*)$")


@dataclass(frozen=True, slots=True)
class Location:
    """A database: SQLite's file, or the URL of a PostgreSQL as libpq and asyncpg understand it."""

    path: Path | None = None
    dsn: str = ""


def parse_location(url: str) -> Location:
    """Understand a database URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://...`.

    Raises:
        StoreUrlError: not a URL, another database, or SQLite in memory, which no second connection would see.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in _POSTGRESQL:
        return Location(dsn=_checked(f"postgresql://{rest}"))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreUrlError("the database URL does not parse; try sqlite:///verifier.db") from error
    if parsed.drivername not in _SQLITE:
        raise StoreUrlError(
            f"database URLs begin with sqlite:// or postgresql://; this one with {parsed.drivername}://"
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise StoreUrlError("SQLite needs a plain file path: an in-memory database keeps nothing")
    return Location(path=Path(parsed.database))


def _checked(dsn: str) -> str:
    try:
        listed = urlsplit(dsn).netloc.rpartition("@")[2]
    except ValueError as error:
        raise StoreUrlError(f"the database URL does not parse: {error}") from error
    for host in listed.split(","):
        port = _PORT.search(host)
        if port is not None and not port[1].isdecimal():
            raise StoreUrlError(
                f"the database URL has {port[1]!r} for a port; a password's @, / and : are written %40, %2F, %3A"
            )
    return dsn
