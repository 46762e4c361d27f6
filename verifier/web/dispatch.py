"""From an HTTP request to a handler and back: credential, body, query, encoding, conditional replies."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from verifier.errors import EvidenceError, RefusedError
from verifier.findings import Status
from verifier.ports import Scope, TokenRecord
from verifier.ports_observe import CURRENT, about
from verifier.reasons import Reason, Tier
from verifier.service.admission import OverloadedError, Party
from verifier.service.callers import Callers
from verifier.service.in_step import others_first
from verifier.service.rate import Rates
from verifier.service.services import Services
from verifier.web.bodies import read_body
from verifier.web.body_room import BodyBudget, Room
from verifier.web.deadlines import Deadlines
from verifier.web.routing import STEADY, Access, Call, Reply, Route, WebConfig
from verifier.web.wire_codec import (
    JSON,
    MAX_JSON_BODY,
    MEDIA_TYPES,
    AttestationReply,
    Verdict,
    decode_body,
    encode,
)

_REVALIDATE: Final = "private, no-cache"
_NO_STORE: Final = "no-store"
_MAX_AUTHORIZATION: Final = 8 * 1024
_LONGEST: Final = 50.0
"""Seconds: an agent gives up after 60, and had better be told than guess."""
_RETRY: Final = 10
_BEST: Final = Tier.AFFIRMING.label
_PASSED: Final = Status.PASSED.value


class Dispatcher:
    """The aiohttp handler of one route."""

    def __init__(self, route: Route, services: Services, config: WebConfig, budget: BodyBudget) -> None:
        self.route = route
        self._no_query: Any = None
        """What a request without a query asks for; None: it has to have one."""
        self._fields = {one.encode_name: one.name for one in msgspec.structs.fields(route.query)}
        self._budget = budget
        self._services = services
        self._config = config
        self._deadlines = Deadlines()
        with suppress(msgspec.ValidationError):  # there are queries that have to say something
            self._no_query = msgspec.convert({}, route.query, strict=False)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer; a large body has its room until then."""
        with Room(self._budget) as room:
            return await self._handle(request, room)

    async def _handle(self, request: web.Request, room: Room) -> web.StreamResponse:
        """Authenticate before anything is read, decode before anything is done."""
        if not self.route.probe:
            self._services.rates.called_from(request.remote)
        access, principal = self.route.access, None
        if not isinstance(access, Access):
            principal = await authorize(access, request, self._services.callers, self._services.rates)
            about(principal.tenant)
        party = self.route.party
        if party is None:
            return await self._answer(await self._call(request, principal, room))
        party = party if isinstance(party, Party) else party(request)
        with self._services.admission.enter(party) as ticket:
            if request.content.is_eof():
                call = await self._call(request, principal, room)
            else:  # whoever sends its body slowly holds no slot meanwhile, and makes room where there is none
                async with ticket.arrival():
                    call = await self._call(request, principal, room)
            limit = self._deadlines.within(_LONGEST)
            try:
                with limit:
                    async with ticket.turn():
                        await others_first()
                        if request.transport is None:
                            raise OverloadedError(_RETRY, "whoever asked is gone: nothing was done")
                        response = await self._answer(call)
                        request[STEADY] = party is Party.STEADY
                        await others_first()
                        return response
            except TimeoutError as error:
                if not limit.expired:
                    raise
                raise OverloadedError(_RETRY, f"not done within {_LONGEST:g} s; send it again") from error

    async def _call(self, request: web.Request, principal: TokenRecord | None, room: Room) -> Call:
        return Call(
            request=request,
            services=self._services,
            config=self._config,
            principal=principal,
            body=await self._body(request, room),
            query=self._query(request),
        )

    async def _answer(self, call: Call) -> web.StreamResponse:
        if (unchanged := self._unchanged(call)) is not None:
            return unchanged
        reply = await self.route.handler(call)
        if reply.stream is not None:
            return await reply.stream()
        if isinstance(reply.body, AttestationReply):
            observe(reply.body.verdict)
        await others_first()
        return self._respond(call, reply)

    async def _body(self, request: web.Request, room: Room) -> Any:  # noqa: ANN401 - of the type the route names
        route = self.route
        if not route.has_body or (route.body_optional and not request.body_exists):
            return None
        media_type = request.content_type.lower()
        accepted = MEDIA_TYPES if route.request is not None else {route.request_media_type}
        if hdrs.CONTENT_TYPE not in request.headers or media_type not in accepted:
            names = ", ".join(sorted(str(name) for name in accepted))
            raise EvidenceError(Reason.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be one of {names}")
        limit = route.max_body
        if media_type == JSON and route.access is Access.AGENT:  # who sends it is not known yet
            limit = min(limit, MAX_JSON_BODY)
        raw = await read_body(request, limit, self._config.body_timeout, room)
        return bytes(raw) if route.request is None else decode_body(raw, route.request, media_type)

    def _query(self, request: web.Request) -> Any:  # noqa: ANN401 - of the type the route names
        if self._no_query is not None and not request.rel_url.raw_query_string:
            return self._no_query
        values: dict[str, str] = {}
        for key, value in request.query.items():
            if key in values:
                raise EvidenceError(Reason.MALFORMED_REQUEST, f"{key!r} is given twice", structure="query")
            values[key] = value
        try:
            query = msgspec.convert(values, self.route.query, strict=False)
        except msgspec.ValidationError as error:
            raise EvidenceError(Reason.MALFORMED_REQUEST, str(error), structure="query") from error
        # The conversion reads the text "null" as nothing; a filter that was sent must never be silently left out.
        if any(getattr(query, self._fields.get(key, key), None) is None for key in values):
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, "a query has no null: leave it out", structure="query"
            )
        return query

    def _unchanged(self, call: Call) -> web.Response | None:
        """304 where the client is known to have the answer without making it."""
        if self.route.unchanged is None or not call.is_conditional:
            return None
        etag = self.route.unchanged(call)
        if etag is None or not call.knows(etag):
            return None
        return web.Response(status=304, headers=_validator(etag))

    def _respond(self, call: Call, reply: Reply) -> web.Response:
        headers = {hdrs.CACHE_CONTROL: _NO_STORE, **reply.headers}
        body, media_type = _encode(call, reply)
        if self.route.conditional:
            etag = reply.etag or _digest(body or b"")
            if reply.remember is not None:
                reply.remember(etag)
            headers |= _validator(etag)
            if call.knows(etag):
                return web.Response(status=304, headers=headers)
        if media_type is not None:
            headers[hdrs.CONTENT_TYPE] = media_type
        return web.Response(status=reply.status, body=body, headers=headers)


