"""The gate before an ASGI application (ASGI 3.0): Starlette, FastAPI, Quart, and whatever else speaks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from verifier.client.callers import UNIX, UNREADABLE, Caller
from verifier.client.gate import Gate
from verifier.client.requirement import Denied

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ADMITTED: Final = "attestation"
"""`scope["attestation"]`: who was let in, as `Admitted`."""
_POLICY_VIOLATION: Final = 1008
_KINDS: Final = frozenset({"http", "websocket"})


class AttestedOnly:
    """Lets only attested callers in, over HTTP and WebSocket: `app.add_middleware(AttestedOnly, gate=gate)`.

    Args:
        app: the application behind.
        gate: decides.
        open_paths: exact paths for everybody, as a health check.
    """

    def __init__(self, app: Application, gate: Gate, open_paths: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._gate = gate
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._open_paths):
            return await self._app(scope, receive, send)
        if scope["type"] not in _KINDS:
            raise ValueError(
                f"a connection of kind {scope['type']!r} cannot be judged, so it is not passed on"
            )
        decision = await self._gate.decide(caller_of(scope))
        if isinstance(decision, Denied):
            return await _deny(decision, scope, send)
        scope[ADMITTED] = decision
        return await self._app(scope, receive, send)


def caller_of(scope: Scope) -> Caller:
    """What the server says of the connection.

    `client` must be the connection's own: a server that takes it from X-Forwarded-For lets callers choose it. The certificate comes
    from the TLS extension, which few servers have; a server that has it verifies it, or says why not.
    """
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
    )
    client = scope.get("client")
    server = scope.get("server")
    if client:
        peer = None if client[0] == UNIX else str(client[0])
    else:  # a Unix socket's `server` is its path and None
        peer = UNIX if server and server[1] is None else None
    return Caller(headers=headers, peer=peer, certificate=_certificate(scope))


def _certificate(scope: Scope) -> bytes | None:
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain") or ()
    if not chain or tls.get("client_cert_error"):
        return None
    try:
        return x509.load_pem_x509_certificate(chain[0].encode()).public_bytes(Encoding.DER)
    except UNREADABLE:
        return None


async def _deny(denied: Denied, scope: Scope, send: Send) -> None:
    websocket = scope["type"] == "websocket"
    if websocket and "websocket.http.response" not in (scope.get("extensions") or {}):
        # Before it was accepted: the server answers 403.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": denied.refusal.value})
        return
    kind = "websocket.http.response" if websocket else "http.response"
    headers = [(name.lower().encode(), value.encode()) for name, value in denied.headers().items()]
    await send({"type": f"{kind}.start", "status": denied.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": denied.document()})
