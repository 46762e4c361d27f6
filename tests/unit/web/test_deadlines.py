"""Limits of time that share a timer: each does what `asyncio.timeout` would."""

from __future__ import annotations

import asyncio

import pytest

from verifier.web.deadlines import Deadlines

_SOON = 0.02
_NEVER = 60.0


async def test_what_takes_too_long_is_ended_with_a_timeout_and_the_task_goes_on():
    limit = Deadlines().within(_SOON)
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    assert limit.expired
    await asyncio.sleep(0)  # nothing of the cancellation is left
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_done_in_time_is_left_alone_afterwards():
    limits = Deadlines()
    with limits.within(_SOON) as limit:
        pass
    await asyncio.sleep(4 * _SOON)
    assert not limit.expired


async def test_each_of_many_has_its_own_time():
    limits, ended = Deadlines(), []

    async def one(seconds: float) -> None:
        try:
            with limits.within(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(seconds)

    # The longest first: the timer is set to an earlier moment, and to the next one after each.
    waits = [6 * _SOON, 2 * _SOON, 4 * _SOON]
    patient = asyncio.create_task(one(_NEVER))
    await asyncio.wait_for(asyncio.gather(*map(one, waits)), 10)
    assert ended == sorted(waits)
    assert not patient.done()
    patient.cancel()


async def test_a_timer_that_finds_nobody_looks_for_the_next():
    limits = Deadlines()
    with limits.within(_SOON):
        pass
    with pytest.raises(TimeoutError), limits.within(3 * _SOON):
        await asyncio.wait_for(asyncio.Event().wait(), 10)


async def test_who_is_cancelled_by_others_is_not_timed_out():
    limits = Deadlines()

    async def waits() -> None:
        with limits.within(_NEVER):
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_others_too_ends_cancelled():
    limits = Deadlines()

    async def waits() -> None:
        with limits.within(_NEVER) as limit:
            inner.append(limit)
            await asyncio.Event().wait()

    inner: list = []
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    inner[0].expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_goes_through():
    with pytest.raises(KeyError), Deadlines().within(_NEVER):
        raise KeyError


def test_only_a_task_has_a_limit():
    with pytest.raises(RuntimeError), Deadlines().within(_NEVER):
        pass
