"""The metrics as a page: brought up to date and rendered for one caller at a time, and kept for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from verifier.web.metrics import Metrics


class MetricsPage:
    """One rendering serves everybody who asks within its life: however many do, the work is bounded."""

    def __init__(self, metrics: Metrics, life: float) -> None:
        self._metrics = metrics
        self._life = life
        self._turn = asyncio.Lock()
        self._text = b""
        self._made: float | None = None

    async def text(self, refresh: Callable[[Metrics], Awaitable[None]]) -> bytes:
        """The exposition, no older than its life. `refresh` fetches what is not counted as it happens."""
        async with self._turn:
            if self._made is None or time.monotonic() - self._made >= self._life:
                await refresh(self._metrics)
                # Some thousand lines: other requests go on meanwhile.
                self._text = await asyncio.to_thread(self._metrics.render)
                self._made = time.monotonic()
            return self._text
