"""The plan of a batch: what it writes follows from what the transaction found, and nothing else."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from msgspec import structs

from tests.contract.records import CLOCK, NOW, recording, sha256
from verifier.appraisal.lineage import Incident, IncidentKind, Lineage
from verifier.errors import NotFoundError
from verifier.ports import AttesterRecord, AttesterState, GuestIdentity
from verifier.ports_ima import ImaPiece
from verifier.reasons import Tier
from verifier.store import recording as under_test
from verifier.store.held import Held
from verifier.store.identities import uuid_key
from verifier.store.judgements import Judgements
from verifier.store.leaves import LogBatch
from verifier.store.recording import Known, Spent, Step


def _prepared(*items):
    said = Judgements()
    return [under_test.prepare(item, said) for item in items]


def _known(**changes):
    return dataclasses.replace(Known("default", 0, "{}", "[]"), **changes)


def test_sequences_follow_the_order_of_arrival_per_attester():
    batch = _prepared(recording("a"), recording("b"), recording("a"), recording("a"))
    plan = under_test.plan(
        batch,
        {"a": _known(sequence=7), "b": _known()},
        {item.nonce_hash for item in batch},
        Held(),
        LogBatch(1),
    )
    assert plan.outcomes == [8, 1, 9, 10]
    assert plan.latest["a"]["sequence"] == 10
    assert len(plan.attestations) == 4


def test_a_nonce_twice_in_one_batch_is_spent_by_the_first():
    nonce = b"n" * 32
    batch = _prepared(recording("a", nonce_hash=nonce), recording("b", nonce_hash=nonce))
    found = {"a": _known(), "b": _known()}
    assert len(under_test.spendable(batch, found)) == 1
    assert under_test.spendable(batch, found)[0]["attester_id"] == "a"
    plan = under_test.plan(batch, found, {nonce}, Held(), LogBatch(1))
    assert plan.outcomes == [1, Spent()]
    assert [row["attester_id"] for row in plan.attestations] == ["a"]


def test_a_refused_recording_writes_no_row_of_any_kind():
    batch = _prepared(recording("a"), recording("stranger"), recording("a", tenant="other"))
    found = {"a": _known()}
    assert under_test.spendable(batch, found) == [batch[0].nonce]
    plan = under_test.plan(batch, found, set(), Held(), LogBatch(1))
    assert plan.outcomes[0] == Spent()
    assert [type(outcome) for outcome in plan.outcomes[1:]] == [NotFoundError, NotFoundError]
    assert list(plan.rows()) == []


def test_shared_rows_come_once_and_in_one_order():
    batch = _prepared(*(recording("a", boot_log=b"log %d" % (n % 3)) for n in range(20)))
    plan = under_test.plan(batch, {"a": _known()}, {item.nonce_hash for item in batch}, Held(), LogBatch(1))
    written = dict(plan.rows())
    for step, key in (
        (Step.BLOBS, "digest"),
        (Step.JUDGEMENTS, "digest"),
        (Step.TOUCHED_JUDGEMENTS, "b_digest"),
    ):
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
        [item],
        {"a": _known(identity_text=item.identity_text, uuids_text='["u"]')},
        {item.nonce_hash},
        Held(),
        LogBatch(1),
    )
    assert not plan.identities
    assert not plan.uuids


def test_a_long_claim_is_a_short_key():
    assert uuid_key(" 4C4C-AB ") == "4c4c-ab"
    assert len(uuid_key("x" * 1000)) == 64
    assert uuid_key("x" * 1000) != uuid_key("x" * 1001)


def _verdict(findings=None, **changes):
    verdict = recording("a").verdict
    return structs.replace(verdict, **changes, findings=verdict.findings if findings is None else findings)


def test_the_last_judgements_are_packed_once_and_the_oldest_forgotten():
    said, findings = Judgements(remembered=2), ({"code": "a"},)
    first = said.packed(_verdict(findings))
    assert said.packed(_verdict(findings)) is first
    # The same, though made anew.
    assert said.packed(_verdict(({"code": "a"},))) is first
    for code in ("b", "c"):
        said.packed(_verdict(({"code": code},)))
    again = said.packed(_verdict(({"code": "a"},)))
    assert again == first
    assert again is not first


@pytest.mark.parametrize("changes", [{"vector": {"hardware": 96}}, {"endorsement": {"issuer": "other"}}])
def test_the_same_findings_with_something_else_are_another_judgement(changes):
    said, findings = Judgements(), ({"code": "a"},)
    first = said.packed(_verdict(findings))
    other = said.packed(_verdict(findings, **changes))
    assert other.digest != first.digest
    assert other == Judgements().packed(_verdict(findings, **changes))
    assert said.packed(_verdict(findings)) == first


def test_a_finding_that_is_no_json_is_the_callers_bug():
    item = recording("a")
    broken = structs.replace(item, verdict=structs.replace(item.verdict, findings=({"x": object()},)))
    with pytest.raises(TypeError):
        under_test.prepare(broken, Judgements())


def _stored(plan, held):
    held.note(plan.shared, plan.named)


def test_what_is_held_and_marked_for_the_day_is_not_written_again():
    held, log = Held(), b"boot log"
    first = _prepared(recording("a", boot_log=log))
    plan = under_test.plan(first, {"a": _known()}, {first[0].nonce_hash}, held, LogBatch(1))
    assert {Step.BLOBS, Step.JUDGEMENTS, Step.TOUCHED_JUDGEMENTS} <= dict(plan.rows()).keys()
    # Not before it is committed.
    again = _prepared(recording("a", boot_log=log))
    plan = under_test.plan(again, {"a": _known()}, {again[0].nonce_hash}, held, LogBatch(1))
    assert sha256(log) in plan.blobs
    _stored(plan, held)
    again = _prepared(recording("a", boot_log=log))
    plan = under_test.plan(again, {"a": _known()}, {again[0].nonce_hash}, held, LogBatch(1))
    assert list(plan.blobs) == [again[0].verdict["evidence_sha256"]]
    assert not plan.judgements
    # The next day it has to be marked again, or retention would drop it.
    later = _prepared(recording("a", boot_log=log, at=NOW + timedelta(days=1)))
    plan = under_test.plan(later, {"a": _known()}, {later[0].nonce_hash}, held, LogBatch(1))
    assert sha256(log) in plan.blobs
    assert plan.touched_judgements
    held.forget()
    plan = under_test.plan(again, {"a": _known()}, {again[0].nonce_hash}, held, LogBatch(1))
    assert sha256(log) in plan.blobs


def test_what_was_only_named_is_written_when_it_comes():
    """Marking what is not there stores nothing."""
    held, log = Held(), b"boot log"
    item = recording("a", boot_log=log)
    (named,) = _prepared(structs.replace(item, blobs={}))
    plan = under_test.plan([named], {"a": _known()}, {named.nonce_hash}, held, LogBatch(1))
    assert sha256(log) in plan.touched
    _stored(plan, held)
    (named, brought) = _prepared(structs.replace(item, blobs={}), recording("a", boot_log=log))
    plan = under_test.plan([named], {"a": _known()}, {named.nonce_hash}, held, LogBatch(1))
    assert not plan.touched
    plan = under_test.plan([brought], {"a": _known()}, {brought.nonce_hash}, held, LogBatch(1))
    assert sha256(log) in plan.blobs


def test_held_remembers_a_bounded_number_the_last_used_last():
    held = Held(most=2)
    for digest in (b"1", b"2", b"1", b"3"):
        if not held.stored(digest, 5):
            held.note({digest: 5}, {})
    assert held.stored(b"1", 5)
    assert held.stored(b"3", 4)
    assert not held.stored(b"2", 5)
    assert not held.stored(b"3", 6)
    assert held.marked(b"3", 5)


def test_a_boot_that_goes_on_is_left_alone():
    item = structs.replace(recording("a"), position=0)
    changed, same = _prepared(item, structs.replace(item, boot_goes_on=True))
    assert dict(
        under_test.plan([changed], {"a": _known()}, {item.nonce_hash}, Held(), LogBatch(1)).rows()
    ).keys() >= {
        Step.LEFT_BOOTS,
        Step.BOOTS,
    }
    steps = dict(under_test.plan([same], {"a": _known()}, {item.nonce_hash}, Held(), LogBatch(1)).rows())
    assert not steps.keys() & {Step.LEFT_BOOTS, Step.BOOTS}
    # Whose state nobody looked at cannot know that it goes on.
    (blind,) = _prepared(structs.replace(item, boot_goes_on=True, position=None))
    assert under_test.plan([blind], {"a": _known()}, {item.nonce_hash}, Held(), LogBatch(1)).boots


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"clock": structs.replace(CLOCK, clock=7, safe=False)}, True),
        ({"seen_at": NOW + timedelta(hours=1)}, True),
        ({"boot_id": None}, True),
        ({"ima": None}, True),
        ({"clock": structs.replace(CLOCK, reset_count=1)}, False),
        ({"clock": structs.replace(CLOCK, restart_count=1)}, False),
        ({"firmware_version": 1}, False),
        ({"boot_log_sha256": None}, False),
        ({"boot_id": "other"}, False),
        ({"userspace_log_sha256": b"x"}, False),
        ({"ima": "{}"}, False),
    ],
)
def test_which_boot_goes_on(change, same):
    boot = structs.replace(recording("a").boot, ima="{1}")
    assert boot.goes_on_as(structs.replace(boot, **change)) is same
    assert {field.name for field in structs.fields(boot)} == {
        "clock", "firmware_version", "boot_log_sha256", "boot_id", "seen_at", "userspace_log_sha256", "ima",
    }  # fmt: skip


def _attested():
    """What is known of an attester that is at its third position, and its next steady recording."""
    item = recording("a")
    attester = AttesterRecord(
        id="a",
        tenant="default",
        ek_fingerprint=b"ek",
        ek_public=b"",
        ek_certificate=None,
        ek_issuer=None,
        ek_profile={},
        endorsed_by="certificate",
        smbios_uuids=frozenset(),
        ak_name=b"ak",
        ak_public=b"",
        identity=GuestIdentity(hostname="guest"),
        enrolled_at=NOW,
    )
    state = AttesterState(
        attester=attester,
        boot=item.boot,
        latest=structs.replace(item.verdict, sequence=7),
        lineage=Lineage(clock=CLOCK),
        position=3,
        standing=("enrolled", None, "{}", b"ak", 1),
    )
    changes = {"identity": attester.identity, "position": 3, "judged_by": state, "boot_goes_on": True}
    return state, structs.replace(item, **changes)


def _incident(kind):
    return Lineage(clock=CLOCK, incident=Incident(kind=kind, since=NOW))


CLONED, ROLLED_BACK = map(_incident, (IncidentKind.CLONE_PROVEN, IncidentKind.ROLLBACK))


@pytest.mark.parametrize("change", [{}, {"lineage": Lineage(step=5)}, {"lineage": None}])
def test_where_only_verdict_and_clock_change_the_verdict_follows_the_latest(change):
    _, item = _attested()
    (steady,) = _prepared(structs.replace(item, **change))
    assert steady.follows == 7
    plan = under_test.plan_steady([steady], Held(), LogBatch(1))
    known = _known(sequence=7, tier=0, position=3, basis=steady.basis)
    asked = under_test.plan([steady], {"a": known}, {item.nonce_hash}, Held(), LogBatch(1))
    assert dict(plan.rows()) == dict(asked.rows())
    assert plan.outcomes == asked.outcomes == [8]


@pytest.mark.parametrize(
    "change",
    [
        {"identity": GuestIdentity(hostname="guest")},
        {"position": None},
        {"position": 2},
        {"boot_goes_on": False},
        {"judged_by": None},
        {"ima_piece": ImaPiece(start=0, size=1, sha256=b"x")},
        {"lineage": CLONED},
        {"verdict": recording("a", tier=Tier.WARNING).verdict},
    ],
    ids=lambda change: next(iter(change)),
)
def test_where_more_may_change_it_is_asked_first(change):
    _, item = _attested()
    (other,) = _prepared(structs.replace(item, **change))
    assert other.follows is None


def test_the_first_verdict_follows_none():
    state, item = _attested()
    (first,) = _prepared(structs.replace(item, judged_by=structs.replace(state, latest=None)))
    assert first.follows is None


@pytest.mark.parametrize(
    ("before", "now", "follows"),
    [(CLONED, CLONED, 7), (ROLLED_BACK, CLONED, None), (CLONED, Lineage(), 7), (CLONED, None, 7)],
)
def test_an_incident_is_told_when_it_is_another(before, now, follows):
    state, item = _attested()
    item = structs.replace(item, judged_by=structs.replace(state, lineage=before), lineage=now)
    (found,) = _prepared(item)
    assert found.follows == follows
