"""Inventories over the API: how the sources stand, what they say of machines, what happened to those.

What the settings configure is the default tenant's; to another there is no inventory.
"""

from __future__ import annotations

from typing import Final

from verifier.appraisal.correlate import Outcome
from verifier.appraisal.inventory import EventKind
from verifier.errors import NotFoundError
from verifier.ports import DEFAULT_TENANT, Page
from verifier.reasons import Reason
from verifier.service.inventory import Standing
from verifier.web import inventory_messages as m
from verifier.web.routing import OPERATORS, WATCHERS, Call, Reply, Route


async def inventory(call: Call) -> Reply:
    """How every source stands."""
    return _standing(call, await call.services.inventory.sources())


async def sync(call: Call) -> Reply:
    """Read every source anew."""
    if call.tenant != DEFAULT_TENANT:
        return _standing(call, ())
    return _standing(call, await call.services.inventory.sync())


async def machines(call: Call) -> Reply:
    """One page of machines."""
    query: m.InventoryMachinesQuery = call.query
    if call.tenant != DEFAULT_TENANT:
        return Reply(body=m.machines_message(Page(items=(), cursor=None), frozenset()))
    asked = call.services.inventory
    page = await asked.machines(query.search, query.source, query.cursor, query.limit)
    stale = frozenset(one.status.name for one in await asked.sources() if one.stale)
    return Reply(body=m.machines_message(page, stale))


async def machine(call: Call) -> Reply:
    """The machines of one UUID."""
    uuid = call.request.match_info["uuid"]
    if call.tenant != DEFAULT_TENANT:
        raise NotFoundError("machine of an inventory with UUID", uuid)
    found = await call.services.inventory_report.machines(call.tenant, uuid)
    return Reply(body=m.MachineReply(machines=[m.machine_detail(one) for one in found]))


async def guests(call: Call) -> Reply:
    """One page of attesters and their machines."""
    query: m.InventoryGuestsQuery = call.query
    if call.tenant != DEFAULT_TENANT:
        return Reply(body=m.InventoryGuestsReply(guests=[]))
    page = await call.services.inventory_report.guests(
        call.tenant, _outcomes(query), query.cursor, query.limit
    )
    return Reply(
        body=m.InventoryGuestsReply(guests=[m.guest_message(one) for one in page.items], cursor=page.cursor)
    )


async def events(call: Call) -> Reply:
    """What happened to machines."""
    query: m.InventoryEventsQuery = call.query
    if call.tenant != DEFAULT_TENANT:
        return Reply(body=m.InventoryEventsReply(events=[]))
    kind = None if query.kind is None else EventKind(query.kind)
    found = await call.services.inventory_report.events(
        call.tenant, query.uuid, kind, query.before, query.limit
    )
    more = found[-1].sequence if len(found) == query.limit else None
    return Reply(body=m.InventoryEventsReply(events=[m.event_message(one) for one in found], before=more))


def _outcomes(query: m.InventoryGuestsQuery) -> frozenset[Outcome]:
    """Those that are asked for; empty: all."""
    if query.outcome is not None:
        return frozenset({Outcome(query.outcome)})
    if query.matched is None:
        return frozenset()
    matched = frozenset({Outcome.MATCH, Outcome.EK_ONLY})
    return matched if query.matched == "yes" else frozenset(Outcome) - matched


def _standing(call: Call, sources: tuple[Standing, ...]) -> Reply:
    own = sources if call.tenant == DEFAULT_TENANT else ()
    age = int(call.services.inventory.max_age.total_seconds())
    return Reply(body=m.InventoryReply(sources=[m.source_message(one) for one in own], max_age_seconds=age))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/inventory",
        access=WATCHERS,
        handler=inventory,
        summary="Every inventory: when it was last current, how many machines, what is wrong with it",
        response=m.InventoryReply,
        conditional=True,
    ),
    Route(
        method="POST",
        path="/v1/inventory/sync",
        access=OPERATORS,
        handler=sync,
        summary="Read files now, and have vCenters read anew with their next answer",
        response=m.InventoryReply,
    ),
    Route(
        method="GET",
        path="/v1/inventory/machines",
        access=WATCHERS,
        handler=machines,
        summary="Machines as the inventories describe them, searched and paged",
        query=m.InventoryMachinesQuery,
        response=m.InventoryMachinesReply,
        conditional=True,
        reasons=(Reason.MALFORMED_REQUEST,),
    ),
    Route(
        method="GET",
        path="/v1/inventory/events",
        access=WATCHERS,
        handler=events,
        summary="Clones, changed UUIDs, replaced vTPMs, reverts, machines that came and went, newest first",
        query=m.InventoryEventsQuery,
        response=m.InventoryEventsReply,
        reasons=(Reason.MALFORMED_REQUEST, Reason.NOT_FOUND),
    ),
    Route(
        method="GET",
        path="/v1/inventory/machines/{uuid}",
        access=WATCHERS,
        handler=machine,
        summary="The machines with this instance UUID or SMBIOS UUID, and the attesters that have their keys",
        response=m.MachineReply,
        reasons=(Reason.MALFORMED_REQUEST, Reason.NOT_FOUND),
    ),
    Route(
        method="GET",
        path="/v1/inventory/guests",
        access=WATCHERS,
        handler=guests,
        summary="Attesters with what the inventories say of each, by outcome",
        query=m.InventoryGuestsQuery,
        response=m.InventoryGuestsReply,
    ),
)
