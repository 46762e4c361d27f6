"""The fleet view over 100,000 attesters: lists of the API and every page of the dashboard, over HTTP, on both databases."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import select

from tests.bench.measure import Result
from tests.bench.populate import digest, populate
from tests.harness import Answer, Guest, Harness, boot_log, running, settings_for
from tests.postgresql import Cluster, binaries, started
from verifier.logs import configure_logs
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.store.schema import latest
from verifier.web.dashboard.sessions import COOKIE

COUNT: Final = 100_000
FIRST_MS: Final = 20.0
"""Of CPU time, client, verifier and database together: the first page of a list, and what opens first: numbers and overview."""
_NUMBERS: Final = ("counts", "overview")
BUDGET_MS: Final = 200.0
"""Of any other page: what answers so fast is felt as answering at once."""
_ROUNDS: Final = 7
_CLOCKED: Final = 15
_LISTINGS: Final = {
    "first page": "",
    "first page, affirming": "status=affirming",
    "first page, contraindicated (1 of 1,000)": "status=contraindicated",
    "first page, stale (none)": "status=stale",
    "first page, by label (1 of 100)": "label=site%3Dsite-7",
    "first page, by a part of the name": "search=vm-0999",
}
"""What somebody opens first, and its query."""
_ANEW: Final = ", counted anew"


async def _measure(cluster: Cluster | None) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        database = "" if cluster is None else f'database = "{cluster.url("fleet")}"\n'
        settings = settings_for(Path(folder), database + _inventory(Path(folder)))
        async with running(settings) as verifier:
            view = View(verifier, cluster, await _session(verifier))
            bare = await view.fastest("/dashboard/login")
            await populate(verifier.service.store, await _two(verifier), COUNT)
            if cluster is not None:
                cluster.sql("ANALYZE", "fleet")  # as it does by itself within a minute
            costs = [
                await view.row(name, path, rows, bare)
                for name, (path, rows) in _pages(await _deep(verifier)).items()
            ]
            least = await view.least()
            return costs + [await view.clocked(name, path, least) for name, path in _first_pages().items()]


def _inventory(folder: Path) -> str:
    """A list of as many machines, whose keys are those of the attesters."""
    machines = [{"name": f"vm-{number:06}", "ek_sha256": [digest(number).hex()]} for number in range(COUNT)]
    (folder / "machines.json").write_text(json.dumps(machines))
    return (
        f'[[inventory]]\nkind = "file"\nname = "rack"\npath = "{folder / "machines.json"}"\ninterval = "1h"\n'
    )


async def _two(verifier: Harness) -> list[str]:
    found = []
    for seed, secure in ((1, True), (2, False)):
        guest = Guest.booted(verifier, seed, log=boot_log(secure=secure))
        await guest.enroll()
        assert (await guest.attest()).status == 200
        found.append(guest.attester_id)
    return found


def _pages(deep: str) -> dict[str, tuple[str, int | None]]:
    """Address, and how many rows the page has to have."""
    api, listing, inventory = "/v1/attesters", "/dashboard/attesters", "/dashboard/inventory"
    return {
        "API, first page": (f"{api}?limit=50", None),
        "API, page 1,000": (f"{api}?limit=50&cursor={deep}", None),
        "API, found by name": (f"{api}?search=vm-099999", None),
        "counts": ("/v1/status", None),
        "overview": ("/dashboard", None),
        f"counts{_ANEW}": ("/v1/status", None),
        f"overview{_ANEW}": ("/dashboard", None),
        "first page": (listing, 50),
        "page 1,000": (f"{listing}?cursor={deep}", 50),
        "contraindicated (1 of 1,000)": (f"{listing}?status=contraindicated", 50),
        "stale (none)": (f"{listing}?status=stale", 0),
        "revoked (11)": (f"{listing}?status=revoked", 11),
        "found by name": (f"{listing}?search=vm-099999", 1),
        "a search without result": (f"{listing}?search=nowhere", 0),
        "by label (1 of 100)": (f"{listing}?label=site%3Dsite-7", 50),
        "by label and state": (f"{listing}?label=site%3Dsite-0&status=contraindicated", 50),
        "inventory": (inventory, None),
        "inventory, found by name": (f"{inventory}?search=vm-099999", None),
    }


def _first_pages() -> dict[str, str]:
    """Address of each."""
    pages = {"overview": "/dashboard"}
    for name, query in _LISTINGS.items():
        pages[name] = f"/dashboard/attesters?{query}"
        pages[f"API, {name}"] = f"/v1/attesters?limit=50&{query}"
    return pages


async def _deep(verifier: Harness) -> str:
    """The cursor of a page in the middle, by way of the API's larger pages."""
    cursor = ""
    for _ in range(100):
        answer = await verifier.get(f"/v1/attesters?limit=500{f'&cursor={cursor}' if cursor else ''}")
        cursor = answer.json["cursor"]
    return cursor


