"""How SQLite answers: by index and in order. A plan that sorts or scans a table is slow only when it is too late."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from verifier.ports import FleetFilter, Lifecycle
from verifier.reasons import Tier
from verifier.store import fleet, sqlite_backend, statements, upgrade
from verifier.store.schema import attestation


@pytest.fixture(scope="module")
def explain(tmp_path_factory):
    """The steps of a statement's plan on an empty, migrated database."""
    path = tmp_path_factory.mktemp("plans") / "verifier.db"
    upgrade(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:

        def plan(statement):
            state = statement.compile(dialect=sqlite_backend._DIALECT).construct_expanded_state()
            rows = connection.execute(f"EXPLAIN QUERY PLAN {state.statement}", state.parameters)
            return [row[3] for row in rows]

        yield plan


@pytest.mark.parametrize(
    ("where", "first"),
    [
        (FleetFilter(), "ix_latest_fleet (tenant=?)"),
        (FleetFilter(tier=Tier.CONTRAINDICATED), "ix_latest_fleet (tenant=?)"),
        (FleetFilter(lifecycle=Lifecycle.STALE), "ix_latest_fleet (tenant=?)"),
        (FleetFilter(lifecycle=Lifecycle.ENROLLED), "ix_latest_fleet (tenant=?)"),
        (FleetFilter(lifecycle=Lifecycle.REVOKED), "ix_latest_fleet (tenant=?)"),
        (FleetFilter(search="host"), "ix_attester_search (tenant=?)"),
        (FleetFilter(label=("a", "b")), "ix_attester_label_tenant_key_value_attester_id"),
        (FleetFilter(label=("a", "b"), search="host", tier=Tier.NONE), "ix_attester_label"),
    ],
)
@pytest.mark.parametrize("later_page", [False, True])
def test_a_page_is_read_in_order_from_one_index(explain, where, first, later_page):
    ids = fleet._listing("default", where, 0)
    (key,) = ids.selected_columns
    if later_page:
        ids = ids.where(key > "att-5")
        first = first.split(" ")[0]
    steps = explain(statements.attester_page(ids, 101))
    page = steps.index("SCAN page")
    assert first in steps[1]
    assert all(step.startswith("SEARCH ") for step in steps[1:page]), steps
    joined = {step for step in steps[page:] if not step.startswith("SEARCH ")}
    assert joined == {"SCAN page", "SCALAR SUBQUERY 2", "USE TEMP B-TREE FOR ORDER BY"}, steps


@pytest.mark.parametrize(
    "statement",
    [
        *(lookup.one.params(key="x") for lookup in (*statements.LOOKUPS, statements.KNOWN_ATTESTER)),
        statements.CURRENT_POLICY.params(tenant="x", policy_id="x"),
    ],
)
def test_the_hot_path_never_scans(explain, statement):
    steps = explain(statement)
    assert steps
    assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in steps), steps


def test_history_is_read_backwards_from_its_key(explain):
    query = statements.history().where(attestation.c.attester_id == "a", attestation.c.tenant == "t")
    steps = explain(query.where(attestation.c.sequence < 5).limit(10))
    assert "PRIMARY KEY (attester_id=? AND sequence<?)" in steps[0]
    assert not any("TEMP B-TREE" in step for step in steps)
