"""Assignments and revisions beside the current one, on every Store."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.contract.records import MINUTE, NOW, audit_entry, policy, sha256
from verifier.errors import EvidenceError
from verifier.policy.assignment import Assignment, Mode
from verifier.store.assignments import MAX_ASSIGNMENTS

OTHER = "other-tenant"


def assigned(key="asg-1", **changes) -> Assignment:
    made = Assignment(
        id=key,
        policy_id="strict",
        revision=sha256(b"1").hex(),
        mode=Mode.OBSERVE,
        priority=-3,
        selector={"tier": "web", "env": "prod \u201cblue\u201d"},
        changed_at=NOW,
    )
    return dataclasses.replace(made, **changes)


class TestAssignments:
    async def test_as_it_was_put_and_of_its_tenant_only(self, store):
        added = (
            assigned(),
            assigned("asg-2", revision=None, selector={}, mode=Mode.ENFORCE, priority=2**31 - 1),
        )
        for each in added:
            await store.put_assignment("default", each, audit_entry())
        assert await store.list_assignments("default") == added[::-1]
        assert await store.list_assignments(OTHER) == ()
        assert not await store.remove_assignment(OTHER, "asg-1", audit_entry())
        await store.put_assignment(OTHER, assigned(priority=7), audit_entry())
        assert (await store.list_assignments("default"))[1] == added[0]

    async def test_putting_again_changes_it_and_removing_removes_it_once(self, store):
        await store.put_assignment("default", assigned(), audit_entry())
        changed = assigned(mode=Mode.WARN, priority=4, revision=None, changed_at=NOW + MINUTE)
        await store.put_assignment("default", changed, audit_entry())
        assert await store.list_assignments("default") == (changed,)
        assert await store.remove_assignment("default", "asg-1", audit_entry())
        assert not await store.remove_assignment("default", "asg-1", audit_entry())
        assert await store.list_assignments("default") == ()

    async def test_what_it_replaces_goes_with_it_or_not_at_all(self, store, monkeypatch):
        await store.put_assignment("default", assigned("asg-staged"), audit_entry())
        await store.put_assignment(OTHER, assigned("asg-staged"), audit_entry())
        monkeypatch.setattr("verifier.store.assignments.MAX_ASSIGNMENTS", 0)
        with pytest.raises(EvidenceError):
            await store.put_assignment(
                "default", assigned("asg-new"), audit_entry(), replacing=["asg-staged"]
            )
        assert [each.id for each in await store.list_assignments("default")] == ["asg-staged"]
        monkeypatch.setattr("verifier.store.assignments.MAX_ASSIGNMENTS", 1)
        await store.put_assignment(
            "default", assigned("asg-new"), audit_entry(), replacing=["asg-staged", "asg-unknown"]
        )
        assert [each.id for each in await store.list_assignments("default")] == ["asg-new"]
        assert len(await store.list_assignments(OTHER)) == 1

    async def test_there_are_only_so_many_but_those_there_are_can_be_changed(self, store):
        for number in range(MAX_ASSIGNMENTS):
            await store.put_assignment("default", assigned(f"asg-{number}"), audit_entry())
        with pytest.raises(EvidenceError, match=str(MAX_ASSIGNMENTS)):
            await store.put_assignment("default", assigned("asg-more"), audit_entry())
        await store.put_assignment("default", assigned("asg-7", mode=Mode.WARN), audit_entry())
        assert len(await store.list_assignments("default")) == MAX_ASSIGNMENTS

    async def test_the_audit_log_has_what_was_done_and_nothing_that_was_not(self, store, monkeypatch):
        put, gone = (audit_entry(action=name, subject="asg-1") for name in ("put", "removed"))
        await store.put_assignment("default", assigned(), put)
        monkeypatch.setattr("verifier.store.assignments.MAX_ASSIGNMENTS", 1)
        with pytest.raises(EvidenceError):
            await store.put_assignment("default", assigned("asg-2"), audit_entry(subject="asg-2"))
        assert not await store.remove_assignment("default", "asg-2", audit_entry(subject="asg-2"))
        assert await store.remove_assignment("default", "asg-1", gone)
        kept = await store.list_audit("default", subject=None, before=None, limit=9)
        assert [(entry.action, entry.subject) for entry in kept] == [("removed", "asg-1"), ("put", "asg-1")]

    async def test_two_replicas_that_put_the_same_one_leave_one(self, database):
        one, two = await database.open(), await database.open()
        await asyncio.gather(
            *(
                (one, two)[n % 2].put_assignment("default", assigned(priority=n), audit_entry())
                for n in range(10)
            )
        )
        (left,) = await one.list_assignments("default")
        assert 0 <= left.priority < 10


class TestRevisions:
    async def test_a_revision_kept_beside_does_not_become_current(self, store):
        current, beside, third = (policy(revision=sha256(b"%d" % n).hex(), source=f"{n}") for n in range(3))
        await store.add_policy(current)
        for each in (beside, third, beside):
            await store.add_policy(each, current=False)
        assert await store.current_policy("default", "strict") == current
        assert await store.list_policies("default") == (current,)
        assert await store.policy_revision("default", "strict", beside.revision) == beside
        assert await store.policy_revisions("default", "strict") == (current, beside, third)

    async def test_the_first_revision_of_an_id_is_current_however_it_came(self, store):
        first, second = policy(), policy(revision=sha256(b"2").hex())
        await store.add_policy(first, current=False)
        await store.add_policy(second, current=False)
        assert await store.current_policy("default", "strict") == first

    async def test_a_revision_kept_beside_can_be_made_current_and_the_old_one_again(self, store):
        first, second = policy(), policy(revision=sha256(b"2").hex())
        await store.add_policy(first)
        await store.add_policy(second, current=False)
        await store.add_policy(second)
        assert await store.current_policy("default", "strict") == second
        await store.add_policy(first, current=False)
        assert await store.current_policy("default", "strict") == second
        await store.add_policy(first)
        assert await store.current_policy("default", "strict") == first

    async def test_a_revision_is_its_tenants_and_its_ids(self, store):
        first = policy()
        await store.add_policy(first)
        assert await store.policy_revision(OTHER, "strict", first.revision) is None
        assert await store.policy_revision("default", "other", first.revision) is None
        assert await store.policy_revision("default", "strict", "00") is None
        assert await store.policy_revisions(OTHER, "strict") == ()
