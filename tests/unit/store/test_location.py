"""Database URLs: the few that are meant, and a reason for each that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.store import StoreUrlError
from verifier.store.location import Dialect, parse_location


@pytest.mark.parametrize("prefix", ["sqlite", "sqlite+aiosqlite"])
def test_sqlite_files(prefix):
    assert parse_location(f"{prefix}:///verifier.db").path == Path("verifier.db")
    assert parse_location(f"{prefix}:////var/lib/v a.db").path == Path("/var/lib/v a.db")


@pytest.mark.parametrize("prefix", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql(prefix):
    location = parse_location(f"{prefix}://me:secret@db.example:5433/fleet")
    assert location.dialect is Dialect.POSTGRESQL
    assert location.url.drivername == "postgresql+asyncpg"
    assert (location.url.host, location.url.port, location.url.database) == ("db.example", 5433, "fleet")


@pytest.mark.parametrize(
    "url",
    ["", "verifier.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory", "://", "x" * 9000],
)  # fmt: skip
def test_what_cannot_be_a_store_is_named(url):
    with pytest.raises(StoreUrlError):
        parse_location(url)


def test_an_error_does_not_show_the_password():
    with pytest.raises(StoreUrlError) as refused:
        parse_location("mysql://me:hunter2@db/x")
    assert "hunter2" not in str(refused.value)