async def authorize(
    scopes: frozenset[Scope], request: web.Request, callers: Callers, rates: Rates
) -> TokenRecord:
    """Who calls, if the caller has one of the scopes.

    Raises:
        RefusedError: `unauthenticated` without a valid credential, `forbidden` without the scope, `rate-limited`.
    """
    caller = await _identify(request, callers, rates)
    rates.called_by(caller)
    if not caller.scopes & scopes:
        needed = ", ".join(sorted(scopes))
        raise RefusedError(Reason.FORBIDDEN, f"this call needs one of the scopes {needed}")
    return caller


async def _identify(request: web.Request, callers: Callers, rates: Rates) -> TokenRecord:
    """By the header if there is one; a client certificate speaks where none was sent."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is None and callers.knows_certificates and (der := _client_certificate(request)) is not None:
        return callers.by_certificate(der)
    header = header or ""
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != "bearer" or not credential or len(header) > _MAX_AUTHORIZATION:
        raise RefusedError(Reason.UNAUTHENTICATED, "send `Authorization: Bearer <API token>`")
    return await credited(credential.strip(), request.remote, rates, callers.remembers, callers.by_credential)


async def credited(
    text: str,
    address: str | None,
    rates: Rates,
    known: Callable[[str], bool],
    find: Callable[[str], Awaitable[TokenRecord]],
) -> TokenRecord:
    """Whose credential this is; from an address where too many were refused, only those that are known already are looked at.

    Raises:
        RefusedError: `unauthenticated`, `rate-limited`.
    """
    if rates.too_many_refused(address) and not known(text):
        rates.stranger(address)
    try:
        return await find(text)
    except RefusedError:
        rates.refused(address)
        raise


def _client_certificate(request: web.Request) -> bytes | None:
    """DER of the certificate that TLS has verified."""
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)


def observe(verdict: Verdict) -> None:
    """A verdict was recorded: its tier and, unless that is the best one, the families of its reasons."""
    observation = CURRENT.get()
    if observation is None:
        return
    observation.status = verdict.status
    if verdict.status != _BEST:
        codes = (one.code for one in verdict.findings if one.status != _PASSED)
        observation.families = frozenset(code.partition("-")[0] for code in codes)


def _encode(call: Call, reply: Reply) -> tuple[bytes | None, str | None]:
    if reply.body is None:
        return None, None
    if isinstance(reply.body, bytes):
        return reply.body, reply.media_type
    if reply.media_type is not None:
        return encode(reply.body), reply.media_type
    encoding = call.encoding
    return encode(reply.body, encoding), encoding


def _validator(etag: str) -> dict[str, str]:
    return {"ETag": f'"{etag}"', "Cache-Control": _REVALIDATE, "Vary": "Accept, Authorization"}


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
