"""The aiohttp application: routes from the table, one border around all of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from verifier import reason_texts  # noqa: F401 - at start, so that no first problem document waits for it
from verifier.reasons import Reason, Tier
from verifier.service.services import Services
from verifier.web import (
    admin_routes,
    agent_routes,
    anchor_routes,
    assignment_routes,
    decision_routes,
    dry_run_routes,
    event_routes,
    evidence_routes,
    fleet_routes,
    inventory_routes,
    public_routes,
    webhook_routes,
)
from verifier.web.dispatch import VERDICT_KEY, Dispatcher
from verifier.web.metrics import Metrics
from verifier.web.openapi import build_document
from verifier.web.problems import PROBLEM_MEDIA_TYPE, ProblemReply, is_ours, problem, problem_of
from verifier.web.routing import SECURITY_HEADERS, Route, WebConfig
from verifier.web.wire_codec import encode

ROUTES: Final[tuple[Route, ...]] = (
    *agent_routes.ROUTES,
    *fleet_routes.ROUTES,
    *evidence_routes.ROUTES,
    *dry_run_routes.ROUTES,
    *decision_routes.ROUTES,
    *admin_routes.ROUTES,
    *assignment_routes.ROUTES,
    *anchor_routes.ROUTES,
    *inventory_routes.ROUTES,
    *event_routes.ROUTES,
    *webhook_routes.ROUTES,
    *public_routes.ROUTES,
)
_log = structlog.get_logger("vtpm_attest.web")


def build_app(services: Services, config: WebConfig, more: Sequence[str] = ()) -> web.Application:
    """The application over these use cases. Serve it with `auto_decompress=False`: bodies are expanded here,
    within limits. `more`: names of operations that others add.
    """  # noqa: D205 - one sentence does not fit one line
    metrics = Metrics([*(route.name for route in ROUTES), *more], [tier.label for tier in Tier])
    app = web.Application(middlewares=[_border(metrics, config)])
    app[public_routes.METRICS_KEY] = metrics
    app[public_routes.OPENAPI_KEY] = encode(build_document(ROUTES, config.version, config.issuer))
    app[event_routes.CLOSING] = asyncio.Event()
    app.on_shutdown.append(_close_streams)
    for route in ROUTES:
        handler = Dispatcher(route, services, config).handle
        app.router.add_route(route.method, route.path, handler, name=route.name)
    return app


async def _close_streams(app: web.Application) -> None:
    app[event_routes.CLOSING].set()


def _border(metrics: Metrics, config: WebConfig) -> Middleware:
    @web.middleware
    async def border(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        try:
            response = await handler(request)
            if VERDICT_KEY in request:
                metrics.verdict(request[VERDICT_KEY])
        except Exception as error:  # noqa: BLE001 - the border: whatever it is becomes a problem document
            reply = _refused(error, request_id, request)
            metrics.problem(reply.document.code)
            response = _problem_response(reply)
        operation = request.match_info.route.name or "unmatched"
        elapsed = time.perf_counter() - started
        metrics.request(operation, elapsed)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = request_id
        if config.access_log:
            _log.info(
                "http.request",
                operation=operation,
                status=response.status,
                seconds=round(elapsed, 6),
                peer=request.remote,
                request_id=request_id,
            )
        return response

    return border


def _refused(error: Exception, request_id: str, request: web.Request) -> ProblemReply:
    if isinstance(error, web.HTTPException):
        return _of_router(error, request_id, request)
    reply = problem_of(error, request_id)
    if is_ours(error):
        _log.error("http.fault", request_id=request_id, code=reply.document.code, exc_info=error)
    else:
        _log.info(
            "http.refused", request_id=request_id, code=reply.document.code, detail=reply.document.detail
        )
    return reply


def _of_router(error: web.HTTPException, request_id: str, request: web.Request) -> ProblemReply:
    """Aiohttp's own answers, made before any handler: no such path or method, oversized headers."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        reply = problem(Reason.METHOD_NOT_ALLOWED, f"{request.method} is not one of {allowed}", request_id)
        return ProblemReply(reply.status, reply.document, {**reply.headers, "Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return problem(Reason.NOT_FOUND, "no such path", request_id)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem(Reason.BODY_TOO_LARGE, "the request is too large", request_id)
    return problem(Reason.MALFORMED_REQUEST, error.reason, request_id, status=error.status)


def _problem_response(reply: ProblemReply) -> web.Response:
    headers = {"Content-Type": PROBLEM_MEDIA_TYPE, "Cache-Control": "no-store", **reply.headers}
    return web.Response(status=reply.status, body=encode(reply.document), headers=headers)
