"""What runs out for many at once is read once."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import FakeClock
from tests.unit.service.policy_store import PolicyStore
from tests.unit.service.test_assignments import NEXT, Setup
from tests.unit.service.test_verdicts import attester
from verifier.policy.assignment import Assignment, Mode, PolicyRef
from verifier.service.together import Together


class Slow:
    def __init__(self) -> None:
        self.calls, self.go = 0, asyncio.Event()

    async def __call__(self):
        self.calls += 1
        mine = self.calls
        await self.go.wait()
        if mine == 13:
            raise ValueError("unlucky")
        return mine


async def started(*tasks):
    made = [asyncio.create_task(one) for one in tasks]
    await asyncio.sleep(0)
    return made


async def test_all_who_ask_meanwhile_share_one_reading_and_the_next_reads_anew():
    work, together = Slow(), Together()
    asking = await started(*(together.read("a", work) for _ in range(5)), together.read("b", work))
    work.go.set()
    assert await asyncio.gather(*asking) == [1, 1, 1, 1, 1, 2]
    assert await together.read("a", work) == 3


async def test_who_gives_up_takes_the_answer_from_nobody():
    work, together = Slow(), Together()
    first, second = await started(together.read("a", work), together.read("a", work))
    first.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await second == 1
    assert first.cancelled()


async def test_a_fault_is_told_to_all_and_not_kept():
    work, together = Slow(), Together()
    work.calls = 12
    asking = await started(*(together.read("a", work) for _ in range(3)))
    work.go.set()
    assert [str(each) for each in await asyncio.gather(*asking, return_exceptions=True)] == ["unlucky"] * 3
    assert await together.read("a", work) == 14


class SlowStore(PolicyStore):
    async def list_assignments(self, tenant):
        found = await super().list_assignments(tenant)
        await asyncio.sleep(0.05)
        return found

    async def current_policy(self, tenant, policy_id):
        found = await super().current_policy(tenant, policy_id)
        await asyncio.sleep(0.05)
        return found


@pytest.fixture
def store():
    return SlowStore()


@pytest.fixture
def setup(store):
    return Setup(store, FakeClock(), "secure-boot")


async def test_a_fleet_whose_knowledge_runs_out_reads_assignments_and_policy_once(setup, store):
    revision = await setup.register()
    setup.policies._clock.advance(seconds=3)
    store.reads = 0
    judging = await asyncio.gather(*(setup.judging() for _ in range(50)))
    assert {primary for primary, _ in judging} == {revision}
    assert store.reads == 2


async def test_what_was_being_read_when_it_changed_does_not_answer_who_asks_after(setup, store):
    old = await setup.register()
    setup.policies._clock.advance(seconds=3)
    before = asyncio.create_task(setup.policies.load("default", PolicyRef("secure-boot")))
    await asyncio.sleep(0.01)
    new = await setup.register(NEXT)
    after = await setup.policies.load("default", PolicyRef("secure-boot"))
    assert (await before).revision == old
    assert after.revision == new


async def test_assignments_that_were_being_read_when_they_changed_do_not_answer_who_asks_after(setup, store):
    one = attester(labels={})
    before = asyncio.create_task(setup.service.resolution(one))
    await asyncio.sleep(0.01)
    store.assignments["default", "asg-x"] = Assignment(
        id="asg-x", policy_id="other", revision=None, mode=Mode.ENFORCE, changed_at=FakeClock().now()
    )
    setup.service.forget("default")
    after = await setup.service.resolution(one)
    assert (await before).primary == PolicyRef("secure-boot")
    assert after.primary == PolicyRef("other")
    assert (await setup.service.resolution(one)).primary == PolicyRef("other")
