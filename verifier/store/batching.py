"""Many callers, one transaction: whoever comes while a batch is on its way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from verifier.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH: Final = 256
"""Bounds how long a caller waits for others' work; larger batches gained nothing when measured."""
MAX_WAITING: Final = 20_000
"""Bounds memory when the database stands still: beyond it a caller is told so at once."""


class Batcher(Generic[T, R]):
    """Runs `work` on everything that waits, one batch at a time, and answers each caller its own result.

    No timer: a lone caller is served at once, and the batch grows only by what arrives while one is running.
    When a batch fails as a whole, each of its items is tried alone, so that a faulty one fails only its own
    caller; but not where the database is the fault, which is everybody's.
    """

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], name: str) -> None:
        self._work = work
        self._name = name
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: T) -> R:
        """The result for `item`, once its batch is done. A cancelled caller's item may still be worked on."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable(f"{len(self._waiting)} requests wait for the database already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name=self._name)
        return await future

    async def close(self) -> None:
        """Refuse what comes from now on, and finish what waits."""
        self._closed = True
        if self._runner is not None:
            await asyncio.shield(self._runner)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                # Whoever gave up before the work began is left out: nothing is stored for nobody.
                batch = [entry for entry in batch if not entry[1].done()]
                if batch:
                    await self._answer(batch)
        finally:
            self._runner = None
            # Only if this task itself was cancelled: nobody may wait for ever.
            _fail(self._waiting, StoreUnavailable("the store was stopped"))
            self._waiting.clear()

    async def _answer(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
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
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(batch: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            # One object each: a traceback grows where it is raised.
            future.set_exception(
                StoreUnavailable(str(error)) if isinstance(error, StoreUnavailable) else error
            )
