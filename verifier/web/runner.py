"""The runner of the service: what cannot even be read as HTTP gets a problem document too."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from verifier.reasons import Reason
from verifier.web.connections import LARGE, Connections
from verifier.web.problems import PROBLEM_MEDIA_TYPE, problem
from verifier.web.routing import SECURITY_HEADERS
from verifier.web.wire_codec import encode

_LONGEST: Final = 8190
"""Bytes of a request line or a header, as aiohttp has it by default."""
CONNECTIONS: Final = web.AppKey("connections", Connections)
_log = structlog.get_logger("vtpm_attest.web")


class _Handler(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; only then does the connection count as idle, and may be closed."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            if isinstance(self._manager, _Server):
                self._manager.kept.idle(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - quotes what was sent
    ) -> web.StreamResponse:
        """Answer what no route was asked for; the connection is closed, for nobody knows where the next request begins."""
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun already")
        request_id = secrets.token_hex(8)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("http.fault", request_id=request_id, exc_info=exc)
            reply = problem(Reason.INTERNAL_FAULT, "the log has it under this request id", request_id)
        else:
            detail = _detail(exc)
            _log.info("http.refused", request_id=request_id, peer=request.remote, detail=detail)
            reply = problem(Reason.MALFORMED_REQUEST, detail, request_id, status=status)
        response = web.Response(
            status=reply.status,
            body=encode(reply.document),
            headers={**SECURITY_HEADERS, "Content-Type": PROBLEM_MEDIA_TYPE, "X-Request-Id": request_id},
        )
        response.force_close()
        return response


class _Server(web.Server):
    kept: Connections

    def __call__(self) -> _Handler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.kept.made(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.kept.lost(handler)


class Runner(web.AppRunner):
    """As aiohttp's, with errors of the protocol as problem documents, and connections kept as `Connections` says."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other way to name the class of its connections
        assert isinstance(server, _Server)  # noqa: S101 - as of now
        server.kept = self.app[CONNECTIONS]
        server.request_handler = _counted(server.request_handler, server.kept)
        return server


def _counted(handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], kept: Connections) -> Any:  # noqa: ANN401 - aiohttp's own type is private
    async def counted(request: web.BaseRequest) -> web.StreamResponse:
        kept.busy(request.protocol)
        response = await handle(request)
        if (request.content_length or 0) > LARGE or response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.force_close()  # who is sent away comes back in a while, and holds nothing until then
        return response

    return counted


def _detail(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return f"the request line or a header is longer than {_LONGEST} bytes"
    if isinstance(exc, HttpProcessingError):
        return f"no HTTP request: {type(exc).__name__}"
    return "no HTTP request"
