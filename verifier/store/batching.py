"""Many callers, one transaction: whoever comes while a batch is on its way shares the next one."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns
from typing import Final, Generic, TypeVar

from verifier.errors import StoreUnavailable
from verifier.ports_observe import CURRENT, Part, QueueState

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH: Final = 256
"""Bounds how long a caller waits for others' work; larger batches gained nothing when measured."""
MAX_WAITING: Final = 20_000
"""Bounds memory when the database stands still: beyond it a caller is told so at once."""


class _Entry(Generic[T, R]):
    """An item, who waits for it, and since when."""

    __slots__ = ("asked", "begun", "future", "item")

    def __init__(self, item: T, future: asyncio.Future[R]) -> None:
        self.item = item
        self.future = future
        self.asked = self.begun = perf_counter_ns()


class Batcher(Generic[T, R]):
    """Runs `work` on everything that waits, one batch at a time, and answers each caller its own result.

    No timer: a lone caller is served at once, and the batch grows only by what arrives while one is running.
    When a batch fails as a whole, each of its items is tried alone, so that a faulty one fails only its own
    caller; but not where the database is the fault, which is everybody's.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        name: str,
        state: QueueState | None = None,
        *,
        at_most: int = MAX_BATCH,
    ) -> None:
        self._work = work
        self._at_most = at_most
        self._name = name
        self.state = state or QueueState()
        """Several batchers may count as one queue."""
        self._waiting: list[_Entry[T, R]] = []
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: T) -> R:
        """The result for `item`, once its batch is done. A cancelled caller's item may still be worked on."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable(f"{len(self._waiting)} requests wait for the database already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        entry = _Entry(item, future)
        self._waiting.append(entry)
        self.state.waiting += 1
        if self._runner is None:
            # In a context of its own: what it does is not done for the one request that happened to start it.
            self._runner = asyncio.create_task(self._run(), name=self._name, context=contextvars.Context())
        try:
            return await future
        finally:
            observation = CURRENT.get()
            if observation is not None:
                observation.note(Part(self._name, entry.asked, entry.begun, perf_counter_ns()))

    async def close(self) -> None:
        """Refuse what comes from now on, and finish what waits."""
        self._closed = True
        if self._runner is not None:
            await asyncio.shield(self._runner)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
                self.state.waiting -= len(batch)
                # Whoever gave up before the work began is left out: nothing is stored for nobody.
                batch = [entry for entry in batch if not entry.future.done()]
                if batch:
                    self._begin(batch)
                    await self._answer(batch)
        finally:
            self._runner = None
            # Only if this task itself was cancelled: nobody may wait for ever.
            self.state.waiting -= len(self._waiting)
            _fail(self._waiting, StoreUnavailable("the store was stopped"))
            self._waiting.clear()

    def _begin(self, batch: Sequence[_Entry[T, R]]) -> None:
        now = perf_counter_ns()
        for entry in batch:
            entry.begun = now
        state = self.state
        state.batches += 1
        state.taken += len(batch)
        state.waited += sum(now - entry.asked for entry in batch) / 1e9

    async def _answer(self, batch: Sequence[_Entry[T, R]]) -> None:
        try:
            results = await self._work([entry.item for entry in batch])
        except StoreUnavailable as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - handed to the one caller whose item it is
            if len(batch) == 1:
                _fail(batch, error)
                return
            for entry in batch:
                await self._answer([entry])
        except BaseException:
            _fail(batch, StoreUnavailable("the store was stopped"))
            raise
        else:
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)


def _fail(batch: Sequence[_Entry[T, R]], error: Exception) -> None:
    for entry in batch:
        if not entry.future.done():
            # One object each: a traceback grows where it is raised.
            entry.future.set_exception(
                StoreUnavailable(str(error)) if isinstance(error, StoreUnavailable) else error
            )
