"""How long after a guest is no longer to be believed others know: over a stream, and at a webhook's receiver.

The clock starts when the request is sent that makes the verdict (evidence of a boot without Secure Boot) or revokes, so
the judging is in it. Service, receiver and reader share one process; the way over the network is not in it.
"""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.measure import Result
from tests.e2e.test_http_webhooks import ALLOWED, add, delivering, revoke
from tests.harness import Guest, Harness, boot_log, running, settings_for
from tests.receivers import receiving
from verifier.logs import configure_logs
from verifier.ports import Scope

_RUNS: Final = 50
_BUDGET_MS: Final = 1_000
_PHASES: Final = 0.013
"""Seconds by which each run is later than the one before within the service's interval of looking for events."""
_WHERE: Final = {"stream": "over a stream", "webhook": "at a receiver"}
Arrivals = dict[tuple[str, str], asyncio.Future[float]]


def events() -> list[Result]:
    """Slowest of all runs, with the median beside it."""
    configure_logs("json", "error", io.StringIO())
    took = asyncio.run(_measured())
    return [
        Result(
            f"{what} {_WHERE[where]}, slowest of {len(times)}",
            max(times) * 1e3,
            "ms",
            f"median {statistics.median(times) * 1e3:.0f} ms",
            None,
            f"<= {_BUDGET_MS:,} ms",
            max(times) * 1e3 <= _BUDGET_MS,
        )
        for (what, where), times in took.items()
    ]


async def _measured() -> dict[tuple[str, str], list[float]]:
    took: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for(Path(folder), **ALLOWED)
        async with running(settings) as verifier, delivering(verifier), receiving() as receiver:
            await add(verifier, receiver.url, kinds=["verdict.changed", "attester.revoked"])
            arrivals: Arrivals = {}
            receiver.heard = lambda one: _arrived(arrivals, "webhook", one.json)
            async with _stream(verifier) as reply:
                reading = asyncio.ensure_future(_read(reply, arrivals))
                for number in range(_RUNS):
                    await asyncio.sleep(number * _PHASES % 0.25)
                    await _run(verifier, number, arrivals, took)
                reading.cancel()
    return took


async def _run(
    verifier: Harness, number: int, arrivals: Arrivals, took: dict[tuple[str, str], list[float]]
) -> None:
    guest = Guest.booted(verifier, 1_000 + number, boot_log(secure=False))
    await guest.enroll()
    challenge = await guest.challenge()
    body = guest.evidence(challenge)

    async def attest() -> None:
        await verifier.post("/v1/attestations", body)

    steps: list[tuple[str, str, Callable[[], Any]]] = [
        ("a contraindicated verdict", "verdict.changed", attest),
        ("a revocation", "attester.revoked", lambda: revoke(verifier, guest)),
    ]
    for what, kind, act in steps:
        waiting = {}
        for where in ("stream", "webhook"):
            waiting[where] = arrivals[where, kind + guest.attester_id] = asyncio.Future()
        start = time.perf_counter()
        await act()
        for where, future in waiting.items():
            took.setdefault((what, where), []).append(await asyncio.wait_for(future, 30) - start)


def _stream(verifier: Harness) -> Any:
    headers = {"Authorization": f"Bearer {verifier.tokens[Scope.OPERATOR]}"}
    return verifier.session.get(f"{verifier.url}/v1/events", headers=headers)


async def _read(reply: aiohttp.ClientResponse, arrivals: Arrivals) -> None:
    lines: AsyncIterator[bytes] = reply.content
    async for line in lines:
        if line.startswith(b"data: "):
            _arrived(arrivals, "stream", json.loads(line[6:]))


def _arrived(arrivals: Arrivals, where: str, event: dict[str, Any]) -> None:
    kind = str(event.get("type", "")).removeprefix("vtpm-attest.")
    future = arrivals.pop((where, kind + str(event.get("subject"))), None)
    if future is not None:
        future.set_result(time.perf_counter())


BENCHES: Final = {"events": events}
