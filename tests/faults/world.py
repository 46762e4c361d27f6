"""A verifier that is struck in the middle of what it does, and everything that has to be so afterwards."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp

from tests.faults.crowd import Crowd, Told
from tests.faults.ledger import check, query
from tests.faults.nursery import Child, Nursery, fault_of, nursery
from tests.faults.site import Site, prepared
from tests.faults.striking import Strike, Striker
from tests.harness import Answer, FakeClock, Guest, Harness, boot_log
from tests.postgresql import Cluster
from verifier.ports import Scope

Deed: TypeAlias = Callable[[], Awaitable[Answer]]
Operation: TypeAlias = Callable[["World", int], AsyncGenerator[Deed, Answer | None]]
"""Yields what shall be struck at; is sent the answer, None where there was none, and goes on as the client would."""
MOST_STEPS: Final = 400
WAL_HEADER: Final = 32
WAL_FRAME: Final = 24 + 4096
"""Of a page, with its own header: https://www.sqlite.org/fileformat2.html#walformat"""


@dataclass
class World(Harness):
    """A client of real processes; `seeds` are of machines nobody has seen."""

    site: Site = field(kw_only=True)
    nursery: Nursery = field(kw_only=True)
    striker: Striker = field(kw_only=True)
    crowd: Crowd = field(kw_only=True)
    child: Child | None = None
    good: Guest | None = None
    bad: Guest | None = None
    problems: list[str] = field(default_factory=list)
    torn: int = 0
    """How often a part of a frame was at the end of SQLite's log after a kill."""

    async def token(self, scope: Scope, **options: Any) -> str:
        if "uses" in options:
            body = {"scopes": [scope.value], "uses": options["uses"]}
            made = await self.post("/v1/tokens", body, scope=Scope.ADMIN)
            assert made.status == 201, made.content
            return str(made.json["token"])
        uses = ["--uses", "100000"] if scope is Scope.JOIN else []
        config = str(self.site.replicas[0].config)
        child = await self.nursery.start(
            "tokens", "create", "--config", config, "--scope", scope.value, "--json", *uses
        )
        assert await asyncio.wait_for(child.ended, 60) == 0, fault_of(child)
        return str(json.loads(child.out.read_text())["token"])

    async def start(self) -> None:
        """Until it answers; over connections of its own."""
        self.child = await self.nursery.start("serve", "--config", str(self.site.replicas[0].config))
        assert await self.child.listening(), fault_of(self.child)
        await self.connect()

    async def connect(self) -> None:
        if self.session is not None:
            await self.session.close()
        connector = aiohttp.TCPConnector(ssl=self.site.tls(), limit=1)
        self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))

    async def strike(self, deed: Deed, what: Strike, after: int) -> tuple[Answer | None, bool]:
        """Do it, struck at its n-th write; the answer, and whether that write was reached."""
        assert self.child is not None
        assert (await self.call("GET", "/healthz")).status == 200  # the connection is open from now on
        self.striker.arm(what, after)
        answer = None
        try:
            answer = await deed()
        except aiohttp.ClientError:
            pass
        finally:
            reached = self.striker.disarm() > after
        if what in {Strike.KILL, Strike.TEAR} and reached:
            async with asyncio.timeout(30):
                await asyncio.shield(self.child.ended)
            self.torn += self._torn()
            await self.start()
        elif answer is None:
            self.problems.append(f"cut without a reason: {fault_of(self.child)}")
            await self.connect()
        if answer is not None and answer.status >= 500:
            if (answer.status, answer.code) != (503, "verifier-unavailable"):
                self.problems.append(f"{answer.status} {answer.code}: {answer.content!r}")
            answer = None
        return answer, reached

    def _torn(self) -> bool:
        log = self.site.state / "verifier.db-wal"
        return (
            log.exists()
            and log.stat().st_size > WAL_HEADER
            and (log.stat().st_size - WAL_HEADER) % WAL_FRAME != 0
        )

    def note(self, answer: Answer) -> Any:
        """A verdict somebody was told."""
        assert answer.status == 200, answer.content
        told = answer.json["verdict"]
        self.crowd.told.append(
            Told(told["attester_id"], told["sequence"], told["status"], told["evidence_sha256"], "agent")
        )
        return told

    async def says(self, guest: Guest, status: str) -> None:
        """The next attestation of a guest."""
        told = self.note(await guest.attest())
        if told["status"] != status:
            codes = [one["code"] for one in told["findings"] if one["status"] != "passed"]
            self.problems.append(f"{guest.tpm.seed} is {told['status']}, not {status}: {codes}")

    async def goes_on(self) -> None:
        """Those who were there before are judged as ever, and the database is whole."""
        assert self.good is not None
        assert self.bad is not None
        await self.says(self.good, "affirming")
        await self.says(self.bad, "contraindicated")
        if self.site.cluster is None:
            with sqlite3.connect(f"file:{self.site.state / 'verifier.db'}?mode=ro", uri=True) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []

    def audited(self, action: str, subject: str) -> int:
        """How often the audit log has it."""
        statement = f"SELECT count(*) FROM audit WHERE action = '{action}' AND subject = '{subject}'"
        return int(query(self.site, statement)[0][0])


@asynccontextmanager
async def world(directory: Path, cluster: Cluster | None = None, more: str = "") -> AsyncIterator[World]:
    """One that serves, with a good guest and a bad one."""
    striker = Striker(directory)
    site = prepared(directory, cluster=cluster, more=more)
    crowd = Crowd(site)
    async with nursery(directory / "processes", striker.environment) as children:
        made = World(
            None, FakeClock(), site.replicas[0].url, None,  # type: ignore[arg-type]
            site=site, nursery=children, striker=striker, crowd=crowd,
        )  # fmt: skip
        try:
            await made.start()
            for scope in (Scope.ADMIN, Scope.OPERATOR):
                made.tokens[scope] = await made.token(scope)
            made.good = await made.guest(900_001)
            made.bad = await made.guest(900_002, log=boot_log(secure=False))
            await made.goes_on()
            yield made
            check(crowd)
            assert made.problems == []
        finally:
            if made.session is not None:
                await made.session.close()


async def sweep(made: World, operation: Operation, what: Strike = Strike.KILL, *, every: int = 1) -> int:
    """Strike at every step of it, one after the other, until it passes unharmed; how many there are."""
    for number, after in enumerate(range(0, MOST_STEPS * every, every)):
        steps = operation(made, number)
        deed = await anext(steps)
        answer, reached = await made.strike(deed, what, after)
        try:
            await steps.asend(answer)
        except StopAsyncIteration:
            pass
        except AssertionError as error:
            raise AssertionError(f"{operation.__name__}, {what.name} at step {after}: {error}") from error
        await made.goes_on()
        assert made.problems == [], f"{operation.__name__}, {what.name} at step {after}: {made.problems}"
        if not reached:
            assert answer is not None
            return after
    raise AssertionError(f"{operation.__name__} has no end")
