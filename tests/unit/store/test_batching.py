"""Batches: everyone is answered, with their own answer, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio

import pytest

from verifier.errors import StoreUnavailable
from verifier.ports_observe import CURRENT, Observation
from verifier.store import batching
from verifier.store.batching import Batcher


class Work:
    """Doubles numbers; slowly, so that a batch can gather. A negative number is a bug, zero is a dead database."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch):
        self.batches.append(list(batch))
        await self.gate.wait()
        await asyncio.sleep(0)
        if 0 in batch:
            raise StoreUnavailable("gone")
        if any(number < 0 for number in batch):
            raise ZeroDivisionError(str(batch))
        return [2 * number for number in batch]


async def test_whoever_comes_during_a_batch_shares_the_next():
    work = Work()
    batcher = Batcher(work, "test")
    work.gate.clear()
    first = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(batcher.submit(n)) for n in range(2, 50)]
    await asyncio.sleep(0.01)
    work.gate.set()
    assert await asyncio.gather(first, *others) == [2 * n for n in range(1, 50)]
    assert work.batches == [[1], list(range(2, 50))]


async def test_a_batch_is_bounded():
    work = Work()
    batcher = Batcher(work, "test", at_most=10)
    assert await asyncio.gather(*map(batcher.submit, range(1, 36))) == [2 * n for n in range(1, 36)]
    assert max(map(len, work.batches)) == 10


async def test_a_faulty_item_fails_alone():
    batcher = Batcher(Work(), "test")
    answers = await asyncio.gather(*map(batcher.submit, (1, 2, -3, 4)), return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [2, 4, 8]
    assert isinstance(answers[2], ZeroDivisionError)


async def test_a_dead_database_is_everyones_and_is_not_asked_again_for_each():
    work = Work()
    batcher = Batcher(work, "test")
    answers = await asyncio.gather(*map(batcher.submit, (1, 0, 2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert len({id(answer) for answer in answers}) == 3
    assert work.batches == [[1, 0, 2]]
    assert await batcher.submit(5) == 10


async def test_who_gave_up_before_the_work_began_is_left_out():
    work = Work()
    batcher = Batcher(work, "test")
    work.gate.clear()
    first = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0.01)
    gone, stays = asyncio.ensure_future(batcher.submit(2)), asyncio.ensure_future(batcher.submit(3))
    await asyncio.sleep(0.01)
    gone.cancel()
    work.gate.set()
    assert await first == 2
    assert await stays == 6
    assert work.batches == [[1], [3]]


async def test_closing_finishes_what_waits_and_refuses_the_rest():
    work = Work()
    batcher = Batcher(work, "test")
    under_way = [asyncio.ensure_future(batcher.submit(n)) for n in range(1, 6)]
    await asyncio.sleep(0)
    await batcher.close()
    assert await asyncio.gather(*under_way) == [2, 4, 6, 8, 10]
    with pytest.raises(StoreUnavailable):
        await batcher.submit(1)


async def test_nobody_waits_for_ever_when_the_work_is_stopped():
    work = Work()
    batcher = Batcher(work, "test")
    work.gate.clear()
    waiting = [asyncio.ensure_future(batcher.submit(1))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.ensure_future(batcher.submit(n)) for n in (2, 3)]
    await asyncio.sleep(0.01)
    for task in asyncio.all_tasks():
        if task.get_name() == "test":
            task.cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3


async def test_a_queue_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING", 3)
    work = Work()
    batcher = Batcher(work, "test")
    work.gate.clear()
    waiting = [asyncio.ensure_future(batcher.submit(1))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.ensure_future(batcher.submit(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailable):
        await batcher.submit(5)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [2, 4, 6, 8]


async def test_what_waits_and_how_long_is_counted():
    work = Work()
    batcher = Batcher(work, "test")
    work.gate.clear()
    first = asyncio.ensure_future(batcher.submit(1))
    await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(batcher.submit(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    others[0].cancel()
    await asyncio.sleep(0.01)
    assert batcher.state.waiting == 3
    work.gate.set()
    await asyncio.gather(first, *others, return_exceptions=True)
    state = batcher.state
    assert (state.waiting, state.taken, state.batches) == (0, 3, 2)  # nobody waits for the cancelled one
    assert state.waited >= 2 * 0.009


async def test_a_request_notes_its_own_part_and_nobody_elses():
    """The task that works was started by whoever came first; what it does for others is not theirs."""
    noted = []

    async def read(batch):
        noted.append(CURRENT.get())
        await asyncio.sleep(0.01)
        return batch

    async def ask(name):
        observation = Observation(name)
        CURRENT.set(observation)
        await batcher.submit(name)
        return observation

    batcher = Batcher(read, "test")
    found = await asyncio.gather(*(asyncio.create_task(ask(name)) for name in ("a", "b", "c")))
    assert set(noted) == {None}
    for observation in found:
        (part,) = observation.parts
        assert part.name == "test"
        assert observation.started <= part.asked <= part.begun < part.ended
