"""The runner of the service: what cannot even be read as HTTP gets a problem document too."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from verifier.reasons import Reason
from verifier.web.problems import PROBLEM_MEDIA_TYPE, problem
from verifier.web.routing import SECURITY_HEADERS
from verifier.web.wire_codec import encode

_LONGEST: Final = 8190
"""Bytes of a request line or a header, as aiohttp has it by default."""
_log = structlog.get_logger("vtpm_attest.web")


class _Handler(web.RequestHandler):
    """One connection."""

    __slots__ = ()

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
    def __call__(self) -> _Handler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """As aiohttp's, with errors of the protocol as problem documents."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other way to name the class of its connections
        return server


def _detail(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return f"the request line or a header is longer than {_LONGEST} bytes"
    if isinstance(exc, HttpProcessingError):
        return f"no HTTP request: {type(exc).__name__}"
    return "no HTTP request"