async def _session(verifier: Harness) -> str:
    answer = await verifier.call(
        "POST",
        "/dashboard/login",
        data={"token": await verifier.token(Scope.OPERATOR)},
        allow_redirects=False,
    )
    found = re.match(rf"{COOKIE}=([^;]+)", answer.headers["Set-Cookie"])
    assert found is not None
    return found[1]


@dataclass(frozen=True)
class View:
    """Somebody signed in, who looks at the fleet."""

    verifier: Harness
    cluster: Cluster | None
    cookie: str

    async def row(self, name: str, path: str, rows: int | None, bare: float) -> Result:
        """What a page costs."""
        if name in _NUMBERS:  # the numbers, which a service that runs counts behind the requests
            await self.verifier.service.services.fleet.status(DEFAULT_TENANT)
        cost = await self.fastest(path, rows, forget=name not in _NUMBERS)
        budget = FIRST_MS if name.endswith(("first page", *_NUMBERS)) else BUDGET_MS
        return self._result(f": {name}", cost, f"sign-in page {bare:.1f} ms", cost / bare, budget)

    async def least(self) -> float:
        """Milliseconds on the clock of 50 rows that are only read."""
        store = self.verifier.service.store
        bare = select(*latest.columns).order_by(latest.c.tenant, latest.c.attester_id).limit(50)
        return await _median(lambda: store._backend.rows(bare))

    async def clocked(self, name: str, path: str, least: float) -> Result:
        """What passes on the clock until a page is there, as its reader feels it: on a machine with nothing else to do."""
        took = await _median(lambda: self._seen(path))
        return self._result(
            f", on the clock: {name}", took, f"50 rows read {least:.1f} ms", took / least, FIRST_MS
        )

    def _result(self, name: str, took: float, beside: str, ratio: float, budget: float) -> Result:
        engine = "SQLite" if self.cluster is None else "PostgreSQL"
        what = f"fleet of {COUNT:,}, {engine}{name}"
        return Result(what, took, "ms", beside, ratio, f"<= {budget:g} ms", took <= budget)

    async def _seen(self, path: str) -> None:
        answer = await self._get(path)
        assert answer.status == 200, answer.content

    async def fastest(self, path: str, rows: int | None = None, *, forget: bool = True) -> float:
        """CPU milliseconds of client, verifier and database together; what is remembered between requests may be forgotten
        first. SQLite is in this process; of PostgreSQL the mean is added, for its clock ticks are long."""
        costs, began = [], self._database()
        for _ in range(_ROUNDS):
            if forget:
                self.verifier.clock.advance(seconds=3)
            before = time.process_time()
            answer = await self._get(path)
            costs.append((time.process_time() - before) * 1e3)
            assert answer.status == 200, answer.content
            assert rows is None or answer.content.count(b'<th scope="row">') == rows, (path, rows)
        return min(costs) + (self._database() - began) / _ROUNDS

    async def _get(self, path: str) -> Answer:
        if path.startswith("/v1/"):
            return await self.verifier.get(path)
        return await self.verifier.call("GET", path, headers={"Cookie": f"{COOKIE}={self.cookie}"})

    def _database(self) -> float:
        """CPU milliseconds of PostgreSQL's processes so far."""
        return 0.0 if self.cluster is None else self.cluster.cpu() * 1e3


async def _median(work: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(_CLOCKED):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1e3)
    return median(took)


def pages() -> list[Result]:
    """Every page of the fleet."""
    configure_logs("json", "error", sys.stderr)
    made = asyncio.run(_measure(None))
    if binaries() is not None:
        with started(durable=True) as cluster:
            cluster.sql("CREATE DATABASE fleet")
            made += asyncio.run(_measure(cluster))
    return made


BENCHES: Final = {"dashboard": pages}
