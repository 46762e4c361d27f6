"""Pages about inventories: how the sources stand, who disagrees with them, what happened, and the machines in them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from verifier.appraisal.correlate import Outcome
from verifier.errors import EvidenceError
from verifier.ports import DEFAULT_TENANT
from verifier.reasons import Reason
from verifier.web.dashboard.pages import Page, PageCall
from verifier.web.routing import OPERATORS, WATCHERS

HERE: Final = "/dashboard/inventory"
_ROWS: Final = 50
_EVENTS: Final = 20
_MAX_SEARCH: Final = 128
_MAX_NAME: Final = 64
_DISAGREE: Final = frozenset(Outcome) - {Outcome.MATCH, Outcome.EK_ONLY}


async def inventory(call: PageCall) -> web.StreamResponse:
    """Everything on one page; without a source it says how to have one. The sources are the default tenant's."""
    services, query = call.services, call.request.query
    if call.tenant != DEFAULT_TENANT or not services.inventory.configured:
        return call.render("inventory_none.html", own=call.tenant == DEFAULT_TENANT)
    search, source = query.get("search", "").strip(), query.get("source", "")
    if len(search) > _MAX_SEARCH or len(source) > _MAX_NAME:
        raise EvidenceError(Reason.MALFORMED_REQUEST, "that is too long to look for", structure="query")
    sources = await services.inventory.sources()
    machines = await services.inventory.machines(
        search or None, source or None, query.get("cursor") or None, _ROWS
    )
    disagreeing = await services.inventory_report.guests(
        call.tenant, _DISAGREE, query.get("guests") or None, _ROWS
    )
    return call.render(
        "inventory.html",
        sources=sources,
        stale=frozenset(one.status.name for one in sources if one.stale),
        max_age=services.inventory.max_age,
        machines=machines,
        disagreeing=disagreeing,
        events=await services.inventory_report.events(call.tenant, None, None, _before(call), _EVENTS),
        events_full=_EVENTS,
        chosen={"search": search, "source": source},
    )


def _before(call: PageCall) -> int | None:
    text = call.request.query.get("before", "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 18:  # noqa: PLR2004 - of a 64-bit number
        raise EvidenceError(Reason.MALFORMED_REQUEST, "`before` is a number", structure="query")
    return int(text)


async def sync(call: PageCall) -> web.StreamResponse:
    """Read every source anew."""
    if call.tenant == DEFAULT_TENANT:
        await call.services.inventory.sync()
    return web.Response(status=303, headers={"Location": HERE})


PAGES: Final = (
    Page(method="GET", path=HERE, handler=inventory, scopes=WATCHERS),
    Page(method="POST", path=f"{HERE}/sync", handler=sync, scopes=OPERATORS),
)
