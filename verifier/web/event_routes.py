"""The stream of events (server-sent events; HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from verifier.errors import EvidenceError, RefusedError, VerifierFault
from verifier.ports import Scope
from verifier.ports_events import FOR_RELYING_PARTIES, EventFilter, EventRecord
from verifier.reasons import Reason
from verifier.service.cloud_events import document
from verifier.web import event_messages as m
from verifier.web.routing import (
    READERS,
    SECURITY_HEADERS,
    WATCHERS,
    Call,
    HeaderParameter,
    Reply,
    Route,
)

CLOSING: Final = web.AppKey("events-closing", asyncio.Event)
"""Set when the application ends: open streams would hold it up."""
EVENT_STREAM: Final = "text/event-stream"
_RECHECK: Final = 15.0
"""Seconds after which the caller's token is looked at again, and the connection is proven alive."""
_LOOK: Final = 1.0
"""Seconds between looks at whether the client is still there."""
_STALLED: Final = 15.0
"""Seconds that a client may leave what it is sent unread; then it is cut off, and can resume."""
_RECONNECT: Final = 2_000


async def events(call: Call) -> Reply:
    """Follow what happens."""
    query: m.EventsQuery = call.query
    wants = _visible(call, m.filter_of(_kinds(query), query.label, query.attester, query.tier))
    start, gap = await call.services.feed.start(_resume_after(call))
    call.services.feed.open_stream()

    async def stream() -> web.StreamResponse:
        try:
            return await _stream(call, wants, start, gap=gap)
        finally:
            call.services.feed.close_stream()

    return Reply(body=None, stream=stream)


def _kinds(query: m.EventsQuery) -> list[str]:
    return [] if query.kind is None else query.kind.split(",")


def _visible(call: Call, wants: EventFilter) -> EventFilter:
    """A relying party sees whom to believe, and nothing of how the fleet is run."""
    if call.caller.scopes & WATCHERS:
        return wants
    if wants.kinds - FOR_RELYING_PARTIES:
        allowed = ", ".join(sorted(FOR_RELYING_PARTIES))
        raise RefusedError(Reason.FORBIDDEN, f"the scope {Scope.RELYING_PARTY} sees only {allowed}")
    return replace(wants, kinds=wants.kinds or FOR_RELYING_PARTIES)


def _resume_after(call: Call) -> int | None:
    text = call.request.headers.get("Last-Event-ID") or call.query.last_event_id
    if text is None:
        return None
    try:
        return int(msgspec.convert(text, m.Position))
    except msgspec.ValidationError as error:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, "not the id of an event of this stream", structure="Last-Event-ID"
        ) from error


async def _stream(call: Call, wants: EventFilter, position: int, *, gap: bool) -> web.StreamResponse:
    closing = asyncio.ensure_future(call.request.app[CLOSING].wait())
    gone = asyncio.ensure_future(_gone(call.request))
    async with sse_response(
        call.request, headers=SECURITY_HEADERS, ping_interval=_RECHECK, send_timeout=_STALLED
    ) as response:
        following = asyncio.ensure_future(_follow(call, response, wants, position, gap=gap))
        try:
            await asyncio.wait({closing, gone, following}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            gone.cancel()
            following.cancel()
            # Gone clients and a database that is away end a stream alike: the client connects again and resumes.
            with suppress(
                asyncio.CancelledError,
                RefusedError,
                VerifierFault,
                ConnectionError,
                RuntimeError,
                TimeoutError,
            ):
                await following
    return response


async def _gone(request: web.Request) -> None:
    """Until the client has closed its connection: without this its place would be free only after the next ping."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp has no event for it
        await asyncio.sleep(_LOOK)


async def _follow(
    call: Call, response: EventSourceResponse, wants: EventFilter, position: int, *, gap: bool
) -> None:
    feed, source = call.services.feed, call.config.issuer
    await response.send("{}", id=str(position), event="gap" if gap else "ready", retry=_RECONNECT)
    while True:
        page = await feed.read(call.tenant, wants, position)
        for event in page.events:
            await _send(response, event, source)
        position = page.position
        if page.more:
            continue
        if not call.query.follow:
            await response.send("{}", id=str(position), event="end")
            return
        if not await feed.newer_than(position, _RECHECK):
            if not response.is_connected():
                return
            await call.services.callers.still(call.caller)


async def _send(response: EventSourceResponse, event: EventRecord, source: str) -> None:
    await response.send(document(event, source).decode(), id=str(event.position), event=event.kind.value)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/events",
        access=READERS,
        handler=events,
        summary="What happens, as it happens (server-sent events); resumes after `Last-Event-ID`",
        query=m.EventsQuery,
        response=None,
        media_type=EVENT_STREAM,
        reasons=(Reason.RATE_LIMITED,),
        headers=(
            HeaderParameter(
                "Last-Event-ID",
                "Go on after this event, as `last_event_id`; it counts where both are there.",
                "^[0-9]{1,18}$",
            ),
        ),
    ),
)
