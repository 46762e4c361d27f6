"""Blocking calls off the event loop, with a limit on how long they are waited for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], *, limit: float, name: str) -> T:
    """Run `call` in a thread of its own and wait for it, `limit` seconds at most.

    A thread that is given up on goes on until its own time-outs end it; it is a daemon, so neither the loop's
    end nor the process's waits for it, as both would for the default executor.

    Raises:
        TimeoutError: `limit` has passed. Whatever `call` raises is raised here.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - carried over to the waiting task, whatever it is
            _report(future.set_exception, error)
        else:
            _report(future.set_result, result)

    def _report(report: Callable[[T], None] | Callable[[BaseException], None], value: T | Exception) -> None:
        def settle() -> None:
            if not future.done():
                report(value)  # type: ignore[arg-type]  # each is called with its own

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(limit):
        return await future
