"""One process full of guests: enrols them, then lets them attest, as fast as they can or at a rate."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.bench.fleet.guest import IMAGES, TAMPERED, Conduct, Guest, RefusedError
from tests.bench.fleet.http import Connection, UnavailableError
from tests.bench.fleet.processors import waited

ENROLLING = 16
"""Guests of one process that enrol at the same time."""
_KNOWN = 10_000_000
"""Seeds of guests known before a storm begin here."""


@dataclass(frozen=True)
class Plan:
    """What all guests of a run do; `first` and `count` are this process's share."""

    url: str
    ca: Path
    token: str
    first: int
    count: int
    seconds: float
    rate: float | None
    """Attestations a second of this process; None: each guest attests again as soon as it was answered."""
    rsa: float
    """Share of guests with an RSA-2048 AK."""
    hostile: float
    reboots: float
    """Chance that a guest reboots before an attestation; half of them into another image."""
    storm: bool
    """Boot all at once: enrolment and first attestation are what is measured."""
    known: int = 0
    """Guests of this process, beside the others, that enrolled before the storm and attest through it."""
    known_pause: float = 10.0
    """Seconds between two attestations of a known guest."""


@dataclass
class Outcome:
    """What one process saw."""

    first: int
    latencies: list[float] = field(default_factory=list)
    verdicts: collections.Counter[str] = field(default_factory=collections.Counter)
    refusals: collections.Counter[str] = field(default_factory=collections.Counter)
    """Of what a guest did that was no attack."""
    repelled: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that must not be: empty, or the verifier is broken."""
    known: int = 0
    known_latencies: list[float] = field(default_factory=list)
    """Of known guests in a storm, from when each was due, times it was sent away included."""
    sent_away: dict[str, list[float]] = field(default_factory=lambda: {"new": [], "known": []})
    """Each Retry-After, in seconds."""
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Attester to host name and the status of its last verdict."""
    broken: int = 0
    """Connections that were lost."""
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0
    """Seconds in which it had work and no processor."""


def conduct_of(seed: int, share: float) -> Conduct:
    """Which guests are hostile is decided by their number."""
    dice = random.Random(seed)
    if dice.random() >= share:
        return Conduct.HONEST
    return dice.choice([Conduct.TAMPERED, Conduct.REPLAYING, Conduct.FORGING])


def work(plan: Plan, barrier: Barrier, results: Queue[Outcome]) -> None:
    """The process."""
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            results.put(runner.run(_run(plan, barrier)))
    except BaseException:
        barrier.abort()  # nobody waits for it
        raise


async def _run(plan: Plan, barrier: Barrier) -> Outcome:
    return await Crew(plan).run(barrier)


