"""Whom to serve now, whom to let wait, and whom to send away for a while: what a boot storm meets.

Work that costs much passes through a limited number of slots. Behind them stand three queues of bounded length: machines
that are new and ask to be enrolled, those that have begun (activations, challenges, evidence with a boot log), and steady
ones (the small request of every few minutes). They take turns while they wait, and three quarters of the slots, and half of
the turns where all wait, are for steady ones, so that ten thousand guests that boot do not hold them up. Of the other turns one is
for a new machine and three for such as have begun, which is what a new one needs: so many begin as come to an end.

Who finds its queue full is sent away at once, before its body is read, with a time to come back. Those times follow each
other at the pace at which guests are served, and differ by chance: so many come back each second as there is room for.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
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
_OTHERS: Final = 4
"""One of so many slots is open to machines that are not steady: what these ask for costs a multiple."""
_EARLY: Final = 0.5
"""Of the time that those who come back are reckoned to take: there had better be a queue than nothing to do."""
_SPREAD: Final = 0.25
"""Of a time to come back, by chance."""
_SLOW: Final = 2.0
"""Seconds after which a body that is still on its way makes room for others, where there is none."""


class Party(enum.Enum):
    """Who asks."""

    STEADY = "steady"
    """A machine that has attested in this boot."""
    BOOTED = "booted"
    """One that is enrolled, or about to be, and has not."""
    NEW = "new"
    """One that asks to be enrolled."""

    __hash__ = object.__hash__  # as of `tcg.algorithms.HashAlg`


_TURNS: Final = (
    *(Party.STEADY, Party.BOOTED, Party.STEADY, Party.NEW),
    *(Party.STEADY, Party.BOOTED, Party.STEADY, Party.BOOTED),
)
_ERRANDS: Final = {Party.STEADY: 1, Party.BOOTED: 2, Party.NEW: 4}
"""Requests that a guest will make, the one that was sent away among them, until it is steady."""


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
        waiting: how many of each party may wait, those whose body is still on its way among them.
    """

    slots: int
    waiting: int


