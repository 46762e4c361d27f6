"""Guests that attest without a pause and relying parties that ask for verdicts, all over HTTPS; each answer is kept.

A request whose connection was cut is sent again as it was, to another replica where there is one: whether it was
stored is for the verifier to know. Some guests send everything twice at the same moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from agent.wire import messages as m
from agent.wire.codec import MSGPACK, decode, encode
from tests.bench.fleet.guest import Guest
from tests.bench.fleet.http import Connection, UnavailableError
from tests.faults.site import Site

GOOD: Final = "uki-sb-on"
BAD: Final = "uki-sb-off"
"""An image that the policy calls contraindicated."""
PAUSE: Final = 0.05
LONGEST: Final = 58.0
"""Seconds within which every request is answered or cut, whatever is broken."""
BUSY: Final = {429, 503}
SPENT: Final = {"nonce-reused", "evidence-overtaken"}
"""Said to who sends something twice, or again."""


@dataclass(frozen=True)
class Told:
    """A verdict as somebody was told it."""

    attester_id: str
    sequence: int
    status: str
    evidence_sha256: str | None
    by: str


@dataclass
class Member:
    """One guest with a connection to every replica."""

    guest: Guest
    connections: list[Connection]
    honest: bool
    doubles: bool
    dice: random.Random
    held: m.Challenge | None = None
    reboots: float = 0.0
    """Chance of a reboot before each attestation."""

    @property
    def expected(self) -> str:
        return "affirming" if self.honest else "contraindicated"


@dataclass
class Crowd:
    """All of them, and what they were told."""

    site: Site
    members: list[Member] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    accepted: Counter[bytes] = field(default_factory=Counter)
    """How often the evidence over a nonce was answered by a verdict."""
    refusals: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    wrong: list[str] = field(default_factory=list)
    """Answers that must not be."""
    tolerated: set[str] = field(default_factory=lambda: set(SPENT))
    """Codes of refusals that are no fault: of what was sent twice, and what a test adds."""
    longest: float = 0.0
    pause: float = PAUSE
    """Between two attestations of a guest: up to twice as long."""
    rounds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Verdicts given to each guest."""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cut(self) -> int:
        """Connections that were lost, those among them that were replaced at once, with the same request sent again."""
        return self.broken + sum(
            max(0, each.connects - 1) for member in self.members for each in member.connections
        )

    async def arrive(self, honest: int, hostile: int) -> None:
        """Enrol so many, each with its first verdict."""
        tls, token = self.site.tls(), await self.site.token("join")
        for seed in range(honest + hostile):
            # Two to each replica: with several workers they end at different ones, more often than not.
            connections = [Connection(each.url, tls) for each in self.site.replicas for _ in range(2)]
            good = seed < honest
            guest = Guest(seed, connections[0], image=GOOD if good else BAD)
            self.members.append(
                Member(guest, connections, good, doubles=seed % 3 == 2, dice=random.Random(seed))
            )
            await guest.enroll(token)
        await asyncio.gather(*(self.attest(member) for member in self.members))
        assert not self.wrong, self.wrong

    @asynccontextmanager
    async def attesting(self, relying_parties: int = 1) -> AsyncIterator[None]:
        """They attest, and are asked about, as long as this is open."""
        token = await self.site.token("relying-party")
        tasks = [asyncio.create_task(self._attest_on(member)) for member in self.members]
        tasks += [asyncio.create_task(self._ask_on(token, number)) for number in range(relying_parties)]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)
            self._stop.clear()

    async def several_rounds(self, rounds: int = 3, seconds: float = 600.0) -> None:
        """Until each guest was given so many more verdicts; that this does not happen is a fault."""
        before = {member.guest.attester_id: self.rounds[member.guest.attester_id] for member in self.members}
        end = time.monotonic() + seconds
        while missing := [key for key, known in before.items() if self.rounds[key] < known + rounds]:
            if time.monotonic() > end:
                refused = dict(self.refusals)
                self.wrong.append(f"no verdict for {len(missing)} guests within {seconds:.0f} s: {refused}")
                return
            await asyncio.sleep(0.05)

    async def attest(self, member: Member) -> bool:
        """One attestation, over the challenge at hand or a new one; whether there was a verdict."""
        challenge, member.held = member.held, None
        if challenge is None:
            asked = m.ChallengeRequest(attester_id=member.guest.attester_id)
            challenge = await self._insist(member, "/v1/challenges", asked, m.Challenge)
            if challenge is None:
                return False
        evidence = member.guest.evidence(challenge)
        if member.doubles:
            first, second = member.dice.sample(member.connections, 2)
            replies = await asyncio.gather(
                *(
                    self._send(each, "/v1/attestations", evidence, m.AttestationReply)
                    for each in (first, second)
                )
            )
        else:
            replies = [await self._insist(member, "/v1/attestations", evidence, m.AttestationReply)]
        given = [reply for reply in replies if isinstance(reply, m.AttestationReply)]
        for reply in given:
            self.note(member, challenge.nonce, reply)
        return bool(given)

    def note(self, member: Member, nonce: bytes, reply: m.AttestationReply) -> None:
        """A verdict that was given."""
        verdict = reply.verdict
        self.accepted[nonce] += 1
        self.rounds[member.guest.attester_id] += 1
        member.held = reply.challenge
        self.told.append(
            Told(member.guest.attester_id, verdict.sequence, verdict.status, verdict.evidence_sha256, "agent")
        )
        if verdict.status != member.expected:
            codes = [finding.code for finding in verdict.findings if finding.status != "passed"]
            self.wrong.append(f"guest {member.guest.seed}: {verdict.status}, not {member.expected}: {codes}")

    async def _insist(self, member: Member, path: str, message: m.Message, reply: type[Any]) -> Any:
        """Send the same again while it is cut off or put off; None once it is refused or nobody wants it any more."""
        while True:
            answer = await self._send(member.dice.choice(member.connections), path, message, reply)
            if not isinstance(answer, _Again):
                return answer
            if self._stop.is_set():
                return None
            await asyncio.sleep(PAUSE * (1 + member.dice.random()))

    async def _send(self, connection: Connection, path: str, message: m.Message, reply: type[Any]) -> Any:
        """The answer; None where it was refused for good; `_Again` where nobody knows."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST):
                status, headers, content = await connection.post(path, encode(message, MSGPACK))
        except UnavailableError:
            self.broken += 1
            return _Again()
        except TimeoutError:
            connection.close()
            self.wrong.append(f"{path}: neither answered nor cut within {LONGEST:.0f} s")
            return _Again()
        finally:
            self.longest = max(self.longest, time.monotonic() - started)
        if status < 400:
            return decode(content, reply, MSGPACK)
        return self._refused(path, status, headers, content)

    def _refused(self, path: str, status: int, headers: dict[str, str], content: bytes) -> _Again | None:
        if headers.get("content-type") != "application/problem+json":
            self.wrong.append(f"{path}: {status} without a problem document: {content[:200]!r}")
            return None
        code = decode(content, m.Problem).code
        self.refusals[code] += 1
        if status in BUSY:
            if "retry-after" not in headers:
                self.wrong.append(f"{path}: {status} {code} says not when to come back")
            return _Again()
        if code not in self.tolerated:
            self.wrong.append(f"{path}: {status} {code}: {content[:300]!r}")
        return None

    async def _attest_on(self, member: Member) -> None:
        while not self._stop.is_set():
            if member.dice.random() < member.reboots:
                member.guest.boot(member.guest.image)
                member.held = None
            await self.attest(member)
            await asyncio.sleep(self.pause * (1 + member.dice.random()))

    async def _ask_on(self, token: str, number: int) -> None:
        """A relying party: any attester's verdict, of any replica."""
        dice, tls = random.Random(-1 - number), self.site.tls()
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
        headers, timeout = {"Authorization": f"Bearer {token}"}, aiohttp.ClientTimeout(total=LONGEST)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            while not self._stop.is_set():
                url, member = dice.choice(self.site.replicas).url, dice.choice(self.members)
                await self._ask(session, f"{url}/v1/attesters/{member.guest.attester_id}/verdict")
                await asyncio.sleep(PAUSE)

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.get(url) as reply:
                content = await reply.read()
                headers = {name.lower(): value for name, value in reply.headers.items()}
        except TimeoutError:
            self.wrong.append(f"{url}: neither answered nor cut within {LONGEST:.0f} s")
            return
        except aiohttp.ClientError:
            self.broken += 1
            return
        if reply.status >= 400:
            self._refused("verdict", reply.status, headers, content)
            return
        said = await reply.json()
        if said.get("lifecycle") == "stale":  # a guest that is silent for long enough
            if said["status"] != "none":
                self.wrong.append(f"{said['attester_id']} is stale and {said['status']}")
            return
        self.told.append(
            Told(
                said["attester_id"],
                said["sequence"],
                said["status"],
                said["evidence_sha256"],
                "relying party",
            )
        )


class _Again:
    """Not answered, or put off: the same may be sent again."""
