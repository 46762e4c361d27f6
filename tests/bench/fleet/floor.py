"""The physical limit beside a run: what nothing but HTTPS costs, at the same rate, with requests and replies of that size.

A bare aiohttp application on the same loop and TLS settings reads each body and answers bytes; its process is measured as
the verifier's is. What the verifier costs beyond it is its own work.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from tests.bench.fleet.http import MSGPACK, Connection
from verifier.keys.tls import own_tls
from verifier.logs import configure_logs

_SECONDS: Final = 3.0
_MOST: Final = 64
_HEADS: Final = 400
"""Bytes of a request and a reply that are no body, about."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_us(connections: int, rate: float, request: float, reply: float) -> float:
    """Microseconds of CPU for each POST, at `rate` a second over so many connections; sizes include the heads."""
    sizes = [max(1, round(size) - _HEADS) for size in (request, reply)]
    with tempfile.TemporaryDirectory(prefix="vtpm-floor-") as folder:
        command = [sys.executable, "-m", "tests.bench.fleet.floor", folder, str(sizes[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                port = int(server.stdout.readline()) if server.stdout else 0
                tls = ssl.create_default_context(cafile=Path(folder) / "ca.pem")
                url = f"https://localhost:{port}"
                asyncio.run(_load(url, tls, min(connections, _MOST), rate, bytes(sizes[0]), 0.5))
                before = _cpu(server.pid)
                count = asyncio.run(_load(url, tls, min(connections, _MOST), rate, bytes(sizes[0]), _SECONDS))
                return (_cpu(server.pid) - before) / max(1, count) * 1e6
            finally:
                server.terminate()


async def _load(
    url: str, tls: ssl.SSLContext, connections: int, rate: float, body: bytes, seconds: float
) -> int:
    until, pause, done = time.perf_counter() + seconds, connections / rate, 0

    async def one(number: int) -> None:
        nonlocal done
        connection = Connection(url, tls)
        due = time.perf_counter() + pause * number / connections
        while max(due, time.perf_counter()) < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await connection.post("/", body)
            done += 1
            due += pause
        connection.close()

    await asyncio.gather(*map(one, range(connections)))
    return done


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def _serve(folder: Path, size: int) -> None:
    configure_logs(
        "console", "warning", sys.stderr
    )  # whoever measures reads the port from this process's output
    reply = os.urandom(size)

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=reply, headers={"Content-Type": MSGPACK})

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, auto_decompress=False, access_log=None)
    await runner.setup()
    context = own_tls(folder, ["localhost"], datetime.now(UTC)).context()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
