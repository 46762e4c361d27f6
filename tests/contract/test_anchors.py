"""Trust anchors in every Store: immutable sets, and names that stand for them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import update

from tests.contract.records import NOW
from verifier.errors import StoredDataDamaged
from verifier.ports_enrollment import AuditEntry
from verifier.ports_trust import AnchorAssignment, AnchorPurpose, AnchorSetRecord
from verifier.store.schema import anchor_set

LATER = NOW + timedelta(hours=1)


def held(content: bytes, **changes) -> AnchorSetRecord:
    made = AnchorSetRecord(
        tenant="default", digest=hashlib.sha256(content).digest(), content=content, created_at=NOW
    )
    return dataclasses.replace(made, **changes)


def named(record: AnchorSetRecord, name: str = "vmca-dc1", **changes) -> AnchorAssignment:
    made = AnchorAssignment(
        tenant=record.tenant,
        name=name,
        digest=record.digest,
        purposes=frozenset({AnchorPurpose.EK}),
        source="download.zip",
        assigned_at=NOW,
        assigned_by="tok-1",
    )
    return dataclasses.replace(made, **changes)


def entry(action: str = "anchors.assigned", subject: str = "vmca-dc1", **changes) -> AuditEntry:
    made = AuditEntry(tenant="default", at=NOW, actor="cli", action=action, subject=subject, reason="")
    return dataclasses.replace(made, **changes)


async def audit(store) -> list[str]:
    """Actions, oldest first."""
    entries = await store.list_audit("default", subject=None, before=None, limit=100)
    return [one.action for one in reversed(entries)]


async def test_a_set_is_read_as_it_was_assigned(store):
    record = held(b"certificates" * 1000)
    purposes = frozenset({AnchorPurpose.AK, AnchorPurpose.EK})
    assignment = named(record, purposes=purposes)
    assert await store.assign_anchors(record, assignment, entry())
    assert await store.anchor_assignments("default") == (assignment,)
    assert await store.anchor_set("default", record.digest) == record


async def test_a_name_stands_for_one_set_and_the_set_before_stays_on_record(store):
    old, new = held(b"old"), held(b"new", created_at=LATER)
    await store.assign_anchors(old, named(old), entry())
    replacement = named(new, assigned_at=LATER, assigned_by="cli")
    await store.assign_anchors(new, replacement, entry())
    assert await store.anchor_assignments("default") == (replacement,)
    assert await store.anchor_set("default", old.digest) == old


async def test_assigning_a_known_set_again_keeps_when_it_was_made(store):
    record = held(b"same")
    await store.assign_anchors(record, named(record), entry())
    await store.assign_anchors(dataclasses.replace(record, created_at=LATER), named(record, "other"), entry())
    assert [one.name for one in await store.anchor_assignments("default")] == ["other", "vmca-dc1"]
    assert await store.anchor_set("default", record.digest) == record


async def test_a_change_of_what_is_no_longer_there_changes_nothing(store):
    first, second, third = held(b"1"), held(b"2"), held(b"3")
    await store.assign_anchors(first, named(first), entry())
    assert not await store.assign_anchors(third, named(third), entry(), instead_of=second.digest)
    assert not await store.assign_anchors(third, named(third, "unknown"), entry(), instead_of=second.digest)
    assert await store.anchor_assignments("default") == (named(first),)
    assert await store.assign_anchors(second, named(second), entry(), instead_of=first.digest)
    assert not await store.unassign_anchors(
        "default", "vmca-dc1", entry("anchors.removed"), instead_of=first.digest
    )
    assert await store.unassign_anchors(
        "default", "vmca-dc1", entry("anchors.removed"), instead_of=second.digest
    )
    assert not await store.unassign_anchors("default", "vmca-dc1", entry("anchors.removed"))
    assert await store.anchor_assignments("default") == ()


async def test_of_two_that_replace_one_set_at_once_one_does(store):
    base, *others = [held(b"%d" % number) for number in range(9)]
    await store.assign_anchors(base, named(base), entry())
    done = await asyncio.gather(
        *(store.assign_anchors(one, named(one), entry(), instead_of=base.digest) for one in others)
    )
    assert sum(done) == 1
    (assignment,) = await store.anchor_assignments("default")
    assert assignment.digest == others[done.index(True)].digest


async def test_another_tenants_anchors_do_not_exist(store):
    record = held(b"theirs", tenant="other")
    await store.assign_anchors(record, named(record), entry())
    assert await store.anchor_assignments("default") == ()
    assert await store.anchor_set("default", record.digest) is None
    assert not await store.unassign_anchors("default", "vmca-dc1", entry("anchors.removed"))


async def test_a_set_that_was_changed_in_the_database_is_named_and_not_trusted(store):
    record = held(b"genuine")
    await store.assign_anchors(record, named(record), entry())
    await store._change(update(anchor_set).values(content=b"forged!"))
    with pytest.raises(StoredDataDamaged, match=record.digest.hex()):
        await store.anchor_set("default", record.digest)


async def test_every_change_and_nothing_else_is_in_the_audit_log(store):
    first, second = held(b"1"), held(b"2")
    await store.assign_anchors(first, named(first), entry("first"))
    await store.assign_anchors(second, named(second), entry("lost"), instead_of=second.digest)
    await store.assign_anchors(second, named(second), entry("second"), instead_of=first.digest)
    await store.unassign_anchors("default", "vmca-dc1", entry("lost"), instead_of=first.digest)
    await store.unassign_anchors("default", "vmca-dc1", entry("removed"))
    await store.unassign_anchors("default", "vmca-dc1", entry("lost"))
    assert await audit(store) == ["first", "second", "removed"]


async def test_an_alarm_is_raised_once_by_whoever_comes_first(store):
    raised = await asyncio.gather(
        *(store.raise_alarm("anchor:lab:00", 30, entry("expiry.near")) for _ in range(8))
    )
    assert sum(raised) == 1
    assert not await store.raise_alarm("anchor:lab:00", 30, entry("expiry.near", at=LATER))
    assert await store.raise_alarm("anchor:lab:00", 7, entry("expiry.near"))
    assert await store.raise_alarm("anchor:lab:01", 30, entry("expiry.near"))
    assert await store.raise_alarm("anchor:lab:00", 30, entry("expiry.near", tenant="other"))
    assert await audit(store) == ["expiry.near"] * 3
