"""Inventories over the API: how the sources stand, what they say of machines, what happened to those.

What the settings configure is the default tenant's; to another there is no inventory.
"""

from __future__ import annotations

from typing import Final

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


async def events(call: Call) -> Reply:
    """What happened since a cursor."""
    query: m.InventoryEventsQuery = call.query
    changes = await call.services.inventory.changes(query.since) if call.tenant == DEFAULT_TENANT else None
    if changes is None:
        return Reply(body=m.InventoryEventsReply(events=[]))
    told = [m.event_message(event) for event in changes.events]
    return Reply(body=m.InventoryEventsReply(events=told, cursor=changes.cursor))


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
        summary="Clones, changed UUIDs, replaced vTPMs, reverts, as far as this process knows of them",
        query=m.InventoryEventsQuery,
        response=m.InventoryEventsReply,
    ),
)
