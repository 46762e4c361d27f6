"""The border around every route: request ids, problem documents, metrics, the access log."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from verifier.ports_observe import CURRENT, Observation, RequestHead, RequestTracer
from verifier.ports_observe import request_id as current_request_id
from verifier.reasons import Reason
from verifier.web.metrics import UNMATCHED, Metrics
from verifier.web.problems import PROBLEM_MEDIA_TYPE, ProblemReply, is_ours, problem, problem_of
from verifier.web.routing import SECURITY_HEADERS, WebConfig
from verifier.web.wire_codec import encode

REQUEST_ID: Final = "X-Request-Id"
_ids: Final = random.Random()  # noqa: S311 - they tell requests apart in logs; nothing rests on who can guess one
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
"""Ids that a caller may choose: nothing that a log or a shell would read as anything else."""
_QUOTED: Final = re.compile(r"""(['"`])(.{11}).+\1""", re.DOTALL)
_GOOD: Final = 400
_log = structlog.get_logger("vtpm_attest.web")
AccessLog = Callable[[web.Request, str, int, float], None]
"""Told request, operation, status and seconds."""


def border(metrics: Metrics, config: WebConfig, tracer: RequestTracer | None = None) -> Middleware:
    """Whatever happens inside comes out as a reply with a request id, counted, timed and, if so set, logged and traced."""
    access, proxies = _access_log(config), config.proxies

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if proxies is not None:
            request = proxies.behind(request)
        observation = Observation(_request_id(request))
        token = CURRENT.set(observation)
        trace = None if tracer is None else tracer.begin(_head(request), request.headers, observation)
        status: int | None = None
        try:
            response = await _answer(request, handler, metrics)
            response.headers[REQUEST_ID], status = observation.id, response.status
            ended = observation.elapsed()
            operation = request.match_info.route.name or UNMATCHED
            metrics.request(operation, status, ended / 1e9)
            if observation.status is not None:
                metrics.verdict(observation, observation.status, observation.started + ended)
            access(request, operation, status, ended / 1e9)
        finally:
            if trace is not None:
                trace.end(status)
            CURRENT.reset(token)
        return response

    return guarded


async def _answer(request: web.Request, handler: Handler, metrics: Metrics) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - the border: whatever it is becomes a problem document
        reply = _refused(error, request)
        metrics.problem(reply.document.code)
        response = _problem_response(reply)
    headers = response.headers
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    return response


def _head(request: web.Request) -> RequestHead:
    version = f"{request.version.major}.{request.version.minor}"
    return RequestHead(request.method, _template(request), request.scheme, version, request.remote)


def _template(request: web.Request) -> str | None:
    """The path of the route, with names for what is different in each request."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _request_id(request: web.Request) -> str:
    """The caller's id for this request where it has a well-formed one, so that both sides' logs share it."""
    given = request.headers.get(REQUEST_ID, "")
    return given if given and _WELL_FORMED.fullmatch(given) else f"{_ids.getrandbits(64):016x}"


def _access_log(config: WebConfig) -> AccessLog:
    """Nothing at all; or a line for every request that was refused or failed, and for one of n that were not."""
    if not config.access_log:
        return lambda *_: None
    every, seen = config.access_sample, 0

    def tell(request: web.Request, operation: str, status: int, seconds: float) -> None:
        nonlocal seen
        seen += 1
        if status < _GOOD and seen % every:
            return
        _log.info(
            "http.request",
            method=request.method,
            route=_template(request),
            operation=operation,
            status=status,
            seconds=round(seconds, 6),
            peer=request.remote,
        )

    return tell


def _refused(error: Exception, request: web.Request) -> ProblemReply:
    request_id = current_request_id()
    if isinstance(error, web.HTTPException):
        return _of_router(error, request_id, request)
    reply = problem_of(error, request_id)
    if is_ours(error):
        _log.error("http.fault", code=reply.document.code, exc_info=error)
    else:
        _log.info("http.refused", code=reply.document.code, detail=_cut(reply.document.detail or ""))
    return reply


def _cut(detail: str) -> str:
    """Without most of what it quotes: whoever sent that can have sent a credential to the wrong place."""
    return _QUOTED.sub(r"\1\2…\1", detail)


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
