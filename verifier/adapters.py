"""The world as it is: wall clock, the operating system's randomness, and further processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from verifier.errors import VerifierFault
from verifier.ports_observe import CURRENT, Part, QueueState
from verifier.worker import LENGTH, frame

A = TypeVar("A")
T = TypeVar("T")
_IDLE: Final = 60.0
_PIECE: Final = 128 * 1024
"""Bytes written to a process before others get their turn."""


class SystemClock:
    """The `Clock` port over the machine's clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


class SystemRandom:
    """The `Random` port over the operating system's generator."""

    def bytes(self, count: int) -> bytes:
        """Cryptographically strong."""
        return os.urandom(count)


class ProcessWorkers:
    """The `Workers` port: a few processes, started when there is work and ended a minute after the last of it.

    They yield the processors to whoever answers guests, and end with this process, however that ends.
    """

    def __init__(self, count: int | None = None, idle: float = _IDLE) -> None:
        self._turns = asyncio.Semaphore(count or min(2, os.cpu_count() or 1))
        self._idle = idle
        self._free: list[Process] = []
        self._rest: asyncio.TimerHandle | None = None
        self.queue = QueueState()

    async def run(self, work: Callable[[A], T], given: A) -> T:
        """`work(given)` in one of the processes.

        Raises:
            VerifierFault: the process ended, or `work` raised; the text says what.
        """
        async with self._turn():
            self._keep()
            process = self._free.pop() if self._free else await _start()
            try:
                done, result = await _ask(process, frame((work, given)))
            except (OSError, asyncio.IncompleteReadError) as error:
                _kill(process)
                raise VerifierFault("a worker process ended in the middle of its work") from error
            except BaseException:  # nobody waits for its answer any more
                _kill(process)
                raise
            self._free.append(process)
            self._keep()
            self._rest = asyncio.get_running_loop().call_later(self._idle, self._retire)
        if not done:
            raise VerifierFault(f"a worker process could not do its work: {result}")
        answer: T = result
        return answer

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a process, and note how long that took and the work after it."""
        asked, queue = perf_counter_ns(), self.queue
        queue.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            queue.waiting -= 1
        begun = perf_counter_ns()
        queue.taken += 1
        queue.batches += 1
        queue.waited += (begun - asked) / 1e9
        try:
            yield
        finally:
            self._turns.release()
            observation = CURRENT.get()
            if observation is not None:
                observation.note(Part("worker", asked, begun, perf_counter_ns()))

    async def close(self) -> None:
        """End the processes; those at work are ended by whoever waits for them."""
        self._keep()
        free = self._retire()
        await asyncio.gather(*(process.wait() for process in free))

    def _keep(self) -> None:
        if self._rest is not None:
            self._rest.cancel()

    def _retire(self) -> list[Process]:
        """End those that do nothing."""
        free, self._free = self._free, []
        for process in free:
            _kill(process)
        return free


async def _start() -> Process:
    # A fresh interpreter: nothing of this process is copied, nor is its main module run again.
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "verifier.worker", stdin=PIPE, stdout=PIPE
        )
    except OSError as error:
        raise VerifierFault(f"no worker process can be started: {error}") from error


async def _ask(process: Process, question: list[bytes | memoryview]) -> tuple[bool, Any]:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("a worker is started with both pipes")
    for part in question:
        # A piece at a time: the transport copies what the pipe does not take at once.
        for start in range(0, len(part), _PIECE):
            process.stdin.write(part[start : start + _PIECE])
            await process.stdin.drain()
    head = await process.stdout.readexactly(2 * LENGTH)
    size, count = (int.from_bytes(head[at : at + LENGTH], "big") for at in (0, LENGTH))
    sizes = await process.stdout.readexactly(count * LENGTH)
    content = await process.stdout.readexactly(size)
    buffers = [
        await process.stdout.readexactly(int.from_bytes(sizes[at : at + LENGTH], "big"))
        for at in range(0, len(sizes), LENGTH)
    ]
    answer: tuple[bool, Any] = pickle.loads(content, buffers=buffers)  # noqa: S301 - our own worker's
    return answer


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
