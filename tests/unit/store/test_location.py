"""Database URLs: the few that are meant, and a reason for each that is not."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from verifier.store import StoreUrlError, open_store, postgresql_connections
from verifier.store.location import parse_location
from verifier.store.postgresql_connections import Connector, hosts


@pytest.mark.parametrize("prefix", ["sqlite", "sqlite+aiosqlite"])
def test_sqlite_files(prefix):
    assert parse_location(f"{prefix}:///verifier.db").path == Path("verifier.db")
    assert parse_location(f"{prefix}:////var/lib/v a.db").path == Path("/var/lib/v a.db")


@pytest.mark.parametrize("prefix", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgresql(prefix):
    location = parse_location(f"{prefix}://me:secret@db.example:5433/fleet")
    assert location.path is None
    assert location.dsn == "postgresql://me:secret@db.example:5433/fleet"


@pytest.mark.parametrize(
    ("url", "each"),
    [
        (
            "postgresql://me:s%40@a:1,b:2/fleet",
            {
                "a:1": "postgresql://me:s%40@a:1/fleet?target_session_attrs=read-write",
                "b:2": "postgresql://me:s%40@b:2/fleet?target_session_attrs=read-write",
            },
        ),
        ("postgresql://me@a/fleet?sslmode=verify-full", {"a": "postgresql://me@a/fleet?sslmode=verify-full"}),
        ("postgresql:///fleet", {"localhost": "postgresql:///fleet"}),
        (
            "postgresql://me@/fleet?host=/a,/b&target_session_attrs=any",
            {
                "/a": "postgresql://me@/fleet?target_session_attrs=any&host=%2Fa",
                "/b": "postgresql://me@/fleet?target_session_attrs=any&host=%2Fb",
            },
        ),
        (
            "postgresql://me@/fleet?host=a,b&port=1,2&target_session_attrs=any",
            {
                "a:1": "postgresql://me@/fleet?target_session_attrs=any&host=a&port=1",
                "b:2": "postgresql://me@/fleet?target_session_attrs=any&host=b&port=2",
            },
        ),
        ("postgresql://[::1]:5/fleet", {"[::1]:5": "postgresql://[::1]:5/fleet"}),
    ],
)
def test_each_of_several_hosts_is_asked_by_itself_and_has_to_take_writes(url, each):
    assert hosts(parse_location(url).dsn) == each


async def test_a_host_that_says_nothing_keeps_nobody_from_the_next(monkeypatch):
    """And why none will have us is told for each."""
    monkeypatch.setattr(postgresql_connections, "PATIENCE", 0.4)
    monkeypatch.setattr(postgresql_connections, "_LEAST", 0.2)

    async def silent(reader, writer):
        await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        connector = Connector(f"postgresql://me@127.0.0.1:{port},127.0.0.1:{closed}/fleet", {})
        with pytest.raises(ConnectionError) as refused:
            await connector()
    assert f"127.0.0.1:{port}: no answer within 0.2 s" in str(refused.value)
    assert f"127.0.0.1:{closed}: " in str(refused.value)
    server.close()


@pytest.mark.parametrize("query", ["target_session_attrs=gold", "sslmode=often"])
async def test_what_asyncpg_does_not_know_is_a_fault_of_the_url(query):
    with pytest.raises(StoreUrlError, match=query.split("=")[0]):
        await open_store(f"postgresql://me@127.0.0.1:1/fleet?{query}")


@pytest.mark.parametrize(
    "url",
    ["", "verifier.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory", "://", "x" * 9000, "postgresql://me:p/w@db/fleet", "postgresql://db:x/fleet", "postgresql://[::1/fleet"],
)  # fmt: skip
def test_what_cannot_be_a_store_is_named(url):
    with pytest.raises(StoreUrlError):
        parse_location(url)


def test_an_error_does_not_show_the_password():
    with pytest.raises(StoreUrlError) as refused:
        parse_location("mysql://me:hunter2@db/x")
    assert "hunter2" not in str(refused.value)
