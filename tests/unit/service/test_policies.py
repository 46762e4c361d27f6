"""Policies as the service keeps them: immutable revisions, and damage is a fault, never a verdict."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from tests.harness import POLICY, FakeClock
from tests.unit.service.policy_store import PolicyStore
from verifier.errors import NotFoundError, PolicyError, StoredDataDamaged
from verifier.policy.assignment import PolicyRef
from verifier.policy.source import parse_source
from verifier.service import policies as module
from verifier.service.events import LocalEvents
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder


@pytest.fixture
def store():
    return PolicyStore()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def policies(store, clock):
    return PolicyService(store, Recorder(store, LocalEvents()), clock)


CURRENT = PolicyRef("secure-boot")


async def test_a_new_revision_judges_at_once(policies):
    await policies.register("default", POLICY.encode(), "t")
    first = await policies.load("default", CURRENT)
    await policies.register("default", POLICY.replace("10m", "20m").encode(), "t")
    second = await policies.load("default", CURRENT)
    assert first.revision != second.revision
    assert second.validity.total_seconds() == 1200


async def test_another_replicas_revision_judges_within_two_seconds(policies, store, clock):
    record = await policies.register("default", POLICY.encode(), "t")
    old = await policies.load("default", CURRENT)
    other = PolicyService(store, Recorder(store, LocalEvents()), clock)
    await other.register("default", POLICY.replace("10m", "20m").encode(), "t")
    assert (await policies.load("default", CURRENT)).revision == old.revision == record.revision
    clock.advance(seconds=2)
    assert (await policies.load("default", CURRENT)).revision != old.revision


async def test_a_clock_that_jumps_back_does_not_freeze_a_policy(policies, store, clock):
    await policies.register("default", POLICY.encode(), "t")
    await policies.load("default", CURRENT)
    clock.advance(hours=-5)
    reads = store.reads
    await policies.load("default", CURRENT)
    assert store.reads == reads + 1


async def test_a_policy_is_its_tenants_and_its_ids(policies):
    await policies.register("default", POLICY.encode(), "t")
    pinned = PolicyRef("secure-boot", (await policies.load("default", CURRENT)).revision)
    for policy in (CURRENT, pinned):
        assert await policies.load("other", policy) is None
    assert await policies.load("default", PolicyRef("gone")) is None
    assert await policies.load("default", PolicyRef("gone", pinned.revision)) is None
    assert await policies.load("default", PolicyRef("secure-boot", "00")) is None


@pytest.mark.parametrize("change", [{"source": POLICY + "# edited\n"}, {"source": "{}"}, {"revision": "00"}])
async def test_a_stored_policy_that_was_changed_is_a_fault(policies, store, change):
    record = await policies.register("default", POLICY.encode(), "t")
    store.current["default", "secure-boot"] = replace(record, **change)
    with pytest.raises(StoredDataDamaged):
        await policies.load("default", CURRENT)


async def test_what_cannot_be_used_is_not_stored(policies, store):
    for source in (b"\xff", b"x: 1", POLICY.replace("rules:", "rulez:").encode()):
        with pytest.raises(PolicyError):
            await policies.register("default", source, "t")
    assert not store.current


async def test_only_a_policy_that_exists_is_assigned(policies):
    await policies.register("default", POLICY.encode(), "t")
    await policies.assign("default", "att-a", "secure-boot", "t")
    await policies.assign("default", "att-a", None, "t")
    for attester_id, policy_id in (("att-a", "gone"), ("att-b", "secure-boot")):
        with pytest.raises(NotFoundError):
            await policies.assign("default", attester_id, policy_id, "t")


async def test_a_revision_kept_beside_judges_only_by_its_digest(policies):
    first = await policies.register("default", POLICY.encode(), "t")
    beside = await policies.register("default", POLICY.replace("10m", "20m").encode(), "t", current=False)
    assert (await policies.load("default", CURRENT)).revision == first.revision
    pinned = await policies.load("default", PolicyRef("secure-boot", beside.revision))
    assert pinned.validity.total_seconds() == 1200
    assert {each.revision for each in await policies.revisions("default", "secure-boot")} == {
        first.revision,
        beside.revision,
    }
    with pytest.raises(NotFoundError):
        await policies.revisions("default", "gone")


async def test_a_pinned_revision_is_read_once(policies, store, clock):
    record = await policies.register("default", POLICY.encode(), "t")
    pinned = PolicyRef("secure-boot", record.revision)
    first = await policies.load("default", pinned)
    store.revisions.clear()
    clock.advance(hours=1)
    assert await policies.load("default", pinned) is first


def test_reading_a_policy_keeps_nothing(policies, store):
    assert policies.read(POLICY.encode()).id == "secure-boot"
    assert not store.revisions
    for source in (b"\xff", b"x: 1"):
        with pytest.raises(PolicyError):
            policies.read(source)


async def test_nobody_else_waits_while_a_large_policy_is_read(policies, store, clock, monkeypatch):
    others_go_on = threading.Event()

    def slow(source, signers=None):
        assert others_go_on.wait(10), "the event loop stood still"
        return parse_source(source, signers)

    monkeypatch.setattr(module, "parse_source", slow)
    another = PolicyService(store, Recorder(store, LocalEvents()), clock)
    for reading in (policies.register("default", POLICY.encode(), "t"), another.load("default", CURRENT)):
        others_go_on.clear()
        task = asyncio.create_task(reading)
        await asyncio.sleep(0.05)
        others_go_on.set()
        assert (await task).id == "secure-boot"
