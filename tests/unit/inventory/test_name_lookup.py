"""A name server that says nothing, asked for the same name again and again."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tests.eventually import eventually
from verifier.inventory import name_lookup
from verifier.inventory.name_lookup import SystemResolver

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


@pytest.fixture
def server(monkeypatch):
    """Says nothing until it is told to; how often it was asked."""
    asked, speak = [], threading.Event()

    def lookup(host, port, **options):
        asked.append(host)
        speak.wait(60)
        if host == "none.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield asked, speak
    speak.set()


async def given_up(host: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await SystemResolver().resolve(host, 443)


async def test_a_name_that_hangs_hangs_once_however_often_it_is_tried(server, monkeypatch):
    asked, speak = server
    monkeypatch.setattr(name_lookup, "_running", threading.BoundedSemaphore(2))
    for _ in range(5):
        await given_up("silent.example")
    await given_up("another.example")
    assert asked == ["silent.example", "another.example"]
    with pytest.raises(OSError, match="under way already"):
        await SystemResolver().resolve("third.example", 443)
    last = asyncio.create_task(SystemResolver().resolve("silent.example", 443))
    await asyncio.sleep(0)
    speak.set()
    assert [one["host"] for one in await last] == ["192.0.2.1"]
    await eventually(lambda: not name_lookup._under_way)
    await SystemResolver().resolve("silent.example", 443)
    assert asked.count("silent.example") == 2, "an answer is not kept"


async def test_a_name_that_is_not_there_is_said_to_all_who_wait(server):
    asked, speak = server
    waiting = [asyncio.create_task(SystemResolver().resolve("none.example", 443)) for _ in range(3)]
    await asyncio.sleep(0)
    speak.set()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, socket.gaierror)
    assert asked == ["none.example"]


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
async def test_what_can_be_no_name_is_refused_each_time_it_is_asked_for(host):
    """The system's lookup does not even ask for it, and says so by an error of another kind."""
    for _ in range(2):
        with pytest.raises(OSError, match="label empty or too long"):
            await asyncio.wait_for(SystemResolver().resolve(host, 443), 10)
