"""PostgreSQL's connections: kept while they are good, replaced once they are cut."""

from __future__ import annotations

import asyncio

import pytest

from verifier.ports import DEFAULT_TENANT

_AT_ONCE = 12


@pytest.fixture
async def store(postgresql_database):
    """Whose connections many have used at once."""
    opened = await postgresql_database.open()
    await _many(opened)
    return opened


async def test_what_many_ask_at_once_makes_no_connections_the_next_time(cluster, postgresql_database, store):
    before = _sessions(cluster, postgresql_database.name)

    for _ in range(3):
        await _many(store)

    assert _sessions(cluster, postgresql_database.name) == before


async def test_connections_that_were_cut_are_replaced_before_they_are_used(
    cluster, postgresql_database, store
):
    for _ in range(3):
        await _many(store)
        cluster.disconnect(postgresql_database.name)
        await asyncio.sleep(0.1)

    assert await _many(store) == [None] * _AT_ONCE


async def test_a_kept_connection_is_not_tested_with_a_transaction_each_time(
    cluster, postgresql_database, store
):
    before = _undone(cluster, postgresql_database.name)
    for _ in range(20):
        await _many(store)

    await asyncio.sleep(1.2)  # the server counts once a second
    await _many(store)
    assert _undone(cluster, postgresql_database.name) - before < 3 * _AT_ONCE


async def _many(store):
    asked = (store.attester_of_ek(DEFAULT_TENANT, b"%032d" % number) for number in range(_AT_ONCE))
    return await asyncio.gather(*asked)


def _sessions(cluster, database):
    return cluster.rows(
        "SELECT pid, backend_start FROM pg_stat_activity WHERE backend_type = 'client backend'"
        f" AND datname = '{database}' AND pid <> pg_backend_pid() ORDER BY pid",
        database,
    )


def _undone(cluster, database):
    return int(
        cluster.rows(f"SELECT xact_rollback FROM pg_stat_database WHERE datname = '{database}'", database)[0]
    )
