"""Everything a verifier asks of others hangs at once: receivers of webhooks, the name server, the issuer of tokens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.eventually import eventually
from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import site
from tests.faults.striking import library
from tests.harness import POLICY

DRIP = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3000
WEBHOOKS = 6
"""Of each kind."""
SETTINGS = """\
[webhooks]
allow_http = true
allow_private = true
timeout = "2s"
first_retry = "1s"

[bearer]
issuer = "https://127.0.0.1:{port}"
audience = "verifier"
roles = ["gateways=relying-party"]
timeout = "2s"
"""


@asynccontextmanager
async def hanging(drip: bytes = b"") -> AsyncIterator[int]:
    """A port where connections are taken and nothing is said; or a byte a second."""

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            for number in range(3600):
                if drip:
                    writer.write(drip[number % len(drip) : number % len(drip) + 1])
                await asyncio.sleep(1)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def bearer(port: int) -> str:
    """As an issuer's token looks."""
    claims = {
        "iss": f"https://127.0.0.1:{port}",
        "aud": "verifier",
        "sub": "x",
        "exp": int(time.time()) + 600,
    }
    parts = [json.dumps({"alg": "ES256", "kid": "k"}).encode(), json.dumps(claims).encode(), os.urandom(64)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def held(pid: int) -> tuple[int, int]:
    """Files and threads of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.slow
async def test_a_fleet_attests_while_all_others_hang(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.eventually.PATIENCE", 60.0)
    environment = {"LD_PRELOAD": str(library(Path(__file__).with_name("hanging.c")))}
    async with (
        hanging() as silent,
        hanging(DRIP) as dripping,
        site(tmp_path, more=SETTINGS.format(port=silent), environment=environment) as verifier,
    ):
        crowd = Crowd(verifier)
        await crowd.arrive(honest=5, hostile=2)
        (replica,) = verifier.replicas
        (pid,) = replica.processes()
        connector = aiohttp.TCPConnector(ssl=verifier.tls(), force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def call(method, path, token, **options):
                headers = {"Authorization": f"Bearer {token}"}
                async with session.request(method, replica.url + path, headers=headers, **options) as reply:
                    return reply.status, await reply.json()

            operator = await verifier.token("operator")
            files, threads = held(pid)
            for number in range(WEBHOOKS):
                for place in (
                    f"http://127.0.0.1:{silent}/{number}",
                    f"http://127.0.0.1:{dripping}/{number}",
                    f"http://receiver-{number}.hang.example/",
                ):
                    status, said = await call("POST", "/v1/webhooks", operator, json={"url": place})
                    assert status == 201, said
            most = [0, 0]
            # What all of them are to be told of.
            changed = POLICY.replace("validity: 10m", "validity: 9m")
            yaml = {"Content-Type": "application/yaml"}
            async with session.post(
                f"{replica.url}/v1/policies",
                data=changed,
                headers={"Authorization": f"Bearer {operator}", **yaml},
            ) as reply:
                assert reply.status == 201, await reply.text()
            async with crowd.attesting():
                for member in crowd.members:
                    member.reboots = 0.2
                for _ in range(2):
                    asked = [call("GET", "/v1/verdicts", bearer(silent)) for _ in range(10)]
                    answers, _ = await asyncio.gather(asyncio.gather(*asked), crowd.several_rounds(1))
                    assert {(status, said["code"]) for status, said in answers} == {
                        (503, "verifier-unavailable")
                    }
                    most = [max(pair) for pair in zip(most, held(pid), strict=True)]
            check(crowd)
            waiting = 3 * WEBHOOKS
            assert most[0] <= files + waiting + 20, "an open file for each that hangs, and no more"
            assert most[1] <= threads + waiting + 8
            _, hooks = await call("GET", "/v1/webhooks", operator)
            for hook in hooks["webhooks"]:

                async def tried(path=f"/v1/webhooks/{hook['id']}/deliveries"):
                    _, listed = await call("GET", path, operator)
                    return any(one.get("problem") for one in listed["deliveries"])

                await eventually(tried)
        replica.signal(signal.SIGTERM)
        assert await replica.ended() == 0, "a stop waits for none of them"
