"""The runner of the service: what cannot even be read as HTTP gets a problem document too."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeVar

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from verifier.reasons import Reason
from verifier.web.bodies import SLOWEST
from verifier.web.connections import ANSWER_SECONDS, HEAD_SECONDS, LARGE, Connections
from verifier.web.problems import PROBLEM_MEDIA_TYPE, problem
from verifier.web.routing import SECURITY_HEADERS, STEADY
from verifier.web.wire_codec import encode

_LONGEST: Final = 8190
"""Bytes of a request line or a header, as aiohttp has it by default."""
_T = TypeVar("_T")
_UNSENT: Final = 64 * 1024
"""Bytes that a client may leave lying here: the rest of a longer answer is not sent before it has taken them."""
CONNECTIONS: Final = web.AppKey("connections", Connections)
_log = structlog.get_logger("vtpm_attest.web")


class _Handler(web.RequestHandler):
    """One connection."""

    __slots__ = ("_head", "_rest", "origin")

    def __init__(self, manager: _Server, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's own
        super().__init__(manager, **kwargs)
        self._head: asyncio.TimerHandle | None = None
        """Ends the connection unless a request has come by then."""
        self._rest: StreamReader | None = None
        """Of a body that was answered before all of it came: read and thrown away, lest the answer be lost."""
        self.origin: str | None = None
        """Whose it is by a balancer's word; None: its peer's."""

    @property
    def peername(self) -> Any:  # noqa: ANN401 - aiohttp's own
        """Where requests come from."""
        return super().peername if self.origin is None else (self.origin, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has some time to say something."""
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=_UNSENT)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Where that was no whole head, the rest of it has some time to come."""
        super().data_received(data)
        if self._head is None and self._waiter is not None and not self._waiter.done():
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is expected of it any more, and no rest of a body waited for."""
        self.has_head()
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.feed_eof()

    def has_head(self) -> None:
        """A request has come."""
        if self._head is not None:
            self._head.cancel()
            self._head = None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; only then does the connection count as idle, and may be closed."""
        self._rest = None if request.content.is_eof() else request.content
        try:
            if isinstance(resp, web.Response) and (size := _in_parts(resp)):
                return await self._taken(super().finish_response(request, resp, start_time), size)
            sent = await super().finish_response(request, resp, start_time)
            if self._paused:
                await self._taken(self._drain_helper(), 0)
            return sent
        finally:
            if isinstance(self._manager, _Server):
                self._manager.kept.idle(self)

    async def _taken(self, sending: Awaitable[_T], size: int) -> _T:
        """Wait for a client to take so many bytes, for as long as it may need."""
        slow = self._loop.call_later(ANSWER_SECONDS + size / SLOWEST, self.give_up, "answer")
        try:
            if not isinstance(self._manager, _Server):
                return await sending
            with self._manager.kept.sending(self):
                return await sending
        finally:
            slow.cancel()

    def _expect_head(self) -> None:
        self._head = self._loop.call_later(HEAD_SECONDS, self.give_up, "head")

    def give_up(self, what: str) -> None:
        """Close it at once, for what the client has not done: it would have to take a goodbye, too."""
        if isinstance(self._manager, _Server):
            self._manager.kept.slow[what] += 1
        if self.transport is not None:
            self.transport.abort()

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
        if isinstance(handler, _Handler):
            self.kept.made(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if isinstance(handler, _Handler):
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


def _in_parts(response: web.Response) -> int:
    """Have a long body sent in parts, each once the client has taken the last one; its length, or 0 for a short one."""
    body = response.body
    if not isinstance(body, bytes | bytearray) or len(body) <= _UNSENT:
        return 0
    response.body = io.BytesIO(body)
    return len(body)


def _counted(handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], kept: Connections) -> Any:  # noqa: ANN401 - aiohttp's own type is private
    async def counted(request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        if isinstance(protocol, _Handler):
            kept.busy(protocol)
            protocol.has_head()
        response = await handle(request)
        if (request.content_length or 0) > LARGE or response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.force_close()  # who is sent away comes back in a while, and holds nothing until then
        elif request.get(STEADY) and isinstance(protocol, _Handler):
            kept.steady(protocol)
        return response

    return counted


def _detail(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return f"the request line or a header is longer than {_LONGEST} bytes"
    if isinstance(exc, HttpProcessingError):
        return f"no HTTP request: {type(exc).__name__}"
    return "no HTTP request"
