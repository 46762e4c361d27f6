"""What an audit makes of rows that wait, that are older than the log, and that are not kept any more."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from sqlalchemy import Connection, delete, insert, select, text, update

from tests.contract.doctoring import KEY, MACHINES, ROUNDS, SECOND, dropped, inserted, newest_shown, sequence
from tests.contract.records import audit_entry, recording
from verifier.auditing import tree
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Trust, moment
from verifier.auditing.opening import reading
from verifier.errors import VerifierFault
from verifier.reasons import Tier
from verifier.store import open_store
from verifier.store.schema import attestation, audit, latest
from verifier.store.schema_log import log_batch, log_tile
from verifier.transparency.entries import audit_entry as audit_entry_of
from verifier.transparency.merkle import leaf_hash

AUDIT = {
    "tenant": "default",
    "at": 5,
    "actor": "a",
    "action": "b",
    "subject": "c",
    "reason": "",
    "detail": "{}",
}


def test_what_waits_for_its_place_is_held_against_its_batch(made):
    def record(connection: Connection) -> None:
        row = {**AUDIT, "log_batch": 2**60, "log_place": 0}
        leaf = leaf_hash(audit_entry_of(row))
        connection.execute(
            insert(log_batch).values(id=2**60, leaf_count=1, leaves=leaf, first_index=None, lasting=True)
        )
        connection.execute(insert(audit).values(**row))

    report = made.doctor(record)
    assert (report.findings.count, report.waiting) == (0, 1)
    first = made.doctor(update(audit).where(audit.c.action == "b").values(actor="x")).findings.first(1)[0]
    assert (first.table, first.problem) == ("audit", "is not what waits for its place in the log")


def test_rows_from_before_there_was_a_log_are_counted_and_not_believed(made):
    old = {"log_batch": None, "log_place": None, "judged_at": 5}
    report = made.doctor(insert(audit).values(**AUDIT), inserted(0, **old))
    assert (report.findings.count, report.unlogged) == (0, 2)
    # Nobody slips in a newer one as if it were old.
    report = made.doctor(inserted(ROUNDS + 1, **old), newest_shown)
    (first,) = report.findings
    assert (first.table, first.key) == ("attestation", f"attester_id att-2, sequence {ROUNDS + 1}")
    assert "comes after verdicts that are" in first.problem


def test_history_that_is_not_kept_needs_no_rows_but_decisions_do(made):
    since = made.judged_at(41)
    old = attestation.c.sequence <= 40
    report = made.doctor(delete(attestation).where(old))
    assert report.findings.count == 0
    assert (report.not_kept, report.kept_since) == (3 * 40, since)
    # An auditor who knows how long history is kept does not take the database's word for it.
    report = made.audit(since=moment(since) - timedelta(hours=1))
    assert report.findings.count == 3 * 40
    # One of them was a decision, and those are kept for good.
    report = made.doctor(delete(audit).where(audit.c.subject == "x-20"))
    (first,) = report.findings
    assert (first.table, first.problem) == (
        "attestation or audit",
        "a verdict or a decision that was logged is not there any more",
    )


@pytest.mark.parametrize(
    "values",
    [
        {"tier": "x"},
        {"evidence_sha256": "'ab'"},
        {"judgement": "17"},
        {"evidence": "x'00ff'"},
        {"log_place": "'x'"},
        {"judged_at": "'never'"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_column_of_another_type_is_a_finding_and_no_crash(made, values):
    ((name, value),) = values.items()
    literal = f"'{value}'" if name == "tier" else value
    report = made.doctor(
        text(f"UPDATE attestation SET {name} = {literal} WHERE attester_id = 'att-2' AND sequence = 17")
    )
    first = report.findings.first(1)[0]
    assert first.table == "attestation"
    assert "att-2, sequence 17" in first.key


@pytest.mark.skipif(os.geteuid() == 0, reason="to root nothing is forbidden")
def test_a_copy_in_a_folder_that_nobody_may_write_is_read(made, tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir()
    shutil.copy(made.url.removeprefix("sqlite:///"), folder / "copy.db")
    folder.chmod(0o500)
    assert audit_database(f"sqlite:///{folder}/copy.db", Trust((KEY.key,))).findings.count == 0
    assert [each.name for each in folder.iterdir()] == ["copy.db"]


def test_what_is_no_database_is_said(tmp_path):
    for url in (f"sqlite:///{tmp_path}/none.db", "sqlite://", "mysql://x"):
        with pytest.raises(VerifierFault):
            audit_database(url, Trust((KEY.key,)))
    (tmp_path / "no.db").write_bytes(b"no database" * 1000)
    with pytest.raises(VerifierFault):
        audit_database(f"sqlite:///{tmp_path}/no.db", Trust((KEY.key,)))


def judged_again(made) -> None:
    """The newest verdict of a machine, from the evidence that it had, between others; then it comes again."""

    async def run() -> None:
        store = await open_store(made.url)
        later = datetime.now(UTC) + timedelta(hours=1)
        for _ in range(2):
            await store.record(recording("att-1", at=later))
        before = (await store.attester_state("att-2")).latest
        again = structs.replace(before, tier=Tier.NONE, rejudged_at=datetime.now(UTC))
        assert None not in await store.rejudge([again], audit_entry(action="policy.rejudged"))
        for _ in range(2):
            await store.record(recording("att-2", at=later))
        await store._backend.write(sequence)
        await store.close()

    asyncio.run(run())


def test_what_was_judged_again_late_may_go_with_its_evidence(made, monkeypatch):
    monkeypatch.setattr(tree, "_SLACK", 0)
    since = datetime.now(UTC)
    judged_again(made)
    assert made.audit().findings.count == 0
    # All that was judged before goes, and with it what was judged again from that, which is younger than what stays.
    old = attestation.c.judged_at <= made.judged_at(ROUNDS)
    made.doctor(delete(attestation).where(old, latest_apart()))
    report = made.audit(since=since)
    assert list(report.findings) == []
    assert report.not_kept == 3 * ROUNDS + 1 - 1


def test_what_was_judged_again_and_is_not_there_is_missed_between_others(made):
    judged_again(made)
    first = made.doctor(dropped("att-2", ROUNDS + 1)).findings.first(1)[0]
    assert (first.table, first.key) == ("attestation", f"attester_id att-2, sequence {ROUNDS + 1}")


def latest_apart():
    newest = select(latest.c.attester_id).where(
        latest.c.attester_id == attestation.c.attester_id, latest.c.sequence == attestation.c.sequence
    )
    return ~newest.exists()


def test_what_retention_drops_of_the_log_is_not_missed(made):
    """Verdicts, their transactions and whole tiles of their hashes go; root, growth and decisions stay provable."""

    async def run() -> int:
        store = await open_store(made.url)
        now = datetime.now(UTC)
        for number in range(200):
            at = now + (ROUNDS + number) * SECOND
            await asyncio.gather(*(store.record(recording(each, at=at)) for each in MACHINES))
        await store._backend.write(sequence)
        before = now + timedelta(days=2)
        gone = await store.purge_history(before)
        await store.purge_log(before, now)
        await store.close()
        return gone.rows

    gone = asyncio.run(run())
    tiles = select(log_tile.c.number).where(log_tile.c.level == 0).order_by(log_tile.c.number)
    left = reading(made.url, lambda connection: list(connection.execute(tiles).scalars()))
    assert left == [0, 1, 3], "a tile that has nothing but old verdicts is dropped"
    report = made.audit()
    assert list(report.findings) == []
    assert (report.verdicts, report.not_kept) == (3, gone)
    assert made.audit(kept=2).findings.count == 0, "and what was kept before is proven all the same"
    # Nothing else is excused by that.
    first = made.doctor(delete(audit).where(audit.c.subject == "x-20")).findings.first(1)[0]
    assert first.problem == "a verdict or a decision that was logged is not there any more"
