"""What a running service does by itself, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from verifier.errors import VtpmAttestError
from verifier.service.fleet_counts import WARM_EVERY
from verifier.service.samples import EVERY
from verifier.service.services import Services

_PURGE_EVERY: Final = 60.0
_RETAIN_EVERY: Final = 3600.0
_RENEW_EVERY: Final = 60.0
_WATCH_EVERY: Final = 3600.0
_SAMPLE_FAULT: Final = "fleet.sample-failed"
_WATCH_FAULT: Final = "expiry.watch-failed"
_log = structlog.get_logger("vtpm_attest.background")


def start(services: Services, renew_tls: Callable[[], None]) -> list[asyncio.Task[None]]:
    """Start all of it; the caller cancels the tasks.

    Args:
        services: the use cases.
        renew_tls: renews the own certificate, or picks up a configured one that was replaced.
    """
    retention = services.retention

    async def renew() -> None:
        renew_tls()

    async def sample() -> None:
        await _for_each(services, _SAMPLE_FAULT, services.samples.take)

    async def watch() -> None:
        await _for_each(services, _WATCH_FAULT, services.expiry.tell)
        await _for_each(services, _WATCH_FAULT, services.endorsements.tell)

    return [
        asyncio.create_task(repeat(_PURGE_EVERY, retention.expired, "store.purge-failed")),
        asyncio.create_task(repeat(_RETAIN_EVERY, retention.history, "history.purge-failed", at_once=True)),
        asyncio.create_task(repeat(_RETAIN_EVERY, retention.evidence, "evidence.purge-failed", at_once=True)),
        asyncio.create_task(repeat(_RETAIN_EVERY, retention.events, "events.purge-failed", at_once=True)),
        asyncio.create_task(services.feed.run(services.deliveries.wake)),
        asyncio.create_task(services.deliveries.run()),
        asyncio.create_task(services.watch.run()),
        asyncio.create_task(services.sequencer.run()),
        asyncio.create_task(services.rejudgings.run()),
        asyncio.create_task(repeat(WARM_EVERY, services.counts.warm, "fleet.count-failed")),
        asyncio.create_task(repeat(_RENEW_EVERY, renew, "tls.renewal-failed")),
        asyncio.create_task(repeat(EVERY.total_seconds(), sample, _SAMPLE_FAULT, at_once=True)),
        asyncio.create_task(repeat(_WATCH_EVERY, watch, _WATCH_FAULT, at_once=True)),
    ]


async def _for_each(services: Services, fault: str, work: Callable[[str], Awaitable[object]]) -> None:
    """Do it for every tenant: what cannot be done for one is logged, and done for the others."""
    for tenant in await services.fleet.tenants():
        try:
            await work(tenant)
        except VtpmAttestError as error:
            _log.error(fault, tenant=tenant, problem=str(error))


async def repeat(
    pause: float, work: Callable[[], Awaitable[None]], fault: str, *, at_once: bool = False
) -> None:
    """Work, rest, work. What goes wrong, a bug too, is logged under the name `fault`, and tried again after the next rest."""
    if not at_once:
        await asyncio.sleep(pause)
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - nobody waits for this task: it would end without a word
            _log.error(fault, problem=str(error), exc_info=not isinstance(error, VtpmAttestError))
        await asyncio.sleep(pause)
