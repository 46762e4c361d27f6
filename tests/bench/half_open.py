"""What is begun and never finished: 100,000 of each, and what they take of a verifier: `python -m tests.bench.half_open`.

Challenges that nobody answers, enrolments that nobody activates (of one TPM, and of as many TPMs as there are), and
clients that connect and say nothing, or half a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from rich.console import Console
from rich.table import Table

from agent.wire import messages as m
from tests.bench.fleet import host
from tests.bench.fleet.guest import Guest, RefusedError
from tests.bench.fleet.http import Connection

AT_ONCE = 32
_LIFETIME = "enrollment.lifetime = '1m'"
_CLIENTS = 20_000
"""Connections from one address: a client's ports, and both ends' descriptors, are few."""


@dataclass(frozen=True)
class Row:
    """One kind of what is begun."""

    name: str
    count: int
    seconds: float
    cpu_us: float
    """Of the verifier, each."""
    grown_mb: float
    """Its memory, afterwards."""
    peak_mb: float
    """The most it ever had."""
    database_mb: float
    left: int
    """Rows of enrolments, or connections, right afterwards."""


class Bench:
    """A verifier of our own, and whoever keeps it busy."""

    def __init__(self, own: host.Verifier) -> None:
        self.own = own
        self.tls = ssl.create_default_context(cafile=str(own.ca))
        self.tls.check_hostname = False

    async def measure(self, name: str, count: int, work: Callable[[], Awaitable[int]]) -> Row:
        """What it costs; `work` says how many there are left."""
        cpu, memory, disk = self.own.cpu(), self.own.memory(), self.own.database_bytes()
        started = time.perf_counter()
        left = await work()
        after = self.own.memory()
        return Row(
            name=name,
            count=count,
            seconds=time.perf_counter() - started,
            cpu_us=(self.own.cpu() - cpu) / count * 1e6,
            grown_mb=after.resident - memory.resident,
            peak_mb=after.peak,
            database_mb=(self.own.database_bytes() - disk) / 1e6,
            left=left,
        )

    async def each(self, count: int, one: Callable[[Connection, int], Awaitable[None]]) -> None:
        """Over a few connections, as fast as they are answered."""
        numbers = iter(range(count))

        async def some() -> None:
            connection = Connection(self.own.url, self.tls)
            for number in numbers:
                await insist(one, connection, number)
            connection.close()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def challenges(self, count: int) -> int:
        """Of one enrolled machine."""
        guest = Guest(1, Connection(self.own.url, self.tls))
        await guest.enroll(self.own.token)
        asked = m.ChallengeRequest(attester_id=guest.attester_id)

        async def one(connection: Connection, _: int) -> None:
            guest.connection = connection
            await guest.call("/v1/challenges", asked, m.Challenge)

        await self.each(count, one)
        return self.rows()

    async def enrollments(self, count: int, *, machines: bool) -> int:
        """Begun, of one machine or of as many, and never activated."""

        async def one(connection: Connection, number: int) -> None:
            guest = Guest(1_000_000 + number * machines, connection)
            await guest.begin(self.own.token)

        await self.each(count, one)
        return self.rows()

    async def silent(self, count: int, said: bytes | None) -> int:
        """Clients that connect (None), or shake hands and send so much of a request; how many were let in."""
        split = urlsplit(self.own.url)
        gate, held = asyncio.Semaphore(200), []

        async def one() -> None:
            async with gate:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(20):
                        if said is None:
                            held.append(await connected(split.hostname or "", split.port or 0))
                            return
                        _, writer = await asyncio.open_connection(split.hostname, split.port, ssl=self.tls)
                        writer.write(said)
                        held.append(writer)

        await asyncio.gather(*(one() for _ in range(count)))
        open_now = self.descriptors()
        for end in held:
            end.close()
        return open_now

    def rows(self) -> int:
        """Enrolments in the database."""
        with contextlib.closing(sqlite3.connect(self.own.state / "verifier.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM enrollment").fetchone()[0])

    def descriptors(self) -> int:
        """Sockets that the verifier has open."""
        return sum(1 for _ in Path(f"/proc/{self.own.process.pid}/fd").iterdir())


async def connected(name: str, port: int) -> socket.socket:
    """A connection on which nothing is said."""
    made = socket.socket()
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, (name, port))
    return made


async def insist(
    one: Callable[[Connection, int], Awaitable[None]], connection: Connection, number: int
) -> None:
    """As a guest does that is sent away."""
    while True:
        try:
            return await one(connection, number)
        except RefusedError as refusal:
            if refusal.retry_after is None:
                raise
            await asyncio.sleep(refusal.retry_after)


async def run(own: host.Verifier, count: int, clients: int) -> list[Row]:
    """All kinds, one after the other."""
    bench = Bench(own)
    half = b"POST /v1/challenges HTTP/1.1\r\nHost: verifier\r\nContent-Ty"
    body = b"POST /v1/challenges HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
    kinds: list[tuple[str, int, Callable[[], Awaitable[int]]]] = [
        ("challenges never answered", count, lambda: bench.challenges(count)),
        ("enrolments of one TPM", count, lambda: bench.enrollments(count, machines=False)),
        ("enrolments of as many TPMs", count, lambda: bench.enrollments(count, machines=True)),
        ("connections, nothing said", clients, lambda: bench.silent(clients, None)),
        ("connections, half a head", clients, lambda: bench.silent(clients, half)),
        ("connections, half a body", clients, lambda: bench.silent(clients, body)),
    ]
    kinds.append(("what has expired is dropped", 1, lambda: gone(bench)))
    rows = []
    for kind in kinds:
        rows.append(await bench.measure(*kind))
        print(rows[-1], file=sys.stderr, flush=True)  # it takes an hour where others load the machine
    return rows


async def gone(bench: Bench) -> int:
    """Wait until expired enrolments are dropped, which is looked after once a minute."""
    for _ in range(300):
        if not bench.rows():
            break
        await asyncio.sleep(1)
    return bench.rows()


def table(rows: list[Row]) -> Table:
    """For people."""
    made = Table(box=None, pad_edge=False)
    for head in ("begun", "count", "s", "CPU each, us", "memory, MB", "peak, MB", "database, MB", "left"):
        made.add_column(head, justify="left" if head == "begun" else "right")
    for row in rows:
        figures = (
            f"{row.seconds:,.0f}",
            f"{row.cpu_us:,.0f}",
            f"{row.grown_mb:+,.0f}",
            f"{row.peak_mb:,.0f}",
        )
        made.add_row(row.name, f"{row.count:,}", *figures, f"{row.database_mb:+,.1f}", f"{row.left:,}")
    return made


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.half_open", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=_CLIENTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with host.verifier(more=_LIFETIME) as own, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(own, options.count, options.clients))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console(width=120).print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