class Ticket:
    """Let in: it may send its body, and then has to take its turn."""

    __slots__ = ("_admission", "_party")

    def __init__(self, admission: Admission, party: Party) -> None:
        self._admission = admission
        self._party = party

    def __enter__(self) -> Self:
        self._admission.let_in(self._party)
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.let_out(self._party)

    @asynccontextmanager
    async def arrival(self) -> AsyncIterator[None]:
        """While its body is on its way. Raises `OverloadedError` where it came too slowly, and others need the room."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._admission.arriving(self._party, limit)
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise OverloadedError(
                self._admission.come_back(self._party),
                "this request came slowly, and others wait; send it again",
            ) from error
        finally:
            self._admission.arrived(self._party, limit)

    def turn(self) -> Turn:
        """Wait for a slot, and hold it while this is open."""
        return Turn(self._admission, self._party)


class Turn:
    """A slot, once there is one."""

    __slots__ = ("_admission", "_began", "_party")

    def __init__(self, admission: Admission, party: Party) -> None:
        self._admission = admission
        self._party = party
        self._began = 0.0

    async def __aenter__(self) -> None:
        if not self._admission.takes_at_once(self._party):
            await self._admission.wait(self._party)
        self._began = self._admission.now()

    async def __aexit__(self, *_: object) -> None:
        self._admission.give_back(self._party, self._admission.now() - self._began)


class Admission:
    """The slots and the queues before them; for one event loop."""

    def __init__(
        self, rules: AdmissionRules, random: Random, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._random = random
        self.now = now
        self._held = dict.fromkeys(Party, 0)
        """Slots, by who is in them."""
        self._waiting: dict[Party, deque[asyncio.Future[None]]] = {party: deque() for party in Party}
        self._inside = dict.fromkeys(Party, 0)
        self._arriving: dict[Party, dict[asyncio.Timeout, float]] = {party: {} for party in Party}
        """Since when, the oldest first."""
        self._order = deque(_TURNS)
        """Whose turn is next; what was taken goes to the end."""
        self._booked = dict.fromkeys(Party, 0.0)
        """When the last of those sent away is reckoned to have been served."""
        self._taken = dict.fromkeys(Party, 0)
        self._waited = dict.fromkeys(Party, 0.0)
        self._mean = _FIRST_GUESS

    def enter(self, party: Party) -> Ticket:
        """Let in, for as long as this is open. Opening it raises `OverloadedError` when too many are in already."""
        return Ticket(self, party)

    def let_in(self, party: Party) -> None:
        """One more is in."""
        if self._inside[party] >= self._rules.waiting + self._rules.slots and not self._make_room(party):
            wait = self.come_back(party)
            raise OverloadedError(
                wait,
                f"more {party.value} machines are waiting than this verifier lets wait; try again in {wait} s",
            )
        self._inside[party] += 1

    def let_out(self, party: Party) -> None:
        """One less."""
        self._inside[party] -= 1

    def takes_at_once(self, party: Party) -> bool:
        """Take a slot where there is one now; whoever gets none here has to `wait` for it."""
        self._taken[party] += 1
        if not self._has_slot(party):
            return False
        self._held[party] += 1
        return True

    async def wait(self, party: Party) -> None:
        """Wait for a slot. Cancelled while it waits it leaves the queue; cancelled as it gets one it passes it on."""
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
                self._leave(party)
            raise
        finally:
            self._waited[party] += self.now() - started

    def give_back(self, party: Party, seconds: float) -> None:
        """A slot is free again; it was held for so long."""
        self._mean += _WEIGHT * (seconds - self._mean)
        self._leave(party)

    def arriving(self, party: Party, limit: asyncio.Timeout) -> None:
        """A body is on its way, and can be given up by this."""
        self._arriving[party][limit] = self.now()

    def arrived(self, party: Party, limit: asyncio.Timeout) -> None:
        """It is not any more."""
        self._arriving[party].pop(limit, None)

    def come_back(self, party: Party) -> int:
        """Seconds until what waits now, and whoever was told to come back before, will have been served."""
        now, each = self.now(), _EARLY * self._mean / self._rules.slots
        waiting = sum(self._inside.values()) * self._mean / self._rules.slots
        after = max(self._booked[party], now + waiting) + _ERRANDS[party] * each
        self._booked[party] = min(after, now + _LONGEST)
        share = int.from_bytes(self._random.bytes(2), "big") / 0xFFFF
        wait = max(1.0, self._booked[party] - now)
        return min(_LONGEST, round(wait + share * max(1.0, _SPREAD * wait)))

    def states(self) -> dict[str, QueueState]:
        """For the metrics, by queue."""
        return {
            f"admission-{party.value}": QueueState(
                waiting=len(self._waiting[party]), taken=self._taken[party], waited=self._waited[party]
            )
            for party in Party
        }

    def _has_slot(self, party: Party) -> bool:
        """Whether there is one that it may have."""
        held = self._held
        others = held[Party.BOOTED] + held[Party.NEW]
        if others + held[Party.STEADY] >= self._rules.slots:
            return False
        return party is Party.STEADY or others < max(1, self._rules.slots // _OTHERS)

    def _leave(self, party: Party) -> None:
        """One slot less is held: to whoever is next, of those who may have it."""
        self._held[party] -= 1
        if not any(self._waiting.values()):
            return
        for at, following in enumerate(self._order):
            if self._hand_to(following):
                del self._order[at]
                self._order.append(following)
                return

    def _hand_to(self, party: Party) -> bool:
        """Hand a slot to the first of a queue."""
        queue = self._waiting[party]
        while queue and self._has_slot(party):
            turn = queue.popleft()
            if not turn.done():
                self._held[party] += 1
                turn.set_result(None)
                return True
        return False

    def _make_room(self, party: Party) -> bool:
        """Give up the body that has been on its way longest, if that is long."""
        for limit, since in self._arriving[party].items():
            if self.now() - since < _SLOW:
                return False
            self.arrived(party, limit)
            limit.reschedule(asyncio.get_running_loop().time())
            return True
        return False
