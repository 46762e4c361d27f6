"""The pages of the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Final

from aiohttp import web
from aiohttp_sse import sse_response

from verifier.errors import EvidenceError, NotFoundError, RefusedError
from verifier.ports import FleetFilter, Lifecycle, Scope, VerdictRecord
from verifier.ports_enrollment import EnrollmentStatus
from verifier.reasons import Reason, Tier
from verifier.service.approvals import MAX_REASON, Approval
from verifier.service.incidents import Resolution
from verifier.service.rate import RateLimitedError
from verifier.service.tokens import api_secret_hash, is_session
from verifier.web.dashboard import inventory_pages, pictures, policy_pages, sign_in_pages
from verifier.web.dashboard.pages import AUDITORS, LOGIN, Page, PageCall, PageHandler
from verifier.web.dashboard.sessions import drop_cookie, set_cookie
from verifier.web.dashboard.sign_in_pages import local
from verifier.web.dispatch import credited
from verifier.web.routing import OPERATORS, WATCHERS

ROWS: Final = 50
_SPAN: Final = timedelta(hours=24)
_POINTS: Final = 240
_FEW: Final = 8
_TIERS: Final = {tier.label: tier for tier in Tier}
_LIFECYCLES: Final = frozenset({"stale", "revoked", "retired", "enrolled", "pending"})
_MAX_SEARCH: Final = 128
_RECHECK: Final = 30.0
CLOSING: Final = web.AppKey("dashboard-closing", asyncio.Event)


async def login_form(call: PageCall) -> web.StreamResponse:
    """Where a token is asked for."""
    return call.render("login.html", target=call.request.query.get("next", ""), problem=None)


async def login(call: PageCall) -> web.StreamResponse:
    """Begin a session."""
    target, text = call.form.get("next", ""), call.form.get("token", "").strip()
    try:
        await _check_token(call, text)
    except RefusedError as error:
        status = 429 if isinstance(error, RateLimitedError) else 403
        return call.render("login.html", status=status, target=target, problem=error.detail)
    response = web.Response(status=303, headers={"Location": local(target)})
    set_cookie(response, call.sessions.begin(api_secret_hash(text), call.services.clock.now()))
    return response


async def _check_token(call: PageCall, text: str) -> None:
    services = call.services
    token = await credited(
        text, call.request.remote, services.rates, services.tokens.remembers, services.tokens.authenticate
    )
    if not token.scopes & WATCHERS:
        needed = ", ".join(sorted(WATCHERS))
        raise RefusedError(Reason.FORBIDDEN, f"the dashboard needs a token with one of the scopes {needed}")


async def logout(call: PageCall) -> web.StreamResponse:
    """End it; the token of a sign-in through a provider ends with it, and so do copies of the cookie."""
    if is_session(call.caller):
        await call.services.tokens.revoke(call.tenant, call.caller.id, call.actor)
    response = web.Response(status=303, headers={"Location": LOGIN})
    drop_cookie(response)
    return response


async def overview(call: PageCall) -> web.StreamResponse:
    """The fleet in numbers, over time, and what needs somebody."""
    services, tenant = call.services, call.tenant
    counts = dict(await services.fleet.status(tenant))
    return call.render(
        "overview.html",
        counts=counts,
        total=sum(counts.values()),
        plot=pictures.plot(await services.samples.since(tenant, _SPAN, _POINTS)),
        bad=await services.fleet.contraindicated(tenant, _FEW) if counts[Tier.CONTRAINDICATED.label] else (),
        incidents=(await services.incidents.list(tenant, None, _FEW)).items,
        waiting=(await services.approvals.list(tenant, EnrollmentStatus.PENDING, None, _FEW)).items,
        alarms=await services.expiry.alarms(tenant),
        rejudgings=await services.rejudgings.unfinished(tenant),
        log=await services.sequencer.figures(),
        damage=services.sequencer.damage,
    )


async def attesters(call: PageCall) -> web.StreamResponse:
    """The fleet as a table."""
    query = call.request.query
    status, search = query.get("status", ""), query.get("search", "").strip()
    label = query.get("label", "").strip()
    page = await call.services.fleet.list(
        call.tenant, _filter(status, search, label), query.get("cursor") or None, ROWS
    )
    chosen = {"status": status, "search": search, "label": label}
    return call.render(
        "attesters.html", views=page.items, cursor=page.cursor, chosen=chosen, states=pictures.STATES
    )


def _filter(status: str, search: str, label: str) -> FleetFilter:
    if status and status not in _TIERS and status not in _LIFECYCLES:
        raise EvidenceError(Reason.MALFORMED_REQUEST, f"no state is called {status!r}", structure="query")
    if len(search) > _MAX_SEARCH or len(label) > 2 * _MAX_SEARCH:
        raise EvidenceError(Reason.MALFORMED_REQUEST, "that is too long to look for", structure="query")
    key, equals, value = label.partition("=")
    if label and (not key or not equals):
        raise EvidenceError(Reason.MALFORMED_REQUEST, "a label is written key=value", structure="query")
    return FleetFilter(
        tier=_TIERS.get(status),
        lifecycle=Lifecycle(status) if status in _LIFECYCLES else None,
        label=(key, value) if label else None,
        search=search or None,
    )


async def attester(call: PageCall) -> web.StreamResponse:
    """One machine."""
    services, tenant, attester_id = call.services, call.tenant, call.request.match_info["id"]
    view = await services.fleet.attester(tenant, attester_id)
    incident = view.state.lineage.incident if view.state.lineage is not None else None
    return call.render(
        "attester.html",
        view=view,
        incident=incident,
        guests=() if view.state.lineage is None else view.state.lineage.guests,
        vector=pictures.vector_rows({} if view.verdict is None else view.verdict.vector),
        boot=None if view.verdict is None else await services.boots.boot(view.verdict.record),
        history=await services.fleet.history(tenant, attester_id, None, 20),
        replaces=await services.fleet.predecessors(tenant, attester_id),
    )


async def boot(call: PageCall) -> web.StreamResponse:
    """The boot behind a verdict, event by event, and what changed since the one before."""
    services, attester_id = call.services, call.request.match_info["id"]
    view = await services.fleet.attester(call.tenant, attester_id)
    record = await _verdict_of(call, attester_id)
    shown = await services.boots.boot(record)
    earlier = await services.boots.previous(record)
    changes = None
    if earlier is not None:
        changes = await services.boots.changes(shown, await services.boots.boot(earlier))
    chosen = call.request.query.get("pcr", "")
    pcr = int(chosen) if chosen.isdecimal() and len(chosen) <= 2 else None  # noqa: PLR2004 - two digits
    return call.render(
        "boot.html",
        view=view,
        boot=shown,
        earlier=earlier,
        changes=changes,
        pcr=pcr,
        pcrs=sorted({event.fact.pcr for event in shown.events}),
    )


async def _verdict_of(call: PageCall, attester_id: str) -> VerdictRecord:
    wanted = call.request.match_info["sequence"]
    if not wanted.isdecimal() or len(wanted) > 18:  # noqa: PLR2004 - of a 64-bit number
        raise NotFoundError("verdict", wanted)
    found = await call.services.fleet.history(call.tenant, attester_id, int(wanted) + 1, 1)
    if not found or found[0].record.sequence != int(wanted):
        raise NotFoundError("verdict", wanted)
    return found[0].record


async def enrollments(call: PageCall) -> web.StreamResponse:
    """Machines that wait to be let in."""
    page = await call.services.approvals.list(
        call.tenant, EnrollmentStatus.PENDING, call.request.query.get("cursor") or None, ROWS
    )
    return call.render("enrollments.html", views=page.items, cursor=page.cursor, max_reason=MAX_REASON)


async def approve(call: PageCall) -> web.StreamResponse:
    """Let a machine in."""
    place = call.form.get("place", "")
    approval = Approval(
        reason=_reason(call),
        replaces=place if place not in ("", "new") else None,
        as_new=place == "new",
        overrule="overrule" in call.form,
    )
    await call.services.approvals.approve(call.tenant, call.request.match_info["id"], approval, call.actor)
    return _back("/dashboard/enrollments")


async def refuse(call: PageCall) -> web.StreamResponse:
    """Keep it out."""
    await call.services.approvals.refuse(
        call.tenant, call.request.match_info["id"], _reason(call), call.actor
    )
    return _back("/dashboard/enrollments")


async def incidents(call: PageCall) -> web.StreamResponse:
    """Clones and rollbacks nobody has resolved."""
    page = await call.services.incidents.list(call.tenant, call.request.query.get("cursor") or None, ROWS)
    return call.render("incidents.html", views=page.items, cursor=page.cursor, max_reason=MAX_REASON)


async def resolve(call: PageCall) -> web.StreamResponse:
    """Settle one."""
    resolution = Resolution(
        reason=_reason(call), keep=call.form.get("keep") or None, reenroll=call.form.get("reenroll") or None
    )
    await call.services.incidents.resolve(call.tenant, call.request.match_info["id"], resolution, call.actor)
    return _back("/dashboard/incidents")


async def revoke(call: PageCall) -> web.StreamResponse:
    """Believe a machine no more."""
    attester_id = call.request.match_info["id"]
    await call.services.fleet.revoke(call.tenant, attester_id, call.actor)
    return _back(f"/dashboard/attesters/{attester_id}")


async def audit(call: PageCall) -> web.StreamResponse:
    """What people decided."""
    entries = await call.services.approvals.audit(call.tenant, None, call.before, ROWS)
    return call.render(
        "audit.html", entries=entries, more=entries[-1].sequence if len(entries) == ROWS else None
    )


async def live(call: PageCall) -> web.StreamResponse:
    """Says that something changed, so that an open page looks again; nothing of the fleet is in it."""
    events = call.services.events.subscribe()
    closing = asyncio.ensure_future(call.request.app[CLOSING].wait())
    change = asyncio.ensure_future(_of_tenant(events, call.tenant))
    try:
        async with sse_response(call.request) as stream:
            while not closing.done():
                # A wait that timed out goes on: to cancel it would end the subscription.
                await asyncio.wait({change, closing}, timeout=_RECHECK, return_when=asyncio.FIRST_COMPLETED)
                await call.services.tokens.resume(call.caller.secret_hash)
                await stream.send("", event="change" if change.done() else "ping")
                if change.done():
                    change = asyncio.ensure_future(_of_tenant(events, call.tenant))
    except RefusedError:
        pass  # the token is gone, and the session with it
    finally:
        change.cancel()
        closing.cancel()
        await asyncio.gather(change, closing, return_exceptions=True)
        await events.aclose()
    return stream


async def _of_tenant(events: AsyncGenerator[VerdictRecord, None], tenant: str) -> None:
    async for record in events:
        if record.tenant == tenant:
            return


def _reason(call: PageCall) -> str:
    reason = call.form.get("reason", "").strip()
    if len(reason) > MAX_REASON:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, f"a reason has {MAX_REASON} characters at most", structure="form"
        )
    return reason


def _back(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def _page(method: str, path: str, handler: PageHandler, scopes: frozenset[Scope] | None) -> Page:
    return Page(method=method, path=path, handler=handler, scopes=scopes)


PAGES: Final = (
    _page("GET", "/dashboard", overview, WATCHERS),
    _page("GET", "/dashboard/login", login_form, None),
    _page("POST", "/dashboard/login", login, None),
    _page("POST", "/dashboard/logout", logout, WATCHERS),
    _page("GET", "/dashboard/attesters", attesters, WATCHERS),
    _page("GET", "/dashboard/attesters/{id}", attester, WATCHERS),
    _page("POST", "/dashboard/attesters/{id}/revoke", revoke, OPERATORS),
    _page("GET", "/dashboard/attesters/{id}/boots/{sequence}", boot, WATCHERS),
    _page("GET", "/dashboard/enrollments", enrollments, WATCHERS),
    _page("POST", "/dashboard/enrollments/{id}/approve", approve, OPERATORS),
    _page("POST", "/dashboard/enrollments/{id}/refuse", refuse, OPERATORS),
    _page("GET", "/dashboard/incidents", incidents, WATCHERS),
    _page("POST", "/dashboard/incidents/{id}/resolve", resolve, OPERATORS),
    *sign_in_pages.PAGES,
    *policy_pages.PAGES,
    *inventory_pages.PAGES,
    _page("GET", "/dashboard/audit", audit, AUDITORS),
    _page("GET", "/dashboard/live", live, WATCHERS),
)
