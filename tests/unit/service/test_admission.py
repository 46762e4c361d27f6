"""A boot storm at the door: turns alternate, queues are bounded, nobody who leaves takes a slot along."""

from __future__ import annotations

import asyncio
import itertools

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


async def test_new_booted_and_steady_machines_take_turns_however_many_of_each_wait():
    door = Door(1, 20)
    await door.come("first", Party.NEW)
    for number in range(6):
        await door.come(f"new{number}", Party.NEW)
    for number in range(3):
        await door.come(f"booted{number}", Party.BOOTED)
    for number in range(2):
        await door.come(f"steady{number}", Party.STEADY)
    for _ in range(12):
        await door.go(door.served[-1])
    assert [name[0] for name in door.served] == list("fsbsnbbnnnnn")
    assert [name for name in door.served if name.startswith("new")] == [f"new{n}" for n in range(6)]


async def test_three_quarters_of_the_slots_are_for_steady_machines_alone():
    door = Door(8, 20)
    for number in range(3):
        await door.come(f"new{number}", Party.NEW)
        await door.come(f"booted{number}", Party.BOOTED)
    assert door.served == ["new0", "booted0"]
    await door.come("steady0", Party.STEADY)
    assert door.served[-1] == "steady0"
    await door.go("steady0")
    assert door.served[-1] == "steady0"  # its slot is kept for the next
    for number in range(1, 8):
        await door.come(f"steady{number}", Party.STEADY)
    assert door.served[-1] == "steady6"
    await door.go("new0")
    assert door.served[-1] == "steady7"  # by turns, a further slot is for steady ones as for any
    await door.go("steady1")
    assert door.served[-1] == "booted1"
    for _ in range(12):
        await door.go(next(name for name in door.served if not door.tasks[name].done()))
        if len(door.served) == 14:
            break
    assert len(set(door.served)) == 14


async def test_steady_machines_may_have_every_slot():
    door = Door(4, 20)
    for number in range(5):
        await door.come(f"steady{number}", Party.STEADY)
    assert len(door.served) == 4


async def test_who_finds_the_queue_full_is_sent_away_and_the_other_queue_is_open():
    door = Door(2, 3)
    for number in range(5):
        await door.come(f"new{number}", Party.NEW)
    with pytest.raises(OverloadedError):
        await door._visit("late", Party.NEW)
    await door.come("known", Party.BOOTED)
    await door.go("new0")
    assert "known" in door.served
    door.leave["again"] = asyncio.Event()
    await door.come("again", Party.NEW)
    assert not door.tasks["again"].done()


async def sent_away(door, party, times=1):
    answers = []
    for _ in range(times):
        with pytest.raises(OverloadedError) as caught:
            await door._visit("late", party)
        answers.append(caught.value.retry_after)
    return answers


async def full(waiting, *chances):
    """All slots are taken, each guest takes 2 s, and so many wait."""
    door = Door(1, waiting, *chances)
    await door.come("slow", Party.NEW)
    door.clock.at += 40.0
    await door.go("slow")
    for number in range(waiting + 1):
        await door.come(f"new{number}", Party.NEW)
    return door


async def test_the_time_to_come_back_grows_with_the_queue_and_differs_by_chance():
    (short,) = await sent_away(await full(9, bytes(2)), Party.NEW)
    (long,) = await sent_away(await full(39, bytes(2)), Party.NEW)
    (later,) = await sent_away(await full(39, b"\xff\xff"), Party.NEW)
    assert 20 <= short <= 30
    assert 80 <= long <= 90
    assert long * 1.2 <= later <= long * 1.3


async def test_those_sent_away_come_back_one_after_the_other_as_they_are_served():
    door = await full(9)
    times = await sent_away(door, Party.NEW, 10)
    assert [later - sooner for sooner, later in itertools.pairwise(times)] == [4] * 9
    door.clock.at += 30.0  # and some of them have been by then
    (next_one,) = await sent_away(door, Party.NEW)
    assert next_one == times[-1] + 4 - 30


async def test_nobody_is_told_to_wait_for_longer_than_five_minutes():
    assert max(await sent_away(await full(99), Party.NEW, 100)) == 300


async def test_a_body_that_comes_slowly_makes_room_once_there_is_none():
    door = Door(1, 2)
    ended = []

    async def slow(name):
        with door.admission.enter(Party.BOOTED) as ticket:
            try:
                async with ticket.arrival():
                    await asyncio.Event().wait()
            except OverloadedError as error:
                ended.append((name, error.retry_after))

    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(slow(number)))
        await asyncio.sleep(0)
        door.clock.at += 1.5
    for name in ("a", "b"):
        await door.come(name, Party.BOOTED)
    await asyncio.wait_for(asyncio.gather(*tasks[:2]), 5)
    assert [name for name, _ in ended] == [0, 1]
    assert all(seconds >= 1 for _, seconds in ended)
    with pytest.raises(OverloadedError):  # the third has had 1.5 s
        await door._visit("late", Party.BOOTED)
    await door.go("a")
    assert door.served == ["a", "b"]
    for name in ("c", "d"):  # what has given up its room is forgotten, and its place is another's
        door.leave[name] = asyncio.Event()
    await door.come("c", Party.BOOTED)
    tasks[2].cancel()


async def test_a_body_that_has_come_is_given_up_no_more():
    door = Door(1, 0)

    async def quick():
        with door.admission.enter(Party.BOOTED) as ticket:
            async with ticket.arrival():
                pass
            await asyncio.Event().wait()

    task = asyncio.create_task(quick())
    await asyncio.sleep(0)
    door.clock.at += 60.0
    with pytest.raises(OverloadedError):
        await door._visit("late", Party.BOOTED)
    assert not task.done()
    task.cancel()


async def test_who_leaves_the_queue_or_fails_in_its_turn_takes_no_slot_along():
    door = Door(1, 9)
    for name in ("a", "b", "c"):
        await door.come(name, Party.BOOTED)
    door.tasks["b"].cancel()
    await door.go("a")
    assert door.served == ["a", "c"]
    door.tasks["c"].cancel()
    await asyncio.gather(door.tasks["c"], return_exceptions=True)
    await door.come("d", Party.BOOTED)
    assert door.served[-1] == "d"


async def test_a_slot_handed_to_someone_who_is_cancelled_in_that_moment_goes_on():
    door = Door(1, 9)
    for name in ("a", "b", "c"):
        await door.come(name, Party.BOOTED)
    door.leave["a"].set()
    await asyncio.sleep(0)  # a leaves; b is handed the slot and has not run yet
    door.tasks["b"].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert door.served[-1] == "c"


async def test_the_queues_are_counted_for_the_metrics():
    door = Door(1, 9)
    for name, party in (("a", Party.NEW), ("b", Party.NEW), ("c", Party.BOOTED)):
        await door.come(name, party)
    door.clock.at += 5.0
    states = door.admission.states()
    assert (states["admission-new"].waiting, states["admission-booted"].waiting) == (1, 1)
    await door.go("a")
    await door.go("c")
    assert door.admission.states()["admission-new"].waited == 5.0
