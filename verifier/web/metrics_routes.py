"""`GET /metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from aiohttp import web

from verifier.errors import VerifierFault
from verifier.ports import DEFAULT_TENANT
from verifier.ports_log import LogFigures
from verifier.ports_observe import OpenCounts
from verifier.ports_rejudge import RejudgingRecord
from verifier.ports_trust import Ending
from verifier.service.expiry import alarms
from verifier.web.fleet_metrics import FleetMetrics
from verifier.web.metrics import METRICS_MEDIA_TYPE
from verifier.web.metrics_page import MetricsPage
from verifier.web.routing import WATCHERS, Call, Reply, Route

METRICS_KEY: Final = web.AppKey("metrics", MetricsPage)
_log = structlog.get_logger("vtpm_attest.web")


async def metrics(call: Call) -> Reply:
    """Prometheus text, rendered once for all of a tenant who ask within its life.

    The counters of processes are of all tenants together, so only the default tenant, that of whoever runs the service,
    is shown them; others are shown their own fleet.
    """
    page = call.request.app[METRICS_KEY]
    text = await page.text(
        call.tenant, lambda known: _refresh(known, call), whole=call.tenant == DEFAULT_TENANT
    )
    return Reply(body=text, media_type=METRICS_MEDIA_TYPE)


async def _refresh(known: FleetMetrics, call: Call) -> None:
    """Bring up to date what is not counted as it happens."""
    services, tenant, now = call.services, call.tenant, call.services.clock.now()
    attesters: Mapping[str, int] | None = None
    waiting: OpenCounts | None = None
    rejudgings: Sequence[RejudgingRecord] = ()
    endings: tuple[Ending, ...] = ()
    deliveries: Mapping[str, int] = {}
    log: LogFigures | None = None
    try:
        attesters = await services.fleet.status(tenant)
        waiting = await services.fleet.open_counts(tenant)
        rejudgings = await services.rejudgings.unfinished(tenant)
        endings = await services.expiry.endings(tenant)
        if tenant == DEFAULT_TENANT:  # of all tenants
            deliveries = await services.deliveries.counts()
            log = await services.sequencer.figures()
    except VerifierFault as error:  # the counters of a verifier in trouble are worth most
        attesters = waiting = None  # also what is remembered: how the store is shall be seen
        _log.warning("metrics.store-unavailable", problem=str(error))
    known.fleet(attesters, waiting, rejudgings)
    known.endings(endings, alarms(tenant, endings, now), now)
    known.lost(services.endorsements.lost.get(tenant, ()))
    known.deliveries(deliveries)
    if tenant == DEFAULT_TENANT:  # the only one that inventories are about
        known.inventory(await services.inventory.sources(), now)
    if known.log is not None:
        known.log.set(log, now, damaged=services.sequencer.damage is not None)


ROUTES: Final = (
    Route(
        method="GET",
        path="/metrics",
        access=WATCHERS,
        handler=metrics,
        summary="Prometheus metrics",
        response=None,
        media_type=METRICS_MEDIA_TYPE.split(";")[0],
    ),
)
