"""Asking for an issuer over real HTTP: one plain answer from where it was allowed, or nothing."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from tests import pki
from verifier.crypto.aia import MAX_REPLY
from verifier.inventory.issuer_fetch import HttpIssuers, PublicResolver

ROOT = pki.Ca.root()
SOON, LONG = timedelta(seconds=0.3), timedelta(seconds=20)


@dataclass
class Server:
    """An HTTP server of the loopback that remembers what it was asked."""

    port: int = 0
    body: bytes = ROOT.der
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append(dict(request.headers))
        match request.path:
            case "/good" | "/issuer":
                return web.Response(body=self.body, headers={"Set-Cookie": "a=b"})
            case "/moved":
                raise web.HTTPFound("/good")
            case "/moved-away":
                raise web.HTTPMovedPermanently(self.url("good", "localhost"))
            case "/packed":
                bomb = gzip.compress(bytes(10 * MAX_REPLY))
                return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
            case "/large":
                return web.Response(body=bytes(MAX_REPLY + 1))
            case "/endless":
                return await self._endless(request)
            case "/silent":
                await asyncio.sleep(30)
                return web.Response(body=ROOT.der)
        raise web.HTTPNotFound

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1024))


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server():
    async with serving() as one:
        yield one


async def test_a_plain_answer_is_the_body(server):
    source = HttpIssuers(private=True)
    assert await source.fetch(server.url("good"), LONG) == ROOT.der
    assert await source.fetch(server.url("good"), LONG) == ROOT.der
    assert "Cookie" not in server.headers[1]


@pytest.mark.parametrize("path", ["moved", "moved-away"])
async def test_nobody_is_sent_elsewhere(server, path):
    assert await HttpIssuers(private=True).fetch(server.url(path), LONG) is None
    assert server.asked == [f"/{path}"]


@pytest.mark.parametrize("path", ["missing", "large", "endless"])
async def test_what_is_missing_or_too_large_is_nothing(server, path):
    assert await HttpIssuers(private=True).fetch(server.url(path), LONG) is None
    assert server.asked == [f"/{path}"]


async def test_a_small_answer_that_would_expand_is_not_expanded(server):
    body = await HttpIssuers(private=True).fetch(server.url("packed"), LONG)
    assert body is not None
    assert len(body) <= MAX_REPLY


async def test_a_silent_server_costs_the_time_allowed_and_no_more(server):
    began = time.monotonic()
    assert await HttpIssuers(private=True).fetch(server.url("silent"), SOON) is None
    assert time.monotonic() - began < 15  # of the 30 the server takes; not a measurement


async def test_nobody_there_is_nothing():
    async with serving() as gone:
        pass
    assert await HttpIssuers(private=True).fetch(gone.url("good"), LONG) is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0177.0.0.1"]
)
async def test_what_is_inside_is_not_asked_under_any_name(server, host):
    assert await HttpIssuers(private=False).fetch(server.url("good", host), LONG) is None
    assert server.asked == []


async def test_a_proxy_of_the_environment_is_not_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    assert await HttpIssuers(private=False).fetch("http://issuer.invalid/good", LONG) is None
    assert server.asked == []


class Resolves(AbstractResolver):
    """Answers with these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host, port=0, family=0):
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in self.addresses
        ]

    async def close(self) -> None:
        return None


async def test_of_a_name_with_addresses_on_both_sides_only_those_outside_are_used():
    mixed = PublicResolver(Resolves("10.0.0.1", "93.184.216.34", "169.254.169.254", "fe80::1%eth0"))
    assert [one["host"] for one in await mixed.resolve("pki.example", 80)] == ["93.184.216.34"]
    with pytest.raises(OSError, match="no public address"):
        await PublicResolver(Resolves("10.0.0.1", "::1")).resolve("pki.example", 80)
