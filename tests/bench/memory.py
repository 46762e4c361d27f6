"""What a worker keeps in memory: a fleet of 100,000 in its database, and everything that is asked of it in a day.

    python -m tests.bench.memory --database postgresql --attesters 100000 --guests 1000

`make bench` takes a row of it for each database. The worker is a process of its own, as `serve` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench import populate
from tests.bench.fleet import host
from tests.bench.fleet.crew import Crew, Plan
from tests.bench.fleet.http import Connection
from tests.bench.measure import Result
from tests.postgresql import binaries
from tests.simulator import SoftwareTpm
from verifier.crypto.keys import load_key
from verifier.store import open_store
from verifier.web.dashboard.sessions import COOKIE

BUDGET_MB: Final = 200.0
ATTESTERS: Final = 100_000
GUESTS: Final = 200
_POLLED: Final = 2_000
_POLLERS: Final = 16
KEYS: Final = load_key.cache_info().maxsize or 0
"""Of machines that a worker remembers; of a larger fleet some are read anew at each attestation."""


@dataclass(frozen=True)
class Step:
    """How much it is after what."""

    name: str
    memory: host.Memory


@dataclass
class Visitor:
    """Whoever looks at the fleet: a relying party, an operator's dashboard, a scraper."""

    connection: Connection
    token: str
    cookie: str = ""

    async def get(self, path: str, **headers: str) -> tuple[dict[str, str], bytes]:
        """The answer, which has to be a good one."""
        sent = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"} | headers
        status, received, content = await self.connection.get(path, sent)
        if status not in {200, 304}:
            raise AssertionError(f"{path}: {status} {content[:300]!r}")
        return received, content

    async def refused(self, path: str, body: bytes) -> str:
        """The code of the problem that a message is answered with."""
        said = {"Authorization": f"Bearer {self.token}"}
        _, _, content = await self.connection.post(path, body, said)
        return str(msgspec.json.decode(content)["code"])

    async def page(self, path: str) -> bytes:
        """A page of the dashboard."""
        status, _, content = await self.connection.get(path, {"Cookie": f"{COOKIE}={self.cookie}"})
        if status != 200:
            raise AssertionError(f"{path}: {status} {content[:300]!r}")
        return content


async def measure(database: str, attesters: int, guests: int, seconds: float) -> list[Step]:
    """Start a worker, give it all that traffic, and read its memory on the way."""
    with host.verifier(database=database) as own:
        steps: list[Step] = []

        def read(name: str) -> None:
            steps.append(Step(name, own.memory()))

        read("started")
        crew = Crew(_plan(own, guests, seconds))
        await crew._prepare(crew.guests)
        read(f"{guests:,} guests enrolled, each on a connection")
        await _fill(own, crew, attesters)
        await crew._steady()
        read(f"{len(crew.outcome.latencies):,} attestations")
        if crew.outcome.wrong or not crew.outcome.latencies:
            raise AssertionError(crew.outcome)
        for name, traffic in _TRAFFIC.items():
            visitors = [await _visitor(own, crew) for _ in range(_POLLERS)]
            await traffic(visitors, attesters)
            read(name)
        return steps


def _plan(own: host.Verifier, guests: int, seconds: float) -> Plan:
    return Plan(
        url=own.url,
        ca=own.ca,
        token=own.token,
        first=0,
        count=guests,
        seconds=seconds,
        rate=None,
        rsa=0.0,
        hostile=0.02,
        reboots=0.05,
        storm=False,
    )


async def _fill(own: host.Verifier, crew: Crew, attesters: int) -> None:
    patterns = [guest.attester_id for guest in crew.guests[:3]]
    store = await open_store(own.database, migrate=False)
    try:
        await populate.populate(store, patterns, attesters - len(crew.guests), history=2)
    finally:
        await store.close()


async def _visitor(own: host.Verifier, crew: Crew) -> Visitor:
    tls = crew.guests[0].connection.tls
    return Visitor(Connection(own.url, tls), _token(own))


_tokens: dict[Path, str] = {}


def _token(own: host.Verifier) -> str:
    if own.config not in _tokens:
        _tokens[own.config] = host.api_token(own.config, "admin")
    return _tokens[own.config]


