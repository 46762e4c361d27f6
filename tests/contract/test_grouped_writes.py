"""Many who write at once: each whole or not at all, and nobody for another's fault."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, func, insert, select

from tests.contract.conftest import Database
from tests.contract.records import audit_entry, enrol, enrollment, token
from verifier.ports_enrollment import Filed
from verifier.ports_observe import CURRENT, Observation
from verifier.store import sqlite_backend
from verifier.store.schema import audit, probe
from verifier.store.schema_watched import fleet_sample


def sample(number):
    return insert(fleet_sample).values(tenant="t", at=number, counts="{}")


async def samples(store):
    found = await store._backend.rows(select(fleet_sample.c.at).where(fleet_sample.c.tenant == "t"))
    return sorted(at for (at,) in found)


async def test_one_that_fails_is_undone_alone(store):
    def work(number):
        def run(connection: Connection) -> int:
            connection.execute(sample(number))
            if number % 3 == 0:
                raise ZeroDivisionError(number)
            connection.execute(sample(number + 100))
            return number

        return run

    answers = await asyncio.gather(
        *(store._backend.write(work(number)) for number in range(1, 13)), return_exceptions=True
    )
    for number, answer in enumerate(answers, 1):
        if number % 3 == 0:
            assert isinstance(answer, ZeroDivisionError)
            assert answer.args == (number,)
        else:
            assert answer == number
    kept = [number for number in range(1, 13) if number % 3]
    assert await samples(store) == kept + [number + 100 for number in kept]


async def test_a_broken_constraint_is_its_own_callers(store):
    def twice(connection: Connection) -> None:
        connection.execute(sample(1))
        connection.execute(sample(1))

    def once(connection: Connection) -> None:
        connection.execute(sample(2))

    broken, *others = await asyncio.gather(
        store._backend.write(twice), *(store.ping() for _ in range(3)), store._backend.write(once),
        return_exceptions=True,
    )  # fmt: skip
    assert type(broken).__name__ == "IntegrityError"
    assert others == [None] * 4
    assert await samples(store) == [2]


async def test_each_writes_for_its_own_request(store):
    """The audit log says for which request something was done, whoever it was written with."""

    async def add(number):
        CURRENT.set(Observation(f"request-{number}"))
        await store.raise_alarm(f"p-{number}", 0, audit_entry(subject=f"p-{number}"))

    await asyncio.gather(*(asyncio.create_task(add(number)) for number in range(8)))
    found = await store._backend.rows(select(audit.c.subject, audit.c.detail))
    assert {subject: f"request-{subject[2:]}" in detail for subject, detail in found} == {
        f"p-{number}": True for number in range(8)
    }


async def test_a_storm_of_enrolments_and_tokens_is_stored_whole(store):
    await store.add_token(join := token(uses_left=5))
    offers = [enrollment(token_id=join.id) for _ in range(9)]
    spent = asyncio.gather(*(store.add_enrollment(offer, spends=True) for offer in offers))
    attesters = await asyncio.gather(*(enrol(store, f"att-{number}") for number in range(40)))
    assert (await spent).count(Filed.KEPT) == 5
    assert sum([await store.enrollment(offer.id) is not None for offer in offers]) == 5
    for one in attesters:
        state = await store.attester_state(one.id)
        assert state is not None
        assert state.attester == one


class TestSqlite:
    @pytest.fixture
    def writes(self, monkeypatch):
        """How many wrote in each transaction."""
        seen, real = [], sqlite_backend.write_all

        def write_all(connection, batch):
            seen.append(len(batch))
            return real(connection, batch)

        monkeypatch.setattr(sqlite_backend, "write_all", write_all)
        return seen

    async def test_those_that_wait_share_one_flush_and_a_bounded_one(self, tmp_path, writes):
        database = Database(f"sqlite:///{tmp_path}/verifier.db", "")
        store = await database.open()
        writes.clear()
        await asyncio.gather(*(store.ping() for _ in range(100)))
        assert sum(writes) == 100
        assert len(writes) < 10
        assert max(writes) <= sqlite_backend._TOGETHER
        ((count,),) = await store._backend.rows(select(func.max(probe.c.writes)))
        assert count == 101
        await database.close()
