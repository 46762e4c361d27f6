"""Assignments as the service keeps them: who is judged by what, and how a revision is rolled out."""

from __future__ import annotations

import pytest

from tests.harness import POLICY, FakeClock
from tests.unit.service.policy_store import PolicyStore
from tests.unit.service.test_verdicts import attester
from verifier.errors import EvidenceError, NotFoundError, StoredDataDamaged
from verifier.policy.assignment import Mode, Origin
from verifier.service.assignments import AssignCommand, AssignmentService
from verifier.service.events import LocalEvents
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder

PROD = {"env": "prod"}
WEB = {"env": "prod", "tier": "web"}
NEXT = POLICY.replace("10m", "20m")


class Setup:
    """One replica on a store."""

    def __init__(self, store, clock, default: str | None = None) -> None:
        recorder = Recorder(store, LocalEvents())
        self.policies = PolicyService(store, recorder, clock)
        self.service = AssignmentService(
            store=store, recorder=recorder, policies=self.policies, clock=clock, default_policy=default
        )

    async def register(self, source=POLICY, **options) -> str:
        return (await self.policies.register("default", source.encode(), "t", **options)).revision

    async def put(self, mode=Mode.ENFORCE, selector=PROD, *, revision=None, policy="secure-boot", priority=0):
        command = AssignCommand(
            policy_id=policy, revision=revision, mode=mode, priority=priority, selector=selector
        )
        return await self.service.put("default", command, "t")

    async def judging(self, labels=PROD, **changes):
        found = await self.service.for_attester(attester(labels=labels, **changes))
        primary = None if found.primary is None else found.primary.revision
        return primary, [(each.policy.revision, each.mode) for each in found.staged]


@pytest.fixture
def store():
    return PolicyStore()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def setup(store, clock):
    return Setup(store, clock)


async def test_a_rollout_goes_from_observe_to_enforce_without_moving_anyone_else(setup):
    first = await setup.register()
    await setup.put(selector={})
    second = await setup.register(NEXT, current=False)
    await setup.put(Mode.OBSERVE, revision=second)
    assert await setup.judging() == (first, [(second, Mode.OBSERVE)])
    await setup.put(Mode.WARN, revision=second)
    assert await setup.judging() == (first, [(second, Mode.WARN)])
    await setup.put(Mode.ENFORCE, revision=second)
    assert await setup.judging() == (second, [])
    assert await setup.judging({"env": "test"}) == (first, [])
    assert [each.mode for each in await setup.service.list("default")] == [Mode.ENFORCE, Mode.ENFORCE]


async def test_going_back_to_trying_a_revision_stops_enforcing_it(setup):
    revision = await setup.register()
    await setup.put(Mode.ENFORCE, revision=revision)
    await setup.put(Mode.OBSERVE, revision=revision)
    assert await setup.judging() == (None, [(revision, Mode.OBSERVE)])


async def test_trying_the_next_revision_leaves_the_enforced_one_of_the_same_selector(setup):
    first = await setup.register()
    second = await setup.register(NEXT, current=False)
    await setup.put(revision=first)
    await setup.put(Mode.WARN, revision=second)
    assert await setup.judging() == (first, [(second, Mode.WARN)])


async def test_putting_the_same_again_changes_it_and_its_id_follows_from_what_it_is_about(setup):
    await setup.register()
    one = await setup.put(Mode.OBSERVE, {"b": "2", "a": "1"}, priority=1)
    two = await setup.put(Mode.WARN, {"a": "1", "b": "2"}, priority=2)
    assert one.id == two.id
    (left,) = await setup.service.list("default")
    assert (left.mode, left.priority) == (Mode.WARN, 2)
    assert (await setup.put(Mode.OBSERVE, {"a": "1"})).id != one.id


async def test_the_default_judges_whom_nothing_else_does(store, clock):
    setup = Setup(store, clock, default="secure-boot")
    revision = await setup.register()
    assert await setup.judging({}) == (revision, [])
    assert (await setup.service.resolution(attester())).origin is Origin.DEFAULT
    assert await setup.judging({}, policy_id="gone") == (None, [])


async def test_a_pinned_and_a_followed_assignment_of_one_revision_try_it_once(setup):
    revision = await setup.register()
    await setup.put(Mode.OBSERVE, PROD, revision=revision, priority=5)
    await setup.put(Mode.WARN, WEB)
    assert await setup.judging(WEB) == (None, [(revision, Mode.WARN)])
    await setup.put(Mode.ENFORCE, {})
    assert await setup.judging(WEB) == (revision, [])


async def test_another_replicas_assignment_judges_within_two_seconds(setup, store, clock):
    revision = await setup.register()
    assert await setup.judging() == (None, [])
    other = Setup(store, clock)
    made = await other.put()
    assert await setup.judging() == (None, [])
    clock.advance(seconds=2)
    assert await setup.judging() == (revision, [])
    await setup.service.remove("default", made.id, "t")
    assert await setup.judging() == (None, [])
    reads = store.reads
    clock.advance(hours=-1)
    await setup.judging()
    assert store.reads > reads


async def test_what_does_not_exist_cannot_be_assigned_or_removed(setup):
    await setup.register()
    for wrong in ({"policy": "gone"}, {"revision": "00" * 32}, {"policy": "gone", "revision": "00" * 32}):
        with pytest.raises(NotFoundError):
            await setup.put(**wrong)
    with pytest.raises(NotFoundError):
        await setup.service.remove("default", "asg-gone", "t")
    assert await setup.service.list("default") == ()


async def test_a_selector_nobody_could_match_is_refused(setup):
    await setup.register()
    for selector in ({"a,b": "c"}, {str(n): "x" for n in range(17)}):
        with pytest.raises(EvidenceError):
            await setup.put(selector=selector)


async def test_a_damaged_policy_that_is_only_tried_is_a_fault_too(setup, store):
    revision = await setup.register()
    await setup.put(Mode.OBSERVE, revision=revision)
    key = ("default", "secure-boot", revision)
    object.__setattr__(store.revisions[key], "source", POLICY + "# edited\n")
    with pytest.raises(StoredDataDamaged):
        await setup.judging()


async def test_an_attester_of_another_tenant_is_judged_by_nothing_of_this_one(setup):
    await setup.register()
    await setup.put(selector={})
    assert await setup.judging({}, tenant="other") == (None, [])


async def test_each_mix_of_labels_and_own_policy_is_judged_by_its_own_and_changes_count_when_read_again(
    setup, clock
):
    first, second = await setup.register(), await setup.register(NEXT, current=False)
    await setup.put(revision=first)
    await setup.put(revision=second, selector=WEB, priority=1)
    for _ in range(2):  # what the first round came to answers the second
        assert (await setup.judging(PROD))[0] == first
        assert (await setup.judging(WEB))[0] == second
        assert (await setup.judging({}))[0] is None
        assert (await setup.judging({}, policy_id="secure-boot"))[0] == first
        assert (await setup.judging({"tier": "web", "env": "prod"}))[0] == second
    clock.advance(seconds=3)
    assert (await setup.judging(WEB))[0] == second
    await setup.put(revision=first, selector=WEB, priority=1)
    assert (await setup.judging(WEB))[0] == first
