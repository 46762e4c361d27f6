"""Verdicts that were judged again replace the one they were made from, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy import func, select, update

from tests.contract.records import MINUTE, NOW, audit_entry, enrol, recording, sha256
from verifier.errors import StateMovedError
from verifier.ports_events import EventKind
from verifier.reasons import Tier
from verifier.store.schema import attestation, audit, judgement, latest
from verifier.store.schema_events import event

LATER = NOW + 3 * MINUTE
ACT = audit_entry(action="policy.rejudged", subject="strict", reason="new revision", at=LATER)


def again(record, **changes):
    """The verdict as another policy has it."""
    made = {
        "tier": Tier.WARNING,
        "policy_revision": "cd" * 32,
        "rejudged_at": LATER,
        "findings": (
            {"code": "pcr-mismatch", "status": "failed", "severity": "warning", "message": "PCR 4"},
        ),
        "vector": {"executables": 33},
    }
    return structs.replace(record, **made | changes)


async def judged(store, *ids, **changes):
    """Enrolled attesters with a verdict each; the verdicts."""
    found = []
    for attester_id in ids:
        await enrol(store, attester_id)
        found.append(await store.record(recording(attester_id, **changes)))
    return found


async def whole(store, attester_id):
    return await store.attester_state(attester_id)


async def count(store, table):
    ((found,),) = await store._backend.rows(select(func.count()).select_from(table))
    return found


async def test_the_new_verdict_is_the_latest_and_names_the_same_evidence(store):
    (first,) = await judged(store, "att-1")
    before = await whole(store, "att-1")
    (stored,) = await store.rejudge([again(first)], ACT)
    after = await whole(store, "att-1")
    assert stored == again(first, sequence=2)
    assert after.latest == stored
    assert (after.latest.judged_at, after.latest.rejudged_at) == (NOW, LATER)
    assert structs.replace(after, latest=None) == structs.replace(before, latest=None)
    evidence = [await store.evidence_of("default", "att-1", sequence) for sequence in (1, 2)]
    assert evidence[0] == evidence[1] is not None
    assert await store.history("default", "att-1", before=None, limit=10) == (stored, first)


async def test_open_challenges_stay_good_and_the_next_attestation_follows(store):
    (first,) = await judged(store, "att-1")
    judged_before = structs.replace(recording("att-1", at=LATER), position=1)
    await store.rejudge([again(first)], ACT)
    following = await store.record(judged_before)
    assert following.sequence == 3
    state = await whole(store, "att-1")
    assert (state.position, state.latest.rejudged_at, state.latest.judged_at) == (2, None, LATER)
    with pytest.raises(StateMovedError):
        await store.record(structs.replace(recording("att-1"), position=1))


async def test_trust_never_ends_later_than_before(store):
    longer, shorter = await judged(store, "att-1", "att-2")
    end = longer.valid_until
    changed = [
        again(longer, valid_until=end + 60 * MINUTE),
        again(shorter, valid_until=end - MINUTE),
    ]
    stored = await store.rejudge(changed, ACT)
    assert [one.valid_until for one in stored] == [end, end - MINUTE]
    assert [(await whole(store, one)).latest.valid_until for one in ("att-1", "att-2")] == [end, end - MINUTE]


async def test_what_moved_meanwhile_is_left_as_it_is(store):
    moved, same, revoked, other = await judged(store, "att-1", "att-2", "att-3", "att-4")
    newer = await store.record(recording("att-1", at=LATER))
    await store.revoke_attester("default", "att-3", LATER)
    asked = [again(moved), again(same), again(revoked), again(other, evidence_sha256=sha256(b"other"))]
    unknown = again(same, attester_id="att-9")
    stored = await store.rejudge([*asked, unknown, again(same, attester_id="att-8", tenant="x")], ACT)
    assert [one is not None for one in stored] == [False, True, False, False, False, False]
    assert (await whole(store, "att-1")).latest == newer
    assert (await whole(store, "att-3")).latest == revoked
    assert (await whole(store, "att-4")).latest == other
    assert await count(store, attestation) == 6


async def test_a_verdict_is_replaced_once(store):
    (first,) = await judged(store, "att-1")
    (second,) = await store.rejudge([again(first)], ACT)
    assert await store.rejudge([again(first, tier=Tier.NONE)], ACT) == (None,)
    assert (await whole(store, "att-1")).latest == second


async def test_what_is_being_stored_is_waited_for(postgresql_database):
    """Another replica's transaction has not ended: what it stores counts, not what is there before."""
    one, two = await postgresql_database.open(), await postgresql_database.open()
    (first,) = await judged(one, "att-1")
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(connection):
        connection.execute(update(latest).values(policy_id="newer", lifecycle="revoked"))
        loop.call_soon(held.set)
        connection.execute(select(func.pg_sleep(0.5)))

    slow = asyncio.create_task(two._backend.write(slowly))
    await held.wait()
    assert await one.rejudge([again(first)], ACT) == (None,)
    await slow
    assert await count(one, attestation) == 1


