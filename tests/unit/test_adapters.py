"""Worker processes: what they do, what happens when they cannot, and that none is left behind."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verifier.adapters import ProcessWorkers
from verifier.errors import VerifierFault
from verifier.ports_observe import CURRENT, Observation

PID = "__import__('os').getpid()"
PARENT = f"""
import asyncio
from verifier.adapters import ProcessWorkers
async def main():
    print(await ProcessWorkers(1).run(eval, {PID!r}), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
async def workers():
    made = ProcessWorkers(2)
    yield made
    await made.close()


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> bool:
    for _ in range(400):
        if not runs(pid):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_work_is_done_in_other_processes_which_are_used_again(workers):
    assert await asyncio.gather(*(workers.run(math.factorial, number) for number in range(12))) == [
        math.factorial(number) for number in range(12)
    ]
    pids = {await workers.run(eval, PID) for _ in range(6)}
    assert os.getpid() not in pids
    assert len(pids) <= 2


async def test_large_values_come_and_go_whole(workers):
    sent = os.urandom(3_000_000)
    assert await workers.run(bytes.hex, sent) == sent.hex()


async def test_what_prints_does_not_get_between_the_answers(workers):
    assert await workers.run(eval, "print('noise' * 10000, flush=True) or 7") == 7


async def test_work_that_fails_is_a_fault_with_its_text_and_the_process_goes_on(workers):
    with pytest.raises(VerifierFault, match="ValueError: factorial"):
        await workers.run(math.factorial, -1)
    assert await workers.run(math.factorial, 5) == 120


async def test_a_process_that_dies_is_a_fault_and_the_next_work_gets_another(workers):
    with pytest.raises(VerifierFault, match="in the middle of its work"):
        await workers.run(os._exit, 3)
    assert await workers.run(math.factorial, 5) == 120


async def test_nobody_waits_for_work_that_was_given_up(workers):
    pid = await workers.run(eval, PID)
    task = asyncio.create_task(workers.run(time.sleep, 600))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(pid)
    assert await workers.run(math.factorial, 5) == 120


async def test_whoever_waits_for_a_process_is_counted():
    workers = ProcessWorkers(1)
    tasks = [asyncio.create_task(workers.run(time.sleep, 0.05)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (workers.queue.waiting, workers.queue.taken) == (2, 1)
    await asyncio.gather(*tasks)
    assert (workers.queue.waiting, workers.queue.taken) == (0, 3)
    assert workers.queue.waited >= 0.05 + 0.1 - 0.02  # the second waited for one, the third for two
    await workers.close()


async def test_closing_and_resting_end_the_processes():
    workers = ProcessWorkers(1)
    pid = await workers.run(eval, PID)
    await workers.close()
    assert not runs(pid)
    resting = ProcessWorkers(1, idle=0.05)
    pid = await resting.run(eval, PID)
    assert await gone(pid)
    assert await resting.run(eval, PID) != pid
    await resting.close()


async def test_a_verifier_that_is_killed_leaves_no_process_behind():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert runs(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert await gone(pid)


async def test_a_request_notes_how_long_it_waited_for_a_process_and_how_long_that_worked():
    async def ask(name: str) -> Observation:
        observation = Observation(name)
        CURRENT.set(observation)
        await workers.run(time.sleep, 0.05)
        return observation

    workers = ProcessWorkers(1)
    first, second = await asyncio.gather(*(asyncio.create_task(ask(name)) for name in ("a", "b")))
    await workers.close()
    for one in (first, second):
        (part,) = one.parts
        assert (part.name, part.asked <= part.begun) == ("worker", True)
        assert part.ended - part.begun >= 50_000_000
    assert second.parts[0].begun >= first.parts[0].ended


async def test_large_bytes_go_there_and_back_beside_the_pickle(workers):
    """A view of a part of something larger arrives as that part, whatever its size; so does what comes back."""
    body = bytearray(range(256)) * 20_000
    for view in (memoryview(body)[100:], memoryview(b""), memoryview(body)[:1]):
        sent = (pickle.PickleBuffer(view), "beside it", pickle.PickleBuffer(b"another"))
        first, text, second = await workers.run(_reversed_buffers, sent)
        assert bytes(first) == bytes(view)[::-1]
        assert (text, bytes(second)) == ("beside it", b"rehtona")
    assert await workers.run(len, [1, 2]) == 2, "and the next question is understood"


def _reversed_buffers(given):
    first, text, second = given
    return pickle.PickleBuffer(bytes(first)[::-1]), text, bytes(second)[::-1]
