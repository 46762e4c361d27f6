"""What pollers cost: `/v1/status`, and answers that say nothing is new, on one worker over TLS.

The service runs in a process of its own, as `serve` runs it, beside a bare aiohttp application that answers 304 to
everything. Counted is the CPU time of that process, so that neither the client nor other work on the machine is.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import Result

_CONNECTIONS: Final = 8
_REQUESTS: Final = 4_000
_ROUNDS: Final = 5
_ATTESTERS: Final = 200
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ready:
    """What the server's process says once it listens."""

    port: int
    bare: int
    token: str
    attester: str
    ca: str
    tags: dict[str, str]


class _Asker(asyncio.Protocol):
    """One connection that sends the same request again whenever it was answered."""

    def __init__(self, request: bytes, expected: bytes, count: int) -> None:
        self._request, self._expected, self._left = request, expected, count
        self._buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        if not head.startswith(self._expected):
            self.done.set_exception(AssertionError(self._buffer.decode(errors="replace")))
            return
        self._buffer, self._left = b"", self._left - 1
        if self._left:
            self._transport.write(self._request)
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))


async def _load(port: int, ca: str, request: bytes, expected: bytes) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=ca)
    askers = [
        (
            await loop.create_connection(
                lambda: _Asker(request, expected, _REQUESTS // _CONNECTIONS),
                "localhost",
                port,
                ssl=context,
            )
        )[1]
        for _ in range(_CONNECTIONS)
    ]
    await asyncio.gather(*(asker.done for asker in askers))


def _request(path: str, token: str, tag: str | None = None) -> bytes:
    known = "" if tag is None else f"If-None-Match: {tag}\r\n"
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{known}"
        "Accept: application/json\r\n\r\n"
    ).encode()


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _cost(pid: int, load: Callable[[], Any]) -> float:
    """CPU seconds of the server per request, in one round."""
    before = _cpu(pid)
    asyncio.run(load())
    return (_cpu(pid) - before) / _REQUESTS


def pollers() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.web_server", folder, str(_ATTESTERS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                ready = Ready(**json.loads(server.stdout.readline()))
                return _measure(server.pid, ready)
            finally:
                server.terminate()


def _measure(pid: int, ready: Ready) -> list[Result]:
    verdict = f"/v1/attesters/{ready.attester}/verdict"
    asked = {
        "bare": (ready.bare, _request("/", ready.token), b"HTTP/1.1 304"),
        "verdict": (ready.port, _request(verdict, ready.token, ready.tags["verdict"]), b"HTTP/1.1 304"),
        "status": (ready.port, _request("/v1/status", ready.token, ready.tags["status"]), b"HTTP/1.1 304"),
        "whole": (ready.port, _request("/v1/status", ready.token), b"HTTP/1.1 200"),
    }
    costs = {name: float("inf") for name in asked}
    for _ in range(_ROUNDS):
        for name, (port, request, expected) in asked.items():
            costs[name] = min(
                costs[name],
                _cost(pid, lambda: _load(port, ready.ca, request, expected)),  # noqa: B023
            )
    bare = f"bare aiohttp 304 {1 / costs['bare']:,.0f}/s"
    rates = [
        Result(
            f"304 of {name}, over TLS, one worker",
            1 / costs[key],
            "/s",
            bare,
            costs[key] / costs["bare"],
            ">= 5,000/s",
            costs[key] <= 1 / 5_000,
        )
        for key, name in (("verdict", "a verdict"), ("status", "/v1/status"))
    ]
    whole = Result(
        f"/v1/status of {_ATTESTERS:,} attesters, over TLS",
        costs["whole"] * 1e6,
        "us",
        f"bare aiohttp 304 {costs['bare'] * 1e6:.1f} us",
        costs["whole"] / costs["bare"],
        "<= 1000 us",
        costs["whole"] <= 1e-3,
    )
    return [whole, *rates]


BENCHES: Final = {"pollers": pollers}
