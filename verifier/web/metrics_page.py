"""The metrics as a page: brought up to date and rendered for one caller at a time, and kept for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import structlog
from aiohttp import web

from verifier.web.fleet_metrics import FleetMetrics
from verifier.web.metrics import Metrics
from verifier.web.metrics_exchange import EVERY, Exchange, merged

_log = structlog.get_logger("vtpm_attest.web")


class _Rendering:
    """What one tenant was shown last, and who is at it."""

    def __init__(self, *, whole: bool) -> None:
        self.fleet = FleetMetrics(whole=whole)
        self.turn = asyncio.Lock()
        self.text = b""
        self.made: float | None = None


class MetricsPage:
    """One rendering serves everybody of a tenant who asks within its life: however many do, the work is bounded.

    Args:
        metrics: of this process.
        life: seconds a rendering is handed out again.
        exchange: with other workers of the same service; None: there are none.
    """

    def __init__(self, metrics: Metrics, life: float, exchange: Exchange | None = None) -> None:
        self._metrics = metrics
        self._life = life
        self._exchange = exchange
        self._renderings: dict[str, _Rendering] = {}

    async def text(
        self, tenant: str, refresh: Callable[[FleetMetrics], Awaitable[None]], *, whole: bool
    ) -> bytes:
        """The exposition, no older than its life. `refresh` fetches what is not counted as it happens.

        It is that of the tenant's fleet and, where `whole`, of what processes count for all tenants.
        """
        one = self._renderings.setdefault(tenant, _Rendering(whole=whole))
        async with one.turn:
            if one.made is None or time.monotonic() - one.made >= self._life:
                await refresh(one.fleet)
                # Some thousand lines: other requests go on meanwhile.
                one.text = await asyncio.to_thread(self._render, one.fleet, whole)
                one.made = time.monotonic()
            return one.text

    async def share(self, app: web.Application) -> AsyncIterator[None]:
        """While the application serves, leave what is counted for the other workers (a cleanup context)."""
        if self._exchange is None:
            yield
            return
        task = asyncio.create_task(self._leave(self._exchange))
        app.on_shutdown.append(lambda _: _end(task))
        yield
        await _end(task)

    def _render(self, fleet: FleetMetrics, whole: bool) -> bytes:  # noqa: FBT001 - for `to_thread`
        return (self._processes() if whole else b"") + fleet.render()

    def _processes(self) -> bytes:
        own = self._metrics.render_own()
        if self._exchange is not None:
            try:
                self._exchange.put(own)
                own = merged(self._exchange.all())
            except OSError as error:
                _log.warning("metrics.not-shared", problem=str(error), effect="only this worker's are told")
        return own

    async def _leave(self, exchange: Exchange) -> None:
        while True:
            try:
                await asyncio.to_thread(lambda: exchange.put(self._metrics.render_own()))
            except OSError as error:
                _log.warning("metrics.not-shared", problem=str(error), effect="other workers tell old ones")
            await asyncio.sleep(EVERY)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