async def _walk(visitors: list[Visitor], _: int) -> None:
    """Every page of the fleet, as an inventory does that copies it, and the filters on the first."""
    visitor, path, cursor = visitors[0], "/v1/attesters?limit=500", ""
    while cursor is not None:
        _, content = await visitor.get(f"{path}&cursor={cursor}" if cursor else path)
        cursor = msgspec.json.decode(content).get("cursor")
    for number in range(200):
        await visitor.get(f"/v1/attesters?search=vm-{number:06}")
        await visitor.get(f"/v1/attesters?label=site%3Dsite-{number % populate.SITES}")


async def _poll(visitors: list[Visitor], attesters: int) -> None:
    """Verdicts of many, then again with their ETags; each tenth as an EAR, with its history and its page."""

    async def one(visitor: Visitor, numbers: range) -> None:
        for number in numbers:
            path = f"/v1/attesters/{populate.attester_id(number)}"
            headers, _ = await visitor.get(f"{path}/verdict")
            await visitor.get(f"{path}/verdict", **{"If-None-Match": headers["etag"]})
            if number % 10 == 0:
                await visitor.get(f"{path}/verdict", Accept="application/eat+jwt")
                await visitor.get(f"{path}/history")
                await visitor.get(path)

    most = min(_POLLED, attesters - GUESTS)
    await asyncio.gather(*(one(v, range(n, most, len(visitors))) for n, v in enumerate(visitors)))


async def _keys(visitors: list[Visitor], _: int) -> None:
    """As many AKs as a worker remembers: those of background checks by keys that nobody has, each read and refused."""
    tpm = SoftwareTpm("memory")
    attest, signature = tpm.quote(bytes(32), {"sha256": range(16)})
    evidence = {
        "format": "vtpm-attest/bundle/1",
        "quote": {"attest": attest, "signature": signature},
        "pcrs": {},
    }

    async def one(visitor: Visitor, count: int) -> None:
        for _ in range(count):
            asked = {"nonce": bytes(32), "evidence": evidence | {"ak_public": _another_key(tpm.ak_public)}}
            code = await visitor.refused("/v1/appraisals", msgspec.msgpack.encode(asked))
            assert code == "ak-unproven", code

    await asyncio.gather(*(one(visitor, KEYS // len(visitors)) for visitor in visitors))


def _another_key(ak_public: bytes) -> bytes:
    """The same public area with a point of its own, which ends it: x and y, each with its length."""
    made = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    point = b"".join(b"\x00\x20" + number.to_bytes(32, "big") for number in (made.x, made.y))
    return ak_public[: -len(point)] + point


async def _scrape(visitors: list[Visitor], _: int) -> None:
    for _ in range(100):
        await visitors[0].get("/v1/status")
        await visitors[0].get("/metrics")


_TRAFFIC: Final[Mapping[str, Any]] = {
    "the whole fleet listed": _walk,
    f"{_POLLED:,} verdicts polled": _poll,
    f"{KEYS:,} keys remembered": _keys,
    "metrics scraped": _scrape,
}


def _databases() -> Iterator[str]:
    yield "sqlite"
    if binaries() is not None:
        yield "postgresql"


def rows() -> list[Result]:
    """One for each database."""
    made = []
    for database in _databases():
        steps = asyncio.run(measure(database, ATTESTERS, GUESTS, 5.0))
        peak = max(step.memory.resident for step in steps)
        made.append(
            Result(
                f"memory of a worker, {ATTESTERS:,} enrolled, {database}",
                peak,
                "MB",
                f"started {steps[0].memory.resident:.0f} MB",
                peak / steps[0].memory.resident,
                f"<= {BUDGET_MB:g} MB",
                peak <= BUDGET_MB,
            )
        )
    return made


BENCHES: Final = {"memory": rows}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description="Memory of a worker.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--attesters", type=int, default=ATTESTERS)
    parser.add_argument("--guests", type=int, default=GUESTS)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    for step in asyncio.run(measure(options.database, options.attesters, options.guests, options.seconds)):
        m = step.memory
        print(
            f"{m.resident:7.1f} MB resident, {m.proportional:7.1f} proportional, {m.peak:7.1f} peak: {step.name}"
        )
