"""The physical limit beside a run: what no attestation can do without, a bare HTTPS POST and the check of two signatures.

A bare aiohttp application on the same loop and TLS settings reads each body and answers bytes of those sizes, to clients that
ask again at once; its process is measured as the verifier's is. A POST at a lower rate cost two to four times as much, and another time
every time: a process that sleeps between two requests finds the processor's caches cold. Quote and ratchet are signed with P-256.
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

from tests.bench.fleet.guest import Guest
from tests.bench.fleet.http import MSGPACK, Connection
from tests.bench.measure import seconds
from verifier.crypto.keys import load_key
from verifier.crypto.signatures import verify
from verifier.keys.tls import own_tls
from verifier.logs import configure_logs
from verifier.tcg.signature import parse_signature

_SECONDS: Final = 3.0
_WARM: Final = 0.5
_CONNECTIONS: Final = 64
_SIGNATURES: Final = 2
_HEADS: Final = 400
"""Bytes of a request and a reply that are no body, about."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_us(request: float, reply: float) -> float:
    """Microseconds of CPU; sizes are of a request and a reply with their heads."""
    return _post_us(request, reply) + _SIGNATURES * signature_us()


def signature_us() -> float:
    """Of one verification."""
    guest = Guest(0, None)
    attest, signed = guest.tpm.quote(bytes(32), {"sha256": range(16)})
    key, signature = load_key(guest.tpm.ak_public).key, parse_signature(signed)
    (once,) = seconds(lambda: verify(key, signature, attest))
    return once * 1e6


def _post_us(request: float, reply: float) -> float:
    sizes = [max(1, round(size) - _HEADS) for size in (request, reply)]
    with tempfile.TemporaryDirectory(prefix="vtpm-floor-") as folder:
        command = [sys.executable, "-m", "tests.bench.fleet.floor", folder, str(sizes[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                port = int(server.stdout.readline()) if server.stdout else 0
                tls = ssl.create_default_context(cafile=Path(folder) / "ca.pem")
                url = f"https://localhost:{port}"
                asyncio.run(_load(url, tls, bytes(sizes[0]), _WARM))
                before = _cpu(server.pid)
                count = asyncio.run(_load(url, tls, bytes(sizes[0]), _SECONDS))
                return (_cpu(server.pid) - before) / max(1, count) * 1e6
            finally:
                server.terminate()


async def _load(url: str, tls: ssl.SSLContext, body: bytes, seconds: float) -> int:
    until, done = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal done
        connection = Connection(url, tls)
        while time.perf_counter() < until:
            await connection.post("/", body)
            done += 1
        connection.close()

    await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
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
