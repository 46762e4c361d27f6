"""Pages about inventories: how the sources stand, who disagrees with them, what happened, and the machines in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from verifier.appraisal.correlate import Outcome
from verifier.errors import EvidenceError
from verifier.ports import DEFAULT_TENANT
from verifier.ports import Page as Listing
from verifier.ports_inventory import KeptEvent
from verifier.reasons import Reason
from verifier.service.inventory_report import GuestView
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
    cursor = query.get("cursor") or None
    machines = await services.inventory.machines(search or None, source or None, cursor, _ROWS)
    return call.render(
        "inventory.html",
        sources=sources,
        stale=frozenset(one.status.name for one in sources if one.stale),
        max_age=services.inventory.max_age,
        machines=machines,
        reported=None if search or source or cursor else await _report(call),
        chosen={"search": search, "source": source},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What the page has beside sources and machines, but for those who look for a machine."""

    disagreeing: Listing[GuestView]
    events: Sequence[KeptEvent]
    more: int | None
    """Where older events begin."""


async def _report(call: PageCall) -> _Report:
    asked = call.services.inventory_report
    events = await asked.events(call.tenant, None, None, call.before, _EVENTS)
    return _Report(
        disagreeing=await asked.guests(
            call.tenant, _DISAGREE, call.request.query.get("guests") or None, _ROWS
        ),
        events=events,
        more=events[-1].sequence if len(events) == _EVENTS else None,
    )


async def sync(call: PageCall) -> web.StreamResponse:
    """Read every source anew."""
    if call.tenant == DEFAULT_TENANT:
        await call.services.inventory.sync()
    return web.Response(status=303, headers={"Location": HERE})


PAGES: Final = (
    Page(method="GET", path=HERE, handler=inventory, scopes=WATCHERS),
    Page(method="POST", path=f"{HERE}/sync", handler=sync, scopes=OPERATORS),
)
