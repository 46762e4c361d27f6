"""The gate before handlers of an aiohttp server."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from verifier.client.callers import UNIX, Caller
from verifier.client.gate import Gate
from verifier.client.requirement import Admitted, Denied

ADMITTED: Final = web.RequestKey("attested-caller", Admitted)
"""`request[ADMITTED]`: who was let in."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def attested_only(
    gate: Gate, *, open_paths: frozenset[str] = frozenset()
) -> Callable[[web.Request, _Handler], Awaitable[web.StreamResponse]]:
    """Middleware that lets only attested callers in: `web.Application(middlewares=[attested_only(gate)])`.

    Args:
        gate: decides.
        open_paths: exact paths for everybody, as a health check.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in open_paths:
            return await handler(request)
        decision = await gate.decide(caller_of(request))
        if isinstance(decision, Denied):
            return web.Response(status=decision.status, body=decision.document(), headers=decision.headers())
        request[ADMITTED] = decision
        return await handler(request)

    return middleware


def caller_of(request: web.Request) -> Caller:
    """What the connection and the headers say; addresses that headers claim (X-Forwarded-For) are not looked at."""
    transport = request.transport
    peer = certificate = None
    if transport is not None:
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else UNIX if isinstance(name, str | bytes) else None
        certificate = _verified(transport.get_extra_info("ssl_object"))
    headers = tuple((name.lower(), value) for name, value in request.headers.items())
    return Caller(headers=headers, peer=peer, certificate=certificate)


def _verified(tls: ssl.SSLObject | None) -> bytes | None:
    """The peer's certificate, if its chain was verified: with CERT_NONE there is nothing that anybody vouches for."""
    if tls is None or tls.context.verify_mode is ssl.CERT_NONE:
        return None
    return tls.getpeercert(binary_form=True)
