"""The aiohttp application: routes from the table, one border around all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from verifier import reason_texts  # noqa: F401 - at start, so that no first problem document waits for it
from verifier.ports_observe import RequestTracer
from verifier.reasons import Tier
from verifier.service.services import Services
from verifier.web import (
    admin_routes,
    agent_routes,
    anchor_routes,
    appraisal_routes,
    assignment_routes,
    decision_routes,
    dry_run_routes,
    event_routes,
    evidence_routes,
    fleet_routes,
    inventory_routes,
    log_routes,
    metrics_routes,
    public_routes,
    query_routes,
    rejudge_routes,
    secret_routes,
    triage_routes,
    verdict_routes,
    webhook_routes,
)
from verifier.web.acceptor import DOOR, Door
from verifier.web.body_room import BodyBudget
from verifier.web.border import border
from verifier.web.connections import Connections
from verifier.web.dispatch import Dispatcher
from verifier.web.metrics import Counted, Metrics
from verifier.web.metrics_page import MetricsPage
from verifier.web.openapi import build_document
from verifier.web.routing import Route, WebConfig
from verifier.web.runner import CONNECTIONS
from verifier.web.wire_codec import encode

ROUTES: Final[tuple[Route, ...]] = (
    *agent_routes.ROUTES,
    *fleet_routes.ROUTES,
    *verdict_routes.ROUTES,
    *query_routes.ROUTES,
    *appraisal_routes.ROUTES,
    *evidence_routes.ROUTES,
    *log_routes.ROUTES,
    *dry_run_routes.ROUTES,
    *rejudge_routes.ROUTES,
    *decision_routes.ROUTES,
    *admin_routes.ROUTES,
    *assignment_routes.ROUTES,
    *anchor_routes.ROUTES,
    *inventory_routes.ROUTES,
    *event_routes.ROUTES,
    *triage_routes.ROUTES,
    *webhook_routes.ROUTES,
    *secret_routes.ROUTES,
    *public_routes.ROUTES,
    *metrics_routes.ROUTES,
)


def build_app(
    services: Services,
    config: WebConfig,
    more: Sequence[str] = (),
    tracer: RequestTracer | None = None,
) -> web.Application:
    """The application over these use cases. Serve it with `auto_decompress=False`: bodies are expanded here,
    within limits. `more`: names of operations that others add.
    """  # noqa: D205 - one sentence does not fit one line
    connections = Connections(config.connections, max(config.connections, config.most_connections))
    door = Door(config.handshakes, connections)
    metrics = Metrics(
        [*(route.name for route in ROUTES), *more],
        [tier.label for tier in Tier],
        config.version,
        Counted(
            queues=services.queues,
            caches=services.caches,
            attempts=lambda: services.deliveries.outcomes,
            streams=lambda: services.feed.streams,
            announced=services.announced,
            retention=services.retention.state,
            connections=connections,
            rates=services.rates.refusals,
            door=door,
        ),
    )
    app = web.Application(middlewares=[border(metrics, config, tracer)])
    app[CONNECTIONS], app[DOOR] = connections, door
    page = app[metrics_routes.METRICS_KEY] = MetricsPage(
        metrics, config.metrics_life, config.metrics_exchange
    )
    app.cleanup_ctx.append(page.share)
    app[public_routes.OPENAPI_KEY] = encode(build_document(ROUTES, config.version, config.issuer))
    app[event_routes.CLOSING] = asyncio.Event()
    app.on_shutdown.append(_closing(services))
    budget = BodyBudget(config.large_bodies)
    for route in ROUTES:
        handler = Dispatcher(route, services, config, budget).handle
        app.router.add_route(route.method, route.pattern or route.path, handler, name=route.name)
    return app


def _closing(services: Services) -> Callable[[web.Application], Awaitable[None]]:
    """Let go of calls that would hold up the end: streams, and those that wait for a verdict."""

    async def close(app: web.Application) -> None:
        app[event_routes.CLOSING].set()
        services.watch.close()

    return close
