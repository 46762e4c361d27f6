"""One process full of guests: enrols them, then lets them attest, as fast as they can or at a rate."""

from __future__ import annotations

import asyncio
import collections
import random
import ssl
import time
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.bench.fleet.guest import IMAGES, TAMPERED, Conduct, Guest, RefusedError
from tests.bench.fleet.http import Connection, UnavailableError

ENROLLING = 16
"""Guests of one process that enrol at the same time."""


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
    broken: int = 0
    """Connections that were lost."""
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


def conduct_of(seed: int, share: float) -> Conduct:
    """Which guests are hostile is decided by their number."""
    dice = random.Random(seed)
    if dice.random() >= share:
        return Conduct.HONEST
    return dice.choice([Conduct.TAMPERED, Conduct.REPLAYING, Conduct.FORGING])


def work(plan: Plan, barrier: Barrier, results: Queue[Outcome]) -> None:
    """The process."""
    results.put(asyncio.run(Crew(plan).run(barrier)))


class Crew:
    """The guests of one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome(plan.first)
        tls = ssl.create_default_context(cafile=plan.ca)
        tls.check_hostname = False  # the CA is this verifier's own, made for nobody else
        self.guests = [self._guest(seed, tls) for seed in range(plan.first, plan.first + plan.count)]

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
        if not self.plan.storm:
            await self._prepare()
        await asyncio.to_thread(barrier.wait)
        before = [(g.connection.sent, g.connection.received) for g in self.guests]
        started, cpu = time.perf_counter(), time.process_time()
        if self.plan.storm:
            await asyncio.gather(*(self._arrive(guest) for guest in self.guests))
        else:
            await self._steady()
        out = self.outcome
        out.seconds, out.cpu = time.perf_counter() - started, time.process_time() - cpu
        out.sent = sum(g.connection.sent - b[0] for g, b in zip(self.guests, before, strict=True))
        out.received = sum(g.connection.received - b[1] for g, b in zip(self.guests, before, strict=True))
        await asyncio.to_thread(barrier.wait)
        for guest in self.guests:
            guest.connection.close()
        return out

    async def _prepare(self) -> None:
        gate = asyncio.Semaphore(ENROLLING)

        async def one(guest: Guest) -> None:
            async with gate:
                await guest.enroll(self.plan.token)
                await guest.attest()
                guest.conduct = conduct_of(guest.seed, self.plan.hostile)

        await asyncio.gather(*map(one, self.guests))

    async def _arrive(self, guest: Guest) -> None:
        """Enrol and attest for the first time, coming back as often as the verifier says so."""
        started = time.perf_counter()
        while True:
            try:
                if not guest.attester_id:
                    await guest.enroll(self.plan.token)
                verdict = await guest.attest()
            except RefusedError as refusal:
                self.outcome.refusals[refusal.code] += 1
                if refusal.status not in {429, 503}:
                    self.outcome.wrong.append(f"guest {guest.seed}: {refusal}")
                    return
                await asyncio.sleep((refusal.retry_after or 1) * (1 + random.random() / 4))
            except UnavailableError:
                self.outcome.broken += 1
                await asyncio.sleep(1 + random.random())
            else:
                self.outcome.verdicts[verdict.status] += 1
                self.outcome.latencies.append(time.perf_counter() - started)
                return

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
