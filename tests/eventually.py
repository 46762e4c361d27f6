"""Wait for what happens by itself: no test measures how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE = 30.0


async def eventually(found: Callable[[], Any]) -> Any:
    """The first true answer; what never comes fails the test with what was seen last."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        answer = found()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert loop.time() < until, f"not within {PATIENCE} s; last answer: {answer!r}"
        await asyncio.sleep(0.02)
