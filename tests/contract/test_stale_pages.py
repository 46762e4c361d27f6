"""Who is stale: those who fell silent and those judged by a clock that was ahead, whichever way the database finds them."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.bench.populate import populate
from tests.contract.records import MINUTE, NOW, enrol, recording
from tests.contract.test_fleet_pages import explained, nodes
from verifier.errors import EvidenceError
from verifier.ports import DEFAULT_TENANT, FleetFilter, Lifecycle
from verifier.reasons import Tier

OTHER = "other-tenant"
STALE = FleetFilter(lifecycle=Lifecycle.STALE)
TICK = timedelta(microseconds=1)
LATER = NOW + 60 * MINUTE
"""When it is asked."""
TIMES = {
    "silent": NOW,
    "just-silent": LATER - 15 * MINUTE - TICK,
    "holds": LATER - 15 * MINUTE,
    "newly": LATER,
    "skewed": LATER + 5 * MINUTE,
    "ahead": LATER + 5 * MINUTE + TICK,
    "far-ahead": LATER + 900 * MINUTE,
    "never": None,
}
"""When each kind was judged; a verdict holds for 15 minutes."""
GONE = ("silent", "just-silent", "ahead", "far-ahead")
SIZES = (1, 2, 3, 7, 100)


async def judged(store, attester_id, kind, tenant=DEFAULT_TENANT):
    await enrol(store, attester_id, tenant=tenant)
    if TIMES[kind] is not None:
        await store.record(recording(attester_id, at=TIMES[kind], tenant=tenant))


@pytest.fixture(params=["mixed", "silent-first", "ahead-first", "none"])
async def asked(request, store):
    """A store, and who of its fleet is stale, in order."""
    kinds = [kind for kind in TIMES if request.param != "none" or kind not in GONE]
    in_order = {"silent-first": sorted(kinds, reverse=True), "ahead-first": sorted(kinds)}
    each = in_order.get(request.param, kinds) if request.param != "mixed" else [*kinds, *reversed(kinds)]
    expected = []
    for number, kind in enumerate(each):
        for copy, revoked in itertools.product("ab", (False, True)):
            name = f"att-{number:02}-{copy}-{'barred' if revoked else 'enrolled'}"
            await judged(store, name, kind)
            if revoked:
                await store.revoke_attester(DEFAULT_TENANT, name, LATER)
            elif kind in GONE:
                expected.append(name)
        await judged(store, f"att-{number:02}-other", kind, OTHER)
    return store, sorted(expected)


async def pages(store, size):
    """Each page's ids."""
    found, cursor = [], None
    while len(found) < 100:
        page = await store.list_attesters(DEFAULT_TENANT, STALE, now=LATER, cursor=cursor, limit=size)
        assert {state.attester.lifecycle for state in page.items} <= {Lifecycle.STALE}
        found.append([state.attester.id for state in page.items])
        cursor = page.cursor
        if cursor is None:
            break
    return found


async def test_pages_have_all_that_are_stale_in_order_and_are_full_but_for_the_last(asked):
    store, expected = asked
    for size in SIZES:
        assert await pages(store, size) == ([list(part) for part in batched(expected, size)] or [[]]), size


def batched(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


async def test_another_tenants_are_not_among_them(asked):
    store, expected = asked
    page = await store.list_attesters(OTHER, STALE, now=LATER, cursor=None, limit=100)
    assert all(state.attester.id.endswith("-other") for state in page.items)
    assert bool(page.items) == bool(expected)
    nobodys = await store.list_attesters("nobody", STALE, now=LATER, cursor=None, limit=100)
    assert (nobodys.items, nobodys.cursor) == ((), None)


async def test_other_filters_narrow_it(asked):
    store, expected = asked
    for where, found in (
        (FleetFilter(lifecycle=Lifecycle.STALE, tier=Tier.AFFIRMING), expected),
        (FleetFilter(lifecycle=Lifecycle.STALE, tier=Tier.WARNING), []),
        (FleetFilter(lifecycle=Lifecycle.STALE, search="-a-"), [one for one in expected if "-a-" in one]),
        (FleetFilter(lifecycle=Lifecycle.STALE, incident=True), []),
        (FleetFilter(lifecycle=Lifecycle.STALE, label=("site", "fra")), []),
    ):
        page = await store.list_attesters(DEFAULT_TENANT, where, now=LATER, cursor=None, limit=100)
        assert [state.attester.id for state in page.items] == found, where


async def test_a_cursor_of_theirs_is_of_no_other_listing(asked):
    store, expected = asked
    page = await store.list_attesters(DEFAULT_TENANT, STALE, now=LATER, cursor=None, limit=1)
    assert (page.cursor is None) == (len(expected) < 2)
    if page.cursor is not None:
        with pytest.raises(EvidenceError):
            await store.list_attesters(DEFAULT_TENANT, FleetFilter(), now=LATER, cursor=page.cursor, limit=1)


async def test_no_row_of_those_that_hold_is_looked_at(postgresql_database):
    """Each attestation leaves a row that no index vouches for; with 100,000 of them it took a second."""
    # A database of its own: to what other tests have left in the indexes of the shared one, reading the table may be preferred.
    store = await postgresql_database.open()
    for name in ("att-good", "att-bad"):
        await judged(store, name, "newly")
    await populate(store, ["att-good", "att-bad"], 3_000)
    await store._backend.write(
        lambda connection: connection.execute(text("UPDATE latest SET sequence = sequence + 1"))
    )
    read = [
        (node["Node Type"], node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes(await explained(store, STALE, LATER))
        if node.get("Relation Name") == "latest"
    ]
    assert len(read) > 1
    assert max(rows for _, rows in read) <= 1, read