def _loop() -> asyncio.AbstractEventLoop:
    """Ten thousand connections take 3 GB with asyncio's own TLS, and a tenth of that with uvloop's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made


class Crew:
    """The guests of one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome(plan.first, known=plan.known)
        tls = ssl.create_default_context(cafile=plan.ca)
        tls.check_hostname = False  # the CA is this verifier's own, made for nobody else
        self.guests = [self._guest(seed, tls) for seed in range(plan.first, plan.first + plan.count)]
        self.known = [self._guest(_KNOWN + plan.first + number, tls) for number in range(plan.known)]

    def _guest(self, seed: int, tls: ssl.SSLContext) -> Guest:
        conduct = conduct_of(seed, self.plan.hostile)
        name = TAMPERED if conduct is Conduct.TAMPERED else IMAGES[seed % len(IMAGES)]
        rsa = random.Random(-seed).random() < self.plan.rsa
        guest = Guest(seed, Connection(self.plan.url, tls), rsa=rsa, image=name)
        # Whoever forges has been enrolled and heard honestly first.
        guest.conduct = conduct if conduct is not Conduct.FORGING else Conduct.HONEST
        return guest

    async def run(self, barrier: Barrier) -> Outcome:
        """Prepare, wait for the other processes, and go."""
        await self._prepare(self.known if self.plan.storm else self.guests)
        await asyncio.to_thread(barrier.wait)
        await asyncio.to_thread(barrier.wait)  # meanwhile the verifier was given its share of the machine
        everybody = [*self.guests, *self.known]
        before = [(g.connection.sent, g.connection.received) for g in everybody]
        started, cpu, stood = time.perf_counter(), time.process_time(), waited([os.getpid()])
        if self.plan.storm:
            await self._storm()
        else:
            await self._steady()
        out = self.outcome
        out.seconds, out.cpu = time.perf_counter() - started, time.process_time() - cpu
        out.waited = max(0.0, waited([os.getpid()]) - stood)
        out.sent = sum(g.connection.sent - b[0] for g, b in zip(everybody, before, strict=True))
        out.received = sum(g.connection.received - b[1] for g, b in zip(everybody, before, strict=True))
        await asyncio.to_thread(barrier.wait)
        for guest in everybody:
            guest.connection.close()
        return out

    async def _prepare(self, guests: Sequence[Guest]) -> None:
        gate = asyncio.Semaphore(ENROLLING)

        async def one(guest: Guest) -> None:
            async with gate:
                await guest.enroll(self.plan.token)
                verdict = await guest.attest()
                self.outcome.told[guest.attester_id] = (guest.identity.hostname or "", verdict.status)
                guest.conduct = conduct_of(guest.seed, self.plan.hostile)

        await asyncio.gather(*map(one, guests))

    async def _storm(self) -> None:
        """New guests arrive all at once; known ones attest meanwhile."""
        known = [asyncio.create_task(self._go_on(guest)) for guest in self.known]
        await asyncio.gather(*map(self._arrive, self.guests))
        for task in known:
            task.cancel()
        ended = await asyncio.gather(*known, return_exceptions=True)
        for end in ended:
            if isinstance(end, Exception) and not isinstance(end, asyncio.CancelledError):
                raise end

    async def _arrive(self, guest: Guest) -> None:
        """Enrol and attest for the first time, coming back as often as the verifier says so."""
        started = time.perf_counter()
        if await self._insist(guest, "new"):
            self.outcome.latencies.append(time.perf_counter() - started)

    async def _go_on(self, guest: Guest) -> None:
        """Attest again and again."""
        pause = self.plan.known_pause
        due = time.perf_counter() + random.Random(guest.seed).random() * pause
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if not await self._insist(guest, "known"):
                return
            self.outcome.known_latencies.append(time.perf_counter() - due)
            due = max(due + pause, time.perf_counter())

    async def _insist(self, guest: Guest, party: str) -> bool:
        """Until there is a verdict, or an answer that must not be."""
        out = self.outcome
        while True:
            try:
                if not guest.attester_id:
                    await guest.enroll(self.plan.token)
                verdict = await guest.attest()
            except RefusedError as refusal:
                out.refusals[refusal.code] += 1
                if guest.can_go_on_after(refusal.code):
                    continue
                if refusal.status not in {429, 503} or refusal.retry_after is None:
                    out.wrong.append(f"guest {guest.seed}: {refusal}")
                    return False
                out.sent_away[party].append(refusal.retry_after)
                await asyncio.sleep(refusal.retry_after)
            except UnavailableError:
                out.broken += 1
                await asyncio.sleep(1 + random.random())
            else:
                out.verdicts[verdict.status] += 1
                if verdict.status != "affirming" and guest.conduct is not Conduct.TAMPERED:
                    out.wrong.append(f"guest {guest.seed} booted well and was judged {verdict.status}")
                out.told[guest.attester_id] = (guest.identity.hostname or "", verdict.status)
                return True

    async def _steady(self) -> None:
        until = time.perf_counter() + self.plan.seconds
        pause = None if self.plan.rate is None else self.plan.count / self.plan.rate
        await asyncio.gather(*(self._attest_until(guest, until, pause) for guest in self.guests))

    async def _attest_until(self, guest: Guest, until: float, pause: float | None) -> None:
        dice = random.Random(guest.seed * 31 + 7)
        due = time.perf_counter() + (dice.random() * pause if pause else 0)
        while max(due, time.perf_counter()) < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if dice.random() < self.plan.reboots:
                guest.boot(TAMPERED if guest.conduct is Conduct.TAMPERED else self._next_image(guest, dice))
            started = due if pause else time.perf_counter()
            await self._one(guest, started)
            due = due + pause if pause else 0.0

    def _next_image(self, guest: Guest, dice: random.Random) -> str:
        return guest.image if dice.random() < 0.5 else dice.choice(IMAGES)

    async def _one(self, guest: Guest, started: float) -> None:
        """From when it was due: a verifier that falls behind is not flattered by guests that wait for it."""
        out = self.outcome
        try:
            verdict = await guest.attest()
        except RefusedError as refusal:
            if guest.conduct is Conduct.FORGING:
                out.repelled[refusal.code] += 1
            else:
                out.refusals[refusal.code] += 1
        except UnavailableError:
            out.broken += 1
            await asyncio.sleep(0.1)
        except AssertionError as error:
            out.wrong.append(str(error))
        else:
            out.latencies.append(time.perf_counter() - started)
            out.verdicts[verdict.status] += 1
            if guest.conduct is Conduct.FORGING:
                out.wrong.append(f"guest {guest.seed}: a quote of another key was judged {verdict.status}")