async def test_evidence_of_a_silent_attester_is_kept_after_it_was_judged_again(store):
    (old,) = await judged(store, "att-1", at=NOW - timedelta(days=400))
    (stored,) = await store.rejudge([again(old)], ACT)
    assert stored is not None
    assert await store.purge_evidence(NOW) == 0
    named = await store.evidence_of("default", "att-1", 2)
    for digest in named.values():
        assert await store.blob(bytes.fromhex(digest)) is not None


async def test_another_tenants_attester_is_none_of_ours(store):
    await enrol(store, "att-1", tenant="them")
    theirs = await store.record(recording("att-1", tenant="them"))
    assert await store.rejudge([again(theirs, tenant="default")], ACT) == (None,)
    assert (await whole(store, "att-1")).latest == theirs


async def test_a_changed_tier_is_an_event_and_the_act_one_entry(store):
    first, second = await judged(store, "att-1", "att-2")
    events = await count(store, event)
    await store.rejudge([again(first), again(second, tier=second.tier)], ACT)
    ((kind, subject, tier, data, at),) = await store._backend.rows(
        select(event.c.kind, event.c.subject, event.c.tier, event.c.data, event.c.at)
        .order_by(event.c.sequence)
        .offset(events)
    )
    assert (kind, subject, tier) == (EventKind.VERDICT_CHANGED, "att-1", Tier.WARNING)
    assert '"rejudged":true' in data.replace(" ", "")
    assert '"pcr-mismatch"' in data
    assert at == int(LATER.timestamp() * 1_000_000)
    entries = await store.list_audit("default", subject="strict", before=None, limit=10)
    assert [(one.action, one.reason, one.actor) for one in entries] == [
        ("policy.rejudged", "new revision", "tok-1")
    ]


async def test_a_fault_stores_nothing_at_all(store):
    first, second = await judged(store, "att-1", "att-2")
    rows = [await count(store, table) for table in (attestation, judgement, audit, event)]
    untellable = dataclasses.replace(ACT, detail={"page": object()})
    for wrong, act, error in (
        (again(second, rejudged_at=None), ACT, ValueError),
        (again(first), ACT, ValueError),
        (again(second), untellable, TypeError),  # when all rows are written already
    ):
        with pytest.raises(error):
            await store.rejudge([again(first), wrong], act)
    assert [await count(store, table) for table in (attestation, judgement, audit, event)] == rows


async def test_verdicts_are_replaced_while_their_attesters_attest(database):
    """Two replicas: whoever comes second sees the other's verdict; every sequence is given once, nobody waits in a circle."""
    one, two = await database.open(), await database.open()
    ids = [f"att-{number:02}" for number in range(40)]
    firsts = await judged(one, *ids)
    attesting = [two.record(structs.replace(recording(key, at=LATER), position=1)) for key in reversed(ids)]
    results = await asyncio.gather(
        one.rejudge([again(first) for first in firsts], ACT),
        one.rejudge([again(first, tier=Tier.NONE) for first in reversed(firsts)], ACT),
        *attesting,
    )
    for key in ids:
        history = await two.history("default", key, before=None, limit=10)
        sequences = [record.sequence for record in history]
        assert sequences == list(range(len(history), 0, -1))
        (fresh,) = [record for record in history if record.judged_at == LATER]
        again_ = [record for record in history if record.rejudged_at is not None]
        assert len(again_) <= 1
        # What was judged of older evidence never stands after what the attester proved since.
        assert all(record.sequence < fresh.sequence for record in again_)
        assert (await two.attester_state(key)).latest == fresh
    replaced = [record for page in results[:2] for record in page if record is not None]
    stored = await count(one, attestation)
    assert stored == 2 * len(ids) + len(replaced)
    ((positions,),) = await one._backend.rows(select(func.sum(latest.c.position)))
    assert positions == 2 * len(ids)
