"""The transparency log: every verdict and every entry of the audit log is one leaf, whoever writes at the same time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tests.contract.records import MINUTE, NOW, enrol, enrollment, policy, recording, token
from tests.contract.records import audit_entry as entry
from verifier.ports import Scope
from verifier.reasons import Tier
from verifier.service import audit_entries
from verifier.store import audit_log, log_batches
from verifier.store.schema import attestation, audit
from verifier.store.schema_log import log_batch
from verifier.transparency.entries import audit_entry, verdict_entry
from verifier.transparency.merkle import leaf_hash


async def rows(store, table):
    return await store._backend.write(
        lambda connection: [dict(row) for row in connection.execute(select(table)).mappings()]
    )


async def leaves_of(store):
    """Hash of each leaf by batch and place, as it waits for its index."""
    return {
        (one["id"], place): one["leaves"][32 * place : 32 * (place + 1)]
        for one in await rows(store, log_batch)
        for place in range(one["leaf_count"])
    }


async def hashed_rows(store):
    """The same, from the rows alone."""
    made = [(row, verdict_entry(row)) for row in await rows(store, attestation)]
    made += [(row, audit_entry(row)) for row in await rows(store, audit)]
    return {(row["log_batch"], row["log_place"]): leaf_hash(data) for row, data in made}


async def every_row_is_one_leaf(store, count):
    leaves = await leaves_of(store)
    assert leaves == await hashed_rows(store)
    assert len(leaves) == len(await rows(store, attestation)) + len(await rows(store, audit)) == count


async def test_every_verdict_and_every_entry_is_a_leaf_made_of_its_row(store):
    for attester_id in ("att-1", "att-2"):
        await enrol(store, attester_id)
    done = await asyncio.gather(*(store.record(recording(f"att-{1 + n % 2}")) for n in range(20)))
    assert all(done)
    await store.add_audit(entry())
    await every_row_is_one_leaf(store, 2 + 20 + 1)


async def test_what_is_judged_again_is_a_leaf_beside_its_entry(store):
    for attester_id in ("att-1", "att-2"):
        await enrol(store, attester_id)
        verdict = await store.record(recording(attester_id))
    again = structs.replace(verdict, tier=Tier.WARNING, rejudged_at=NOW + MINUTE)
    assert None not in await store.rejudge([again], entry(action="policy.rejudged"))
    await every_row_is_one_leaf(store, 2 + 2 + 1 + 1)
    (together,) = [one for one in await rows(store, log_batch) if one["leaf_count"] == 2]
    assert together["lasting"]


async def test_two_replicas_write_leaves_at_once(database):
    first, second = await database.open(), await database.open()
    for number in range(4):
        await enrol(first, f"att-{number}")

    async def work(store, number):
        await store.record(recording(f"att-{number % 4}"))
        await store.add_audit(entry(subject=f"x-{number}"))

    await asyncio.gather(*(work((first, second)[number % 2], number) for number in range(40)))
    await every_row_is_one_leaf(first, 4 + 2 * 40)


async def test_what_is_undone_leaves_no_leaf(store):
    await enrol(store, "att-1")
    before = await leaves_of(store)
    spent = recording("att-1")
    await store.record(spent)
    assert await store.record(spent) is None
    await store.add_token(token(id="tok-9"), entry())
    for again in range(2):
        with pytest.raises(IntegrityError):
            await store.add_token(token(id="tok-9"), entry(subject=f"again-{again}"))
    assert len(await leaves_of(store)) == len(before) + 2
    await every_row_is_one_leaf(store, len(before) + 2)


async def test_an_entry_whose_change_failed_is_in_nobody_elses_batch(store):
    def fails(connection):
        audit_log.append(connection, entry(subject="never"))
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await store._backend.write(fails)
        await store.add_audit(entry(subject="done"))
    await every_row_is_one_leaf(store, 2)


async def test_an_id_that_two_writers_made_is_made_again(postgresql_database, monkeypatch):
    first, second = await postgresql_database.open(), await postgresql_database.open()
    await enrol(first, "att-1")
    taken = (await rows(first, log_batch))[0]["id"]
    for module in ("log_batches", "postgresql_hot"):
        made = iter([taken, *range(taken + 1, taken + 9)])
        monkeypatch.setattr(f"verifier.store.{module}.new_id", lambda made=made: next(made))
    await second.add_audit(entry())
    monkeypatch.setattr("verifier.store.log_batches.new_id", lambda: 7)
    assert (await second.record(recording("att-1"))).sequence == 1
    await every_row_is_one_leaf(first, 3)


async def test_tokens_are_in_the_audit_log_from_their_making_to_their_end(store):
    made = token(scopes=frozenset({Scope.JOIN}), uses_left=2, expires_at=NOW + timedelta(hours=1))
    await store.add_token(made, audit_entries.token_created(made, "cli"))
    for number in range(3):
        asked = enrollment(id=f"enr-{number}", token_id=made.id)
        await store.add_enrollment(asked, spends=True)
    revoked = audit_entries.token_revoked("default", made.id, NOW, "tok-2")
    for _ in range(2):
        assert await store.revoke_token("default", made.id, NOW, revoked)
    found = await store.list_audit("default", subject=made.id, before=None, limit=9)
    assert [(one.action, one.actor) for one in reversed(found)] == [
        ("token.created", "cli"),
        ("token.used-up", made.id),
        ("token.revoked", "tok-2"),
    ]
    detail = found[-1].detail
    assert detail["scopes"] == ["join"]
    assert detail["uses"] == 2
    assert detail["secret_hash_sha256"] not in (made.secret_hash.hex(), None)
    await every_row_is_one_leaf(store, 3)


async def test_policies_are_in_the_audit_log_with_what_they_were_made_of(store):
    first, second = policy(revision="a" * 64), policy(revision="b" * 64)
    signed = policy(revision="a" * 64, source="the same, signed by somebody else")
    for one, current in ((first, True), (first, True), (second, False), (second, True), (signed, False)):
        await store.add_policy(one, audit_entries.policy_added(one, "tok-1"), current=current)
    found = await store.list_audit("default", subject=first.id, before=None, limit=9)
    assert [(one.detail["revision"][0], one.detail["current"]) for one in reversed(found)] == [
        ("a", True), ("b", False), ("b", True), ("a", False),
    ]  # fmt: skip
    assert found[0].detail["source_sha256"] != found[-1].detail["source_sha256"]


def test_ids_of_batches_go_with_time():
    assert log_batches.made_at(log_batches.id_at(123)) == 123
    first, second = log_batches.new_id(), log_batches.new_id()
    assert log_batches.made_at(first) <= log_batches.made_at(second)
    assert second < 1 << 63
