"""The latest verdict of one attester: as JSON or a signed EAR, good enough or not, now or when it changes."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Final

from verifier.errors import NotFoundError, RefusedError
from verifier.ports import Lifecycle
from verifier.reasons import Reason, Tier
from verifier.service.model import AttesterView
from verifier.service.verdicts import satisfies
from verifier.service.watch import lifecycle_of
from verifier.web import messages as m
from verifier.web.ears import CWT_MEDIA_TYPE, EAR_MEDIA_TYPE, ear_form, ear_reply
from verifier.web.query_messages import least_of
from verifier.web.routing import READERS, Call, Reply, Route
from verifier.web.wire_codec import Verdict, verdict_message

_TICK: Final = 1.0
"""Seconds after which a call that waits looks whether its client is still there."""


async def verdict(call: Call) -> Reply:
    """The latest verdict, as JSON or as a signed EAR."""
    query: m.VerdictQuery = call.query
    if query.wait:
        return await _represent(call, await _awaited(call, query.wait))
    return await _represent(call, await _view(call))


def unchanged(call: Call) -> str | None:
    """The ETag of what would be answered, where the database need not be asked for it."""
    query: m.VerdictQuery = call.query
    mark = call.services.watch.mark(call.tenant, _id(call))
    if query.wait or query.nonce is not None or mark is None or mark.tier is None:
        return None
    lifecycle, least = lifecycle_of(mark, call.services.clock.now()), least_of(query.min_tier)
    if least is not None and not satisfies(lifecycle, mark.tier, least):
        return None
    return _etag(call, mark.sequence, lifecycle)


async def _view(call: Call) -> AttesterView | None:
    """None where nobody knows the attester and a gate asks: what is not known is not good enough."""
    try:
        return await call.services.fleet.watched(call.tenant, _id(call))
    except NotFoundError:
        if call.query.min_tier is None:
            raise
        return None


async def _awaited(call: Call, seconds: int) -> AttesterView | None:
    """What is known when it is something new to the caller, or when the time is over."""
    ends = asyncio.get_running_loop().time() + seconds
    with call.services.watch.waiter(_id(call)) as woken:
        while True:
            woken.clear()
            view = await _view(call)
            if view is None or not _is_old_news(call, view) or not await _pause(call, view, woken, ends):
                break
    await call.services.callers.still(call.caller)
    return view


def _is_old_news(call: Call, view: AttesterView) -> bool:
    """Whether the caller has it already; one that says of nothing that it has it waits for what it asks for."""
    found, least = view.verdict, least_of(call.query.min_tier)
    if found is None or (least is not None and not satisfies(view.lifecycle, view.tier, least)):
        return not call.is_conditional
    return call.knows(_etag(call, found.record.sequence, found.lifecycle))


async def _pause(call: Call, view: AttesterView, woken: asyncio.Event, ends: float) -> bool:
    """Wait for a change; False when there is no time or nobody left to wait for one."""
    while (left := ends - asyncio.get_running_loop().time()) > 0:
        if call.services.watch.closed or call.request.transport is None:
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(woken.wait(), min(left, _TICK))
            return True
        if _runs_out(call, view):
            return True
    return False


def _runs_out(call: Call, view: AttesterView) -> bool:
    if view.verdict is None or view.lifecycle is not Lifecycle.ENROLLED:
        return False
    return not view.verdict.record.holds_at(call.services.clock.now())


async def _represent(call: Call, view: AttesterView | None) -> Reply:
    least = least_of(call.query.min_tier)
    if least is not None and (view is None or not satisfies(view.lifecycle, view.tier, least)):
        raise _below(_id(call), view, least)
    if view is None or view.verdict is None:
        raise NotFoundError("verdict yet of attester", _id(call))
    query: m.VerdictQuery = call.query
    etag = _etag(call, view.verdict.record.sequence, view.lifecycle)
    # With the caller's nonce in it, no answer is like another.
    ear = await ear_reply(call, view.verdict, query.nonce, etag if query.nonce is None else None)
    return ear or Reply(body=verdict_message(view.verdict), etag=etag)


def _below(attester_id: str, view: AttesterView | None, least: Tier) -> RefusedError:
    if view is None:
        known = "nobody knows it"
    elif view.verdict is None:
        known = f"it is {view.lifecycle.value} and has no verdict"
    else:
        known = f"it is {view.lifecycle.value} and its verdict says {view.tier.label}"
    return RefusedError(Reason.TIER_NOT_MET, f"attester {attester_id}: {known}; {least.label} was asked for")


def _etag(call: Call, sequence: int, lifecycle: Lifecycle) -> str:
    """Follows from all that the answer does, so that it is known without making the answer.

    Two signatures over one verdict differ; what they say does not.
    """
    form = ear_form(call) or call.encoding
    known = (call.config.version, _id(call), sequence, lifecycle.value, form)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:32]


def _id(call: Call) -> str:
    return call.request.match_info["id"]


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/attesters/{id}/verdict",
        access=READERS,
        handler=verdict,
        summary=f"The latest verdict as it stands now; a signed EAR with `Accept: {EAR_MEDIA_TYPE}` or `{CWT_MEDIA_TYPE}`",
        query=m.VerdictQuery,
        response=Verdict,
        conditional=True,
        unchanged=unchanged,
        reasons=(Reason.TIER_NOT_MET, Reason.RATE_LIMITED),
    ),
)
