"""What a page of the fleet costs the database: as many rows as it shows, however large the fleet is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from tests.bench.populate import populate
from tests.contract.records import NOW, enrol, recording
from verifier.ports import DEFAULT_TENANT, FleetFilter
from verifier.reasons import Tier
from verifier.store import statements
from verifier.store.fleet import _listing
from verifier.store.values import micros

FLEET = 3_000
PAGE = 50
JOINED = ("endorsement_key", "attestation_key", "boot", "judgement")
WHERES = {
    "all": FleetFilter(),
    "label": FleetFilter(label=("site", "site-7")),
    "tier": FleetFilter(tier=Tier.AFFIRMING),
    "search": FleetFilter(search="vm-00"),
}


@pytest.fixture
async def fleet(store):
    for name in ("att-good", "att-bad"):
        await enrol(store, name)
        await store.record(recording(name))
    await populate(store, ["att-good", "att-bad"], FLEET)
    return store


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def explained(store, where: FleetFilter, now: datetime = NOW) -> dict[str, Any]:
    def work(connection):
        connection.execute(text("ANALYZE"))
        compiled = store._statement(DEFAULT_TENANT, where, micros(now), None, PAGE + 1).compile(
            connection.engine, compile_kwargs={"literal_binds": True, "render_postcompile": True}
        )
        return connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}").scalar()

    found = await store._backend.write(work)
    (whole,) = json.loads(found) if isinstance(found, str) else found
    return whole["Plan"]


async def test_only_the_rows_of_the_page_are_read_of_what_is_joined_to_it(fleet, database):
    """On PostgreSQL, which chooses by what it knows of the rows."""
    if database.name == "verifier.db":
        pytest.skip("SQLite's plans are in tests/unit/store/test_plans.py")
    for name, where in WHERES.items():
        read = {
            node["Relation Name"]: node["Actual Rows"] * node["Actual Loops"]
            for node in nodes(await explained(fleet, where))
            if node["Node Type"].startswith("Index") and "Relation Name" in node
        }
        joined = {table: read[table] for table in JOINED if table in read}
        assert "endorsement_key" in joined, name
        assert max(joined.values()) <= PAGE + 1, (name, joined)


async def test_a_page_that_is_quicker_to_plan_has_the_same_rows(fleet, database):
    if database.name == "verifier.db":
        pytest.skip("SQLite knows no lateral joins")
    for name, where in WHERES.items():
        ids = _listing(DEFAULT_TENANT, where, micros(NOW))
        at_once, in_steps = [
            await fleet._backend.rows(statements.attester_page(ids, PAGE + 1, in_steps=in_steps))
            for in_steps in (False, True)
        ]
        assert list(map(tuple, at_once)) == list(map(tuple, in_steps)), name
        assert len(at_once) == PAGE + 1 or name == "label", name


async def test_every_machine_is_on_exactly_one_page(fleet):
    seen: list[str] = []
    cursor = None
    while True:
        page = await fleet.list_attesters(DEFAULT_TENANT, FleetFilter(), now=NOW, cursor=cursor, limit=1_000)
        seen += [state.attester.id for state in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == FLEET + 2
    assert seen == sorted(seen)


async def test_a_machine_whose_key_is_gone_does_not_end_the_listing(fleet):
    """A damaged database; what it still has is shown."""

    def spoil(connection):
        connection.execute(
            text(
                "DELETE FROM attestation_key WHERE attester_id IN (SELECT id FROM attester ORDER BY id LIMIT 3)"
            )
        )

    await fleet._backend.write(spoil)
    page = await fleet.list_attesters(DEFAULT_TENANT, FleetFilter(), now=NOW, cursor=None, limit=10)
    assert page.items
    assert page.cursor is not None
    rest = await fleet.list_attesters(DEFAULT_TENANT, FleetFilter(), now=NOW, cursor=page.cursor, limit=1_000)
    assert rest.items[0].attester.id > page.items[-1].attester.id
