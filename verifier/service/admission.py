"""Whom to serve now, whom to let wait, and whom to send away for a while: what a boot storm meets.

Work that costs much passes through a limited number of slots. Behind them stand two queues of bounded length, one of
machines that are known (challenges, attestations) and one of machines that are new (enrolments): their turns alternate
while both wait, so that ten thousand new guests do not keep the known ones from attesting, nor the other way about. Who
finds its queue full is sent away at once, before its body is read, with a time to come back that grows with what waits and
differs from guest to guest, so that they do not all come back together.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from verifier.errors import VtpmAttestError
from verifier.ports import Random
from verifier.ports_observe import QueueState
from verifier.reasons import Reason

_LONGEST: Final = 300
"""Seconds; whoever waits longer may as well ask again."""
_WEIGHT: Final = 0.05
"""Of the newest measurement in the mean of the service time."""
_FIRST_GUESS: Final = 0.002


class Party(enum.Enum):
    """Who asks."""

    KNOWN = "known"
    NEW = "new"


class OverloadedError(VtpmAttestError):
    """There is no room for this now; the same request will do after `retry_after` seconds. Nothing was stored."""

    reason: Final = Reason.VERIFIER_UNAVAILABLE

    def __init__(self, retry_after: int, detail: str) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRules:
    """How many at once.

    Attributes:
        slots: how many are worked on at a time.
        waiting: how many of each party may wait, those whose body is still arriving among them.
    """

    slots: int
    waiting: int


class Ticket:
    """Let in: it may send its body, and then has to take its turn."""

    def __init__(self, admission: Admission, party: Party) -> None:
        self._admission = admission
        self._party = party

    def __enter__(self) -> Self:
        self._admission.let_in(self._party)
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.let_out(self._party)

    def turn(self) -> Turn:
        """Wait for a slot, and hold it while this is open."""
        return Turn(self._admission, self._party)


class Turn:
    """A slot, once there is one."""

    def __init__(self, admission: Admission, party: Party) -> None:
        self._admission = admission
        self._party = party
        self._began = 0.0

    async def __aenter__(self) -> None:
        await self._admission.take(self._party)
        self._began = self._admission.now()

    async def __aexit__(self, *_: object) -> None:
        self._admission.give_back(self._admission.now() - self._began)


class Admission:
    """The slots and the two queues before them; for one event loop."""

    def __init__(
        self, rules: AdmissionRules, random: Random, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._random = random
        self.now = now
        self._free = rules.slots
        self._waiting: dict[Party, deque[asyncio.Future[None]]] = {party: deque() for party in Party}
        self._inside = dict.fromkeys(Party, 0)
        self._last = Party.NEW
        self._taken = dict.fromkeys(Party, 0)
        self._waited = dict.fromkeys(Party, 0.0)
        self._mean = _FIRST_GUESS

    def enter(self, party: Party) -> Ticket:
        """Let in, for as long as this is open. Opening it raises `OverloadedError` when too many are in already."""
        return Ticket(self, party)

    def let_in(self, party: Party) -> None:
        """One more is in."""
        if self._inside[party] >= self._rules.waiting + self._rules.slots:
            wait = self._come_back()
            raise OverloadedError(
                wait,
                f"more {party.value} machines are waiting than this verifier lets wait; try again in {wait} s",
            )
        self._inside[party] += 1

    def let_out(self, party: Party) -> None:
        """One less."""
        self._inside[party] -= 1

    async def take(self, party: Party) -> None:
        """Wait for a slot. Cancelled while it waits it leaves the queue; cancelled as it gets one it passes it on."""
        self._taken[party] += 1
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[party].append(turn)
        started = self.now()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # whoever served the queue meanwhile has passed it over
                    self._waiting[party].remove(turn)
            else:
                self._next()
            raise
        finally:
            self._waited[party] += self.now() - started

    def give_back(self, seconds: float) -> None:
        """A slot is free again; it was held for so long."""
        self._mean += _WEIGHT * (seconds - self._mean)
        self._next()

    def states(self) -> dict[str, QueueState]:
        """For the metrics, by queue."""
        return {
            f"admission-{party.value}": QueueState(
                waiting=len(self._waiting[party]), taken=self._taken[party], waited=self._waited[party]
            )
            for party in Party
        }

    def _next(self) -> None:
        """Hand the slot to who is next: of the party that was not served last, if one of it waits."""
        other = Party.KNOWN if self._last is Party.NEW else Party.NEW
        for party in (other, self._last):
            while self._waiting[party]:
                turn = self._waiting[party].popleft()
                if not turn.done():
                    self._last = party
                    turn.set_result(None)
                    return
        self._free += 1

    def _come_back(self) -> int:
        """Seconds until what waits now will have been served, and up to as much again, by chance."""
        ahead = sum(self._inside.values())
        drained = max(1.0, ahead * self._mean / self._rules.slots)
        share = int.from_bytes(self._random.bytes(2), "big") / 0xFFFF
        return min(_LONGEST, round(drained * (1 + share)) or 1)
