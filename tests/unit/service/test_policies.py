"""Policies as the service keeps them: immutable revisions, and damage is a fault, never a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.harness import POLICY, FakeClock
from tests.unit.service.test_verdicts import attester
from verifier.errors import NotFoundError, PolicyError, StoredDataDamaged
from verifier.ports import PolicyRecord
from verifier.service.events import LocalEvents
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder


class PolicyStore:
    """The policy part of a store, in memory; counts its reads."""

    def __init__(self) -> None:
        self.current: dict[tuple[str, str], PolicyRecord] = {}
        self.reads = 0

    async def add_policy(self, policy: PolicyRecord) -> None:
        self.current[policy.tenant, policy.id] = policy

    async def current_policy(self, tenant: str, policy_id: str) -> PolicyRecord | None:
        self.reads += 1
        return self.current.get((tenant, policy_id))

    async def assign_policy(self, tenant: str, attester_id: str, policy_id: str | None) -> bool:
        return attester_id == "att-a"


@pytest.fixture
def store():
    return PolicyStore()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def policies(store, clock):
    return PolicyService(store, Recorder(store, LocalEvents()), clock, "secure-boot")


async def test_a_new_revision_judges_at_once(policies):
    await policies.register("default", POLICY.encode(), "t")
    first = await policies.for_attester(attester())
    await policies.register("default", POLICY.replace("10m", "20m").encode(), "t")
    second = await policies.for_attester(attester())
    assert first.revision != second.revision
    assert second.validity.total_seconds() == 1200


async def test_another_replicas_revision_judges_within_two_seconds(policies, store, clock):
    record = await policies.register("default", POLICY.encode(), "t")
    old = await policies.for_attester(attester())
    other = PolicyService(store, Recorder(store, LocalEvents()), clock, None)
    await other.register("default", POLICY.replace("10m", "20m").encode(), "t")
    assert (await policies.for_attester(attester())).revision == old.revision == record.revision
    clock.advance(seconds=2)
    assert (await policies.for_attester(attester())).revision != old.revision


async def test_a_clock_that_jumps_back_does_not_freeze_a_policy(policies, store, clock):
    await policies.register("default", POLICY.encode(), "t")
    await policies.for_attester(attester())
    clock.advance(hours=-5)
    reads = store.reads
    await policies.for_attester(attester())
    assert store.reads == reads + 1


async def test_an_attester_of_another_tenant_is_not_judged_by_this_ones_policy(policies):
    await policies.register("default", POLICY.encode(), "t")
    assert await policies.for_attester(attester(tenant="other")) is None
    assert await policies.for_attester(attester(policy_id="gone")) is None


@pytest.mark.parametrize("change", [{"source": POLICY + "# edited\n"}, {"source": "{}"}, {"revision": "00"}])
async def test_a_stored_policy_that_was_changed_is_a_fault(policies, store, change):
    record = await policies.register("default", POLICY.encode(), "t")
    store.current["default", "secure-boot"] = replace(record, **change)
    with pytest.raises(StoredDataDamaged):
        await policies.for_attester(attester())


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
