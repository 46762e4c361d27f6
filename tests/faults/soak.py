"""A verifier under everything at once for a long time: `python -m tests.faults.soak --help`.

Guests attest, reboot, send their IMA lists and enrol; relying parties, operators and dashboards ask; policies change, the
fleet is judged again, settings are read again. In the end what everybody was told is looked up in the database, and no
process may have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.fleet.guest import Guest as FleetGuest
from tests.bench.fleet.http import Connection, UnavailableError
from tests.faults.crowd import GOOD, Crowd, Member
from tests.faults.ledger import check
from tests.faults.site import Site, site
from tests.harness import POLICY, FakeClock, Guest, Harness
from tests.ima_guest import MeasuringGuest, a_set, policy_of
from tests.postgresql import INSTALLED, Cluster, binaries
from verifier.policy.runtime.writing import write_runtime_set

GROWTH: Final = 0.10
GROWTH_MB: Final = 16.0
HANDLES: Final = 8
"""Between two thirds of the run and its end a process may grow by a tenth and 16 MB, and hold 8 files more."""
RELOADING: Final = 1 / 4
"""Part of the run in which settings are read again: from then on the same processes are looked at."""
REBOOTS: Final = 0.01
"""Chance of a reboot before each attestation."""
MIDDLE: Final = (0.6, 0.7)
END: Final = (0.9, 1.0)
PROGRAMS: Final = a_set(f"/usr/bin/p{number}" for number in range(5000))
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """A process at one moment."""

    at: float
    megabytes: float
    handles: int


@dataclass
class Soak:
    """One run."""

    verifier: Site
    crowd: Crowd
    seconds: float
    began: float = field(default_factory=time.monotonic)
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def part(self) -> float:
        """How much of the run is over."""
        return (time.monotonic() - self.began) / self.seconds

    async def run(self) -> None:
        """All of it at once, until the time is over."""
        tls = self.verifier.tls()
        connector = aiohttp.TCPConnector(ssl=tls, limit=20)
        async with aiohttp.ClientSession(connector=connector) as session, self.crowd.attesting(2):
            every = self.seconds / 120
            tasks = [
                asyncio.create_task(self._repeat(pause, name, work))
                for name, pause, work in (
                    ("enrolled", every * 2, self._enrol),
                    ("polled", 0.5, lambda: self._poll(session)),
                    ("policies changed", every * 10, lambda: self._change_policy(session)),
                    ("reloaded", max(12.0, every * 8), self._reload),
                )
            ]
            tasks += [asyncio.create_task(self._measure(session)), asyncio.create_task(self._stream(session))]
            try:
                while self.part < 1:
                    self._look()
                    await asyncio.sleep(min(5.0, self.seconds / 100))
            finally:
                for task in tasks:
                    task.cancel()
                for ended in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(ended, Exception):
                        self.wrong.append(f"the load itself failed: {ended!r}")

    def _look(self) -> None:
        replica = self.verifier.replicas[0]
        assert replica.process is not None
        for pid in (replica.process.pid, *replica.processes()):
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                sample = Sample(self.part, pages * _PAGE / 1e6, handles)
                self.samples.setdefault(pid, []).append(sample)

    async def _repeat(self, pause: float, name: str, work: Callable[[], Awaitable[bool]]) -> None:
        while True:
            await asyncio.sleep(pause)
            if await work():
                self.done[name] = self.done.get(name, 0) + 1

    async def _enrol(self) -> bool:
        """A machine that comes, attests for a while, and stays."""
        seed = 10_000 + self.done.get("enrolled", 0)
        connections = [Connection(self.verifier.replicas[0].url, self.verifier.tls()) for _ in range(2)]
        guest = FleetGuest(seed, connections[0], image=GOOD)
        try:
            await guest.enroll(await self.verifier.token("join"))
        except UnavailableError:
            return False  # a worker that was told to end
        member = Member(guest, connections, honest=True, doubles=False, dice=random.Random(seed))
        for _ in range(3):
            await self.crowd.attest(member)
        self.crowd.members.append(member)
        for connection in connections:
            connection.close()
        return True

    async def _poll(self, session: aiohttp.ClientSession) -> bool:
        for path in ("/v1/status", "/v1/attesters?limit=50", "/metrics", "/v1/audit"):
            scope = "auditor" if path == "/v1/audit" else "dashboard"
            await self._call(session, "GET", path, scope)
        return True

    async def _change_policy(self, session: aiohttp.ClientSession) -> bool:
        """The same rules for another time; and everyone is judged again by it."""
        minutes = 7 + self.done.get("policies changed", 0) % 3
        source = POLICY.replace("validity: 10m", f"validity: {minutes}m")
        yaml = {"Content-Type": "application/yaml"}
        await self._call(session, "POST", "/v1/policies", "operator", data=source, headers=yaml)
        await self._call(session, "POST", "/v1/policies/secure-boot/rejudging", "operator")
        return True

    async def _reload(self) -> bool:
        if self.part > RELOADING:
            return False
        self.verifier.replicas[0].signal(signal.SIGHUP)
        return True

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        """A dashboard that follows the events, and connects again when a worker ends."""
        headers = {"Authorization": f"Bearer {await self.verifier.token('dashboard')}"}
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{self._url}/v1/events", headers=headers) as reply:
                    async for _ in reply.content:
                        self.done["lines of events"] = self.done.get("lines of events", 0) + 1
            await asyncio.sleep(1)

    async def _measure(self, session: aiohttp.ClientSession) -> None:
        """A guest that runs one program after the other, reboots now and then, and sends its list from where it is known."""
        harness = Harness(None, FakeClock(), self._url, session)  # type: ignore[arg-type]
        guest = Guest.booted(harness, 77_777)
        await guest.enroll(await self.verifier.token("join"))
        path = f"/v1/attesters/{guest.attester_id}/policy"
        await self._call(session, "PUT", path, "operator", json={"policy": "measured"})
        await asyncio.sleep(3)
        measuring = MeasuringGuest.on(guest)
        for number in itertools.count():
            if number % 500 == 0 and number:
                measuring.reboot()
            for program in range(3):
                measuring.run(f"/usr/bin/p{(number * 3 + program) % 5000}")
            try:
                verdict = (await measuring.attest())["verdict"]
            except aiohttp.ClientError:
                continue  # a worker that was told to end
            if verdict["status"] != "affirming":
                self.wrong.append(f"the measured guest is {verdict['status']}")
            self.done["lists judged"] = number + 1
            await asyncio.sleep(0.2)

    @property
    def _url(self) -> str:
        return self.verifier.replicas[0].url

    async def _call(
        self, session: aiohttp.ClientSession, method: str, path: str, scope: str, **options: Any
    ) -> None:
        token = {"Authorization": f"Bearer {await self.verifier.token(scope)}"}
        headers = token | options.pop("headers", {})
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.request(method, self._url + path, headers=headers, **options) as reply:
                text = await reply.text()
                if reply.status >= 300 and reply.status not in {429, 503}:
                    self.wrong.append(f"{method} {path}: {reply.status} {text[:200]}")

    def growth(self) -> list[Growth]:
        """Of every process that is there at the end."""
        found = []
        for pid, samples in self.samples.items():
            middle, end = _window(samples, MIDDLE), _window(samples, END)
            if end is not None:
                found.append(Growth(pid, middle, end))
        return found


@dataclass(frozen=True)
class Growth:
    """A process at two thirds of the run and at its end; None: it was not there yet."""

    pid: int
    middle: Sample | None
    end: Sample

    @property
    def wrong(self) -> str | None:
        if self.middle is None:
            return f"process {self.pid} was started late in the run: one had ended"
        if self.end.megabytes > self.middle.megabytes * (1 + GROWTH) + GROWTH_MB:
            return f"process {self.pid} grew from {self.middle.megabytes:.0f} to {self.end.megabytes:.0f} MB"
        if self.end.handles > self.middle.handles + HANDLES:
            return (
                f"process {self.pid} held {self.middle.handles} files open, and {self.end.handles} at the end"
            )
        return None

    def __str__(self) -> str:
        if self.middle is None:
            return f"{self.end.megabytes:.1f} MB, {self.end.handles} files"
        return (
            f"{self.middle.megabytes:.1f} -> {self.end.megabytes:.1f} MB, "
            f"{self.middle.handles} -> {self.end.handles} files"
        )


def _window(samples: list[Sample], between: tuple[float, float]) -> Sample | None:
    """The median of a part of the run."""
    chosen = [one for one in samples if between[0] <= one.at <= between[1]]
    if not chosen:
        return None
    middle = statistics.median(one.megabytes for one in chosen)
    return Sample(between[1], middle, int(statistics.median(one.handles for one in chosen)))


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    minutes: float
    database: str
    verdicts: int
    refusals: dict[str, int]
    done: dict[str, int]
    processes: list[str]
    wrong: list[str]


async def soak(minutes: float, *, guests: int, workers: int, database: str) -> Report:
    """Run, look into the database, and compare."""
    with tempfile.TemporaryDirectory(prefix="vtpm-soak-") as name, contextlib.ExitStack() as stack:
        cluster = stack.enter_context(_cluster()) if database == "postgresql" else None
        files = {
            "programs.rtset": b"".join(write_runtime_set(PROGRAMS)),
            "measured.yaml": policy_of(PROGRAMS).encode(),
        }
        async with site(Path(name), workers=workers, cluster=cluster, policies=files) as verifier:
            crowd = Crowd(verifier, pause=0.2)
            await crowd.arrive(honest=guests - guests // 5, hostile=guests // 5)
            for member in crowd.members:
                member.reboots = REBOOTS
            scopes = ("auditor", "dashboard", "operator", "relying-party")
            await asyncio.gather(*map(verifier.token, scopes))
            run = Soak(verifier, crowd, minutes * 60)
            await run.run()
            wrong = [*run.wrong, *filter(None, (one.wrong for one in run.growth()))]
            try:
                check(crowd)
            except AssertionError as error:
                wrong.append(str(error))
            return Report(
                minutes=minutes,
                database=database,
                verdicts=sum(crowd.accepted.values()),
                refusals=dict(crowd.refusals),
                done=run.done,
                processes=[str(one) for one in run.growth()],
                wrong=wrong,
            )


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    found = binaries()
    if found is None:
        raise SystemExit(f"no PostgreSQL server under {INSTALLED}: install the Debian package `postgresql`")
    server = Cluster(found, durable=True)
    try:
        server.initialise()
        yield server
    finally:
        server.remove()


def main() -> int:
    """The command; 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--guests", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    report = asyncio.run(
        soak(options.minutes, guests=options.guests, workers=options.workers, database=options.database)
    )
    print(json.dumps(asdict(report), indent=1))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
