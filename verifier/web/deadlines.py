"""A limit of time for many requests, of which hardly any reaches it: one timer for all of them.

What `asyncio.timeout` does, without a timer for each request that is made and cancelled with it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Deadlines:
    """All limits that are running; for one event loop."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Deadline:
        """A limit for the task that enters it: from then on it has so long."""
        return Deadline(self, seconds)

    def begin(self, limit: Deadline) -> None:
        """One more is running."""
        self._running.add(limit)
        if self._timer is None or limit.due < self._timer.when():
            self._look_at(limit.due)

    def end(self, limit: Deadline) -> None:
        """It is not any more. The timer stays: it finds out who is next."""
        self._running.discard(limit)

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for limit in self._running:
            if limit.due <= now:
                limit.expire()
        if following := [limit.due for limit in self._running if not limit.expired]:
            self._look_at(min(following))


class Deadline:
    """A limit for one task. Where it is reached, the task is cancelled, and `TimeoutError` comes out here."""

    __slots__ = ("_all", "_cancelling", "_seconds", "_task", "due", "expired")

    def __init__(self, limits: Deadlines, seconds: float) -> None:
        self._all = limits
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.due = 0.0
        """By the loop's clock."""
        self.expired = False

    def expire(self) -> None:
        """Its time has come."""
        if self._task is not None and not self.expired:
            self.expired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()  # asks the system whose process this is, so it is done once
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a limit of time is for a task")
        self._task, self._cancelling = task, task.cancelling()
        self.due = loop.time() + self._seconds
        self._all.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.end(self)
        task, self._task = self._task, None
        # Somebody else may have cancelled the task as well: then that is what it ends by.
        ours = self.expired and task is not None and task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from error
