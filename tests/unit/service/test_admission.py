"""A boot storm at the door: turns alternate, queues are bounded, nobody who leaves takes a slot along."""

from __future__ import annotations

import asyncio

import pytest

from verifier.service.admission import Admission, AdmissionRules, OverloadedError, Party


class Chance:
    def __init__(self, *values: bytes) -> None:
        self.values = list(values)

    def bytes(self, count: int) -> bytes:
        return self.values.pop(0) if self.values else bytes(count)


class Seconds:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


class Door:
    """Guests that come in, wait for their turn, and stay until they are let go."""

    def __init__(self, slots, waiting, *chances):
        self.clock = Seconds()
        rules = AdmissionRules(slots=slots, waiting=waiting)
        self.admission = Admission(rules, Chance(*chances), self.clock)
        self.served, self.leave, self.tasks = [], {}, {}

    async def _visit(self, name, party):
        with self.admission.enter(party) as ticket:
            async with ticket.turn():
                self.served.append(name)
                await self.leave[name].wait()

    async def come(self, name, party):
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._visit(name, party))
        await asyncio.sleep(0)

    async def go(self, name):
        self.leave[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


async def test_known_and_new_machines_take_turns_however_many_of_either_wait():
    door = Door(1, 20)
    await door.come("first", Party.NEW)
    for number in range(6):
        await door.come(f"new{number}", Party.NEW)
    for number in range(2):
        await door.come(f"known{number}", Party.KNOWN)
    for _ in range(9):
        await door.go(door.served[-1])
    assert door.served == ["first", "known0", "new0", "known1", "new1", "new2", "new3", "new4", "new5"]


async def test_who_finds_the_queue_full_is_sent_away_and_the_other_queue_is_open():
    door = Door(2, 3)
    for number in range(5):
        await door.come(f"new{number}", Party.NEW)
    with pytest.raises(OverloadedError):
        await door._visit("late", Party.NEW)
    await door.come("known", Party.KNOWN)
    await door.go("new0")
    assert "known" in door.served
    door.leave["again"] = asyncio.Event()
    await door.come("again", Party.NEW)
    assert not door.tasks["again"].done()


async def test_the_time_to_come_back_grows_with_the_queue_and_differs_by_chance():
    door = Door(1, 99, b"\0\0", b"\xff\xff")
    await door.come("slow", Party.NEW)
    door.clock.at += 40.0
    await door.go("slow")  # the mean service time is now 2 s
    for number in range(100):
        await door.come(f"new{number}", Party.NEW)
    answers = []
    for _ in range(2):
        with pytest.raises(OverloadedError) as caught:
            await door._visit("late", Party.NEW)
        answers.append(caught.value.retry_after)
    assert 190 <= answers[0] <= 210
    assert answers[1] == 300


async def test_who_leaves_the_queue_or_fails_in_its_turn_takes_no_slot_along():
    door = Door(1, 9)
    for name in ("a", "b", "c"):
        await door.come(name, Party.KNOWN)
    door.tasks["b"].cancel()
    await door.go("a")
    assert door.served == ["a", "c"]
    door.tasks["c"].cancel()
    await asyncio.gather(door.tasks["c"], return_exceptions=True)
    await door.come("d", Party.KNOWN)
    assert door.served[-1] == "d"


async def test_a_slot_handed_to_someone_who_is_cancelled_in_that_moment_goes_on():
    door = Door(1, 9)
    for name in ("a", "b", "c"):
        await door.come(name, Party.KNOWN)
    door.leave["a"].set()
    await asyncio.sleep(0)  # a leaves; b is handed the slot and has not run yet
    door.tasks["b"].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert door.served[-1] == "c"


async def test_the_queues_are_counted_for_the_metrics():
    door = Door(1, 9)
    for name, party in (("a", Party.NEW), ("b", Party.NEW), ("c", Party.KNOWN)):
        await door.come(name, party)
    door.clock.at += 5.0
    states = door.admission.states()
    assert (states["admission-new"].waiting, states["admission-known"].waiting) == (1, 1)
    await door.go("a")
    await door.go("c")
    assert door.admission.states()["admission-new"].waited == 5.0
