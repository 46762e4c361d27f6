"""A single process that is told to take up new settings, and to stop, in any order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from verifier.serving.manager import Manager
from verifier.serving.place import Alone, Ending


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    yield
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    signal.signal(signal.SIGHUP, before)


def alone(usable) -> Alone:
    return Alone((), Manager(None, None), announce=lambda _: None, usable=usable)


async def test_a_stop_while_new_settings_are_tried_out_is_a_stop():
    tried, given_up = asyncio.Event(), asyncio.Event()

    async def usable():
        tried.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    place = alone(usable)
    place.hear()
    ending = asyncio.create_task(place.until_told())
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.wait_for(tried.wait(), 60)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(ending, 60) is Ending.STOP
    await asyncio.wait_for(given_up.wait(), 60)


async def test_a_stop_while_the_reload_ends_the_process_is_known():
    async def usable():
        return True

    place = alone(usable)
    place.hear()
    os.kill(os.getpid(), signal.SIGHUP)
    assert await asyncio.wait_for(place.until_told(), 60) is Ending.RELOAD
    assert not place.stopped()
    os.kill(os.getpid(), signal.SIGHUP)  # for the successor: it ends nobody
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert place.stopped()


async def test_settings_that_cannot_be_used_are_tried_again_when_told_again():
    answers = iter([False, True])

    async def usable():
        return next(answers)

    place = alone(usable)
    place.hear()
    ending = asyncio.create_task(place.until_told())
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    assert not ending.done()
    os.kill(os.getpid(), signal.SIGHUP)
    assert await asyncio.wait_for(ending, 60) is Ending.RELOAD
