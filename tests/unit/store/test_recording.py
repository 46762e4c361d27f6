"""The plan of a batch: what it writes follows from what the transaction found, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from tests.contract.records import recording, sha256
from verifier.errors import NotFoundError
from verifier.ports import GuestIdentity
from verifier.store import recording as under_test
from verifier.store.recording import BlobPacker, Known, Spent, Step


def _prepared(*items):
    packer = BlobPacker()
    return [under_test.prepare(item, packer) for item in items]


def _known(**changes):
    return dataclasses.replace(Known("default", 0, "{}", frozenset()), **changes)


def test_sequences_follow_the_order_of_arrival_per_attester():
    batch = _prepared(recording("a"), recording("b"), recording("a"), recording("a"))
    plan = under_test.plan(
        batch, {"a": _known(sequence=7), "b": _known()}, {item.nonce_hash for item in batch}
    )
    assert plan.outcomes == [8, 1, 9, 10]
    assert plan.latest["a"]["b_sequence"] == 10
    assert len(plan.attestations) == 4


def test_a_nonce_twice_in_one_batch_is_spent_by_the_first():
    nonce = b"n" * 32
    batch = _prepared(recording("a", nonce_hash=nonce), recording("b", nonce_hash=nonce))
    found = {"a": _known(), "b": _known()}
    assert len(under_test.spendable(batch, found)) == 1
    assert under_test.spendable(batch, found)[0]["attester_id"] == "a"
    plan = under_test.plan(batch, found, {nonce})
    assert plan.outcomes == [1, Spent()]
    assert [row["attester_id"] for row in plan.attestations] == ["a"]


def test_a_refused_recording_writes_no_row_of_any_kind():
    batch = _prepared(recording("a"), recording("stranger"), recording("a", tenant="other"))
    found = {"a": _known()}
    assert under_test.spendable(batch, found) == [batch[0].nonce]
    plan = under_test.plan(batch, found, set())
    assert plan.outcomes[0] == Spent()
    assert [type(outcome) for outcome in plan.outcomes[1:]] == [NotFoundError, NotFoundError]
    assert list(plan.rows()) == []


def test_shared_rows_come_once_and_in_one_order():
    batch = _prepared(*(recording("a", boot_log=b"log %d" % (n % 3)) for n in range(20)))
    plan = under_test.plan(batch, {"a": _known()}, {item.nonce_hash for item in batch})
    written = dict(plan.rows())
    for step, key in ((Step.BLOBS, "digest"), (Step.TOUCHED_BLOBS, "b_digest"), (Step.JUDGEMENTS, "digest")):
        digests = [row[key] for row in written[step]]
        assert digests == sorted(set(digests))
    assert len(written[Step.JUDGEMENTS]) == 1
    assert sum(row["digest"] == sha256(b"log 0") for row in written[Step.BLOBS]) == 1


def test_what_is_referred_to_is_written_first():
    order = list(Step)
    assert order.index(Step.JUDGEMENTS) < order.index(Step.ATTESTATIONS) < order.index(Step.LATEST)
    # A blob that a purge is about to drop is locked by the touch, or gone before the insert looks for it.
    assert order.index(Step.TOUCHED_BLOBS) < order.index(Step.BLOBS)


def test_an_unchanged_identity_writes_nothing():
    said = GuestIdentity(hostname="h", smbios_uuid="u")
    (item,) = _prepared(recording("a", identity=said))
    plan = under_test.plan(
        [item], {"a": _known(identity_text=item.identity_text, uuids=frozenset("u"))}, {item.nonce_hash}
    )
    assert not plan.identities
    assert not plan.uuids


def test_a_long_claim_is_a_short_key():
    assert under_test.uuid_key(" 4C4C-AB ") == "4c4c-ab"
    assert len(under_test.uuid_key("x" * 1000)) == 64
    assert under_test.uuid_key("x" * 1000) != under_test.uuid_key("x" * 1001)


def test_the_packer_forgets_the_oldest():
    packer = BlobPacker(remembered=2)
    first = packer.pack(sha256(b"1"), b"1")
    assert packer.pack(sha256(b"1"), b"1") is first
    for content in (b"2", b"3"):
        packer.pack(sha256(content), content)
    assert packer.pack(sha256(b"1"), b"1") is not first


def test_a_finding_that_is_no_json_is_the_callers_bug():
    item = recording("a")
    broken = dataclasses.replace(item, verdict=dataclasses.replace(item.verdict, findings=({"x": object()},)))
    with pytest.raises(TypeError):
        under_test.prepare(broken, BlobPacker())
