"""A real HTTP receiver of webhooks, which answers as a test tells it and keeps what it was sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Where it is, what came, and what it answers: a status, or None to hang."""

    port: int = 0
    answer: Callable[[int], int | None] = lambda _: 204
    """By the number of requests so far."""
    tls: ssl.SSLContext | None = None
    heard: Callable[[Received], object] = lambda _: None
    """Called with each request as it comes."""
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/hook"

    async def next(self) -> Received:
        return await asyncio.wait_for(self.arrived.get(), 30)

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        one = Received(headers, await request.read())
        self.received.append(one)
        self.heard(one)
        self.arrived.put_nowait(one)
        status = self.answer(len(self.received))
        if status is None:
            await asyncio.sleep(3600)
        location = {"Location": "/elsewhere"} if status in {301, 302, 307, 308} else {}
        return web.Response(status=status or 500, headers=location)


@asynccontextmanager
async def receiving(**options: Any) -> AsyncIterator[Receiver]:
    """A receiver on the loopback."""
    receiver = Receiver(**options)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=receiver.tls).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
