"""One reading for all who ask for the same while it goes on: whatever runs out runs out for hundreds of guests at once."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """Readings that are under way, by what is read; for one event loop.

    Whoever changes what is read, and must not be answered by what was read before, asks under another key.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def read(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What `work` gives, or the one that somebody else is waiting for; who gives up stops no other."""
        task = self._running.get(key)
        if task is None:
            # In a context of its own: it is not done for the one request that happened to be first.
            task = self._running[key] = asyncio.create_task(work(), context=contextvars.Context())
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)

    def _end(self, key: K, done: asyncio.Task[V]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # somebody has seen it, or nobody waits any more
