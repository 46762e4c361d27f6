"""More recordings in one transaction than PostgreSQL is sent in one statement."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from tests.contract.records import enrol, recording
from verifier.store import postgresql_hot
from verifier.store.schema import attestation
from verifier.store.schema_log import log_batch

_MACHINES = 5


@pytest.mark.parametrize(
    "number", [postgresql_hot.MOST - 1, postgresql_hot.MOST, 2 * postgresql_hot.MOST + 3]
)
async def test_all_are_recorded_in_one_transaction(postgresql_database, number):
    store = await postgresql_database.open()
    for machine in range(_MACHINES):
        await enrol(store, f"att-{machine}")
    before = await _count(store, log_batch)

    items = [recording(f"att-{n % _MACHINES}") for n in range(number)]
    stored = await asyncio.gather(*map(store.record, items))

    # Had the batch failed, each would have been tried, and have a batch of the log, by itself.
    assert await _count(store, log_batch) == before + 1
    assert await _count(store, attestation) == number
    for machine in range(_MACHINES):
        mine = [one.sequence for one in stored if one.attester_id == f"att-{machine}"]
        assert mine == list(range(1, len(mine) + 1))
        state = await store.attester_state(f"att-{machine}")
        assert state.latest.sequence == len(mine)
        assert state.position == len(mine)
    for item in items:
        assert await store.has_blob(item.verdict.evidence_sha256)


async def test_a_nonce_that_was_spent_before_costs_the_others_nothing(postgresql_database):
    store = await postgresql_database.open()
    for machine in range(_MACHINES):
        await enrol(store, f"att-{machine}")
    spent = recording("att-0")
    await store.record(spent)
    before = await _count(store, log_batch)

    number = postgresql_hot.MOST + 5
    items = [recording(f"att-{n % _MACHINES}") for n in range(number)]
    items[number - 2] = recording(f"att-{_MACHINES - 1}", nonce_hash=spent.nonce_hash)
    stored = await asyncio.gather(*map(store.record, items))

    assert [n for n, one in enumerate(stored) if one is None] == [number - 2]
    assert await _count(store, log_batch) == before + 1, "still one transaction"
    assert await _count(store, attestation) == 1 + number - 1
    assert not await store.has_blob(items[number - 2].verdict.evidence_sha256)


async def _count(store, table) -> int:
    ((count,),) = await store._backend.rows(select(func.count()).select_from(table))
    return count
