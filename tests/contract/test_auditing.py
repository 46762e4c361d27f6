"""A database that somebody doctored: the audit names the first row that is not what was logged."""

from __future__ import annotations

import dataclasses
import re

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from tests.contract.doctoring import (
    KEY,
    LEAVES,
    NOWHERE,
    ORIGIN,
    OTHER,
    POLICY,
    ROUNDS,
    SAID,
    TILE_0,
    WITNESS,
    batch_moved,
    changed,
    current_again,
    dropped,
    flipped,
    forged,
    inserted,
    inserted_beyond,
    newest_dropped,
    newest_shown,
    places_swapped,
    rebuilt,
    row_and_tile,
    swapped,
)
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Report, Tampering, Trust
from verifier.store.schema import attestation, audit, judgement, latest
from verifier.store.schema import policy as policy_table
from verifier.store.schema import token as token_table
from verifier.store.schema_log import log_checkpoint, log_cosignature, log_head, log_tile
from verifier.transparency import checkpoint, cosignature
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.notes import Note

AUDIT = {
    "tenant": "default",
    "at": 5,
    "actor": "a",
    "action": "b",
    "subject": "c",
    "reason": "",
    "detail": "{}",
}


# What was done to the database; the first finding's table, a part of its row's name, and of what it says.
DOCTORED = {
    "tier": ([changed("att-2", 17, tier=0)], "attestation", "att-2, sequence 17", "not what was logged"),
    "end": ([changed("att-2", 17, valid_until=2**60)], "attestation", "att-2, sequence 17", "not what was logged"),
    "evidence": ([changed("att-2", 17, evidence="{}")], "attestation", "att-2, sequence 17", "not what was logged"),
    "two-rows": (
        [changed("att-1", 90, tier=0), changed("att-2", 17, tier=0)],
        "attestation", "att-2, sequence 17", "not what was logged",
    ),
    "dropped": ([dropped("att-2", 17)], "attestation", "att-2, sequence 17", "not there any more"),
    "newest-dropped": ([dropped("att-2", ROUNDS)], "attestation", f"att-2, sequence {ROUNDS}", "not there any more"),
    "newest-dropped-and-latest": (
        [newest_dropped], "attestation or audit", "leaf 30", "not there any more",
    ),
    "machine-dropped": (
        [delete(attestation).where(attestation.c.attester_id == "att-2"), delete(latest).where(latest.c.attester_id == "att-2")],
        "attestation or audit", "leaf ", "not there any more",
    ),
    "inserted-without-a-place": (
        [inserted(ROUNDS + 1, **NOWHERE)], "attestation", f"att-2, sequence {ROUNDS + 1}", "is in no log"
    ),
    "inserted-in-the-place-of-another": (
        [inserted(ROUNDS + 1)], "attestation", "att-2, sequence 10", "which another row is"
    ),
    "inserted-in-a-place-there-is-not": (
        [inserted(ROUNDS + 1, log_batch=17)], "attestation", f"att-2, sequence {ROUNDS + 1}", "a place in the log that there is not"
    ),
    "place-taken-away": ([changed("att-2", 17, **NOWHERE)], "attestation", "att-2, sequence 17", "is in no log"),
    "place-there-is-not": (
        [changed("att-2", 17, log_place=10**6)], "attestation", "att-2, sequence 17", "a place in the log that there is not"
    ),
    "inserted-beyond-the-tree": ([inserted_beyond, newest_shown], "log_batch", f"id {2**60}", "beyond the"),
    "swapped": ([swapped], "attestation", "att-2, sequence 17", "not what was logged"),
    "places-swapped": ([places_swapped], "attestation", "att-2, sequence 18", "not what was logged"),
    "latest-alone": (
        [update(latest).where(latest.c.attester_id == "att-2").values(tier=0)],
        "latest", f"att-2, sequence {ROUNDS}", "tier is 0, the verdict says 1",
    ),
    "latest-back": (
        [update(latest).where(latest.c.attester_id == "att-2").values(sequence=3)], "latest", "att-2, sequence", ""
    ),
    "latest-ahead": (
        [update(latest).where(latest.c.attester_id == "att-2").values(sequence=ROUNDS + 5)],
        "latest", f"att-2, sequence {ROUNDS + 5}", "a verdict that is not there",
    ),
    "judgement": (
        [flipped(judgement, judgement.c.content, judgement.c.digest == SAID)], "judgement", "digest ", "first by att-"
    ),
    "judgement-dropped": ([delete(judgement)], "judgement", "digest ", "is missing; said by 300 verdicts"),
    "audit": (
        [update(audit).where(audit.c.subject == "x-20").values(actor="tok-2")], "audit", "x-20", "not what was logged"
    ),
    "audit-dropped": (
        [delete(audit).where(audit.c.subject == "x-20")], "attestation or audit", "leaf ", "a decision that was logged"
    ),
    "audit-inserted": (
        [insert(audit).values(tenant="default", at=2**51, actor="a", action="b", subject="c", reason="", detail="{}")],
        "audit", "action b, subject c", "is in no log",
    ),
    "policy": ([update(policy_table).where(POLICY).values(source="id: x\n")], "policy", "revision abab", "its source is another"),
    "policy-dropped": ([delete(policy_table).where(POLICY)], "policy", "revision abab", "not in the database"),
    "policy-inserted": (
        [insert(policy_table).values(tenant="default", id="mine", revision="00", position=1, source="", created_at=2**51)],
        "policy", "id mine", "nobody is on record",
    ),
    "policy-current": ([current_again], "policy", "id strict", "was the last to be made so"),
    "token-inserted": (
        [insert(token_table).values(id="tok-9", tenant="default", secret_hash=b"x" * 32, scopes="[]", label="", created_at=2**51)],
        "token", "id tok-9", "nobody is on record",
    ),
    "token-scopes": (
        [update(token_table).where(token_table.c.id == "tok-0").values(scopes='["admin"]')], "token", "id tok-0", "has the scopes"
    ),
    "token-secret": (
        [update(token_table).where(token_table.c.id == "tok-0").values(secret_hash=b"x" * 32)], "token", "id tok-0", "another secret"
    ),
    "token-longer": (
        [update(token_table).where(token_table.c.id == "tok-0").values(expires_at=None)], "token", "id tok-0", "expires at another time"
    ),
    "token-revoked-no-more": (
        [update(token_table).where(token_table.c.id == "tok-1").values(revoked_at=None)], "token", "id tok-1", "is not any more"
    ),
    "tile": ([flipped(log_tile, log_tile.c.hashes, TILE_0)], "log_tile", "", ""),
    "tile-above": ([flipped(log_tile, log_tile.c.hashes, log_tile.c.level == 1)], "log_tile", "", ""),
    "last-tile": (
        [flipped(log_tile, log_tile.c.hashes, (log_tile.c.level == 0) & (log_tile.c.number == 1))], "log_tile", "", "do not lead to the root"
    ),
    "tile-dropped": ([delete(log_tile).where(TILE_0)], "log_tile", "tile 0/0", "missing"),
    "row-and-tile": ([row_and_tile], "log_tile", "leaves 0 to", "was changed"),
    "checkpoint-forged": ([forged], "log_checkpoint", f"size {LEAVES}", "does not hold"),
    "checkpoint-root": ([update(log_checkpoint).values(root=b"r" * 32)], "log_checkpoint", "size ", "of another state"),
    "checkpoint-dropped": (
        [delete(log_checkpoint).where(log_checkpoint.c.size == LEAVES)], "log_head", "head", "the newest signed state has"
    ),
    "checkpoints-dropped": ([delete(log_checkpoint)], "log_head", "head", "nothing is proven"),
    "head": ([update(log_head).values(size=7)], "log_head", "head", f"the newest signed state has {LEAVES}"),
    "rebuilt-with-another-key": ([rebuilt(OTHER)], "log_checkpoint", f"size {LEAVES}", "does not hold|not signed with"),
    "batch-moved": (
        [batch_moved], "log_batch|attestation|attestation or audit", "", "leaf|another place|not there"
    ),
}  # fmt: skip


def check(found: Report, case: str) -> None:
    _, table, name, problem = DOCTORED[case]
    assert found.findings.count, "nothing was found"
    first: Tampering = found.findings.first(1)[0]
    assert re.fullmatch(table, first.table), first
    assert name in first.key, first
    assert re.search(problem, first.problem), first


def test_a_database_that_nobody_touched_is_as_it_was_logged(made):
    for kept in (None, 0, 2):
        report = made.audit(kept=kept)
        assert list(report.findings) == []
    assert (report.verdicts, report.decisions) == (3 * ROUNDS, LEAVES - 3 * ROUNDS)
    assert report.state is not None
    assert report.state.size == report.kept_checkpoint == LEAVES
    assert (report.waiting, report.unlogged, report.not_kept) == (0, 0, 0)


@pytest.mark.parametrize("case", DOCTORED)
def test_the_first_tampered_row_is_named(made, case):
    check(made.doctor(*DOCTORED[case][0]), case)


ON_A_SERVER = (
    "tier",
    "dropped",
    "newest-dropped",
    "inserted-without-a-place",
    "latest-alone",
    "judgement-dropped",
    "audit",
    "token-scopes",
    "row-and-tile",
)


def test_postgresql_is_read_the_same(made_on_server):
    report = made_on_server.audit(kept=0)
    assert list(report.findings) == []
    assert (report.verdicts, report.decisions) == (3 * ROUNDS, LEAVES - 3 * ROUNDS)


@pytest.mark.parametrize("case", ON_A_SERVER)
def test_the_first_tampered_row_is_named_on_postgresql(made_on_server, case):
    check(made_on_server.doctor(*DOCTORED[case][0]), case)


def test_how_many_were_tampered_with_is_counted(made):
    report = made.doctor(*(changed("att-1", number, tier=0) for number in range(5, 25)))
    assert report.findings.count == 20
    assert [one.key for one in report.findings.first(2)] == [
        "attester_id att-1, sequence 5",
        "attester_id att-1, sequence 6",
    ]


def test_a_database_that_was_rolled_back_is_found_against_a_kept_checkpoint(made):
    old = dataclasses.replace(made, url=f"sqlite:///{made.old_copy}")
    assert old.audit().findings.count == 0, "by itself nothing is wrong with it"
    report = old.audit(kept=2)
    (first,) = report.findings
    assert first.table == "log_checkpoint"
    assert "the database was rolled back" in first.problem
    assert report.waiting == 3 * ROUNDS - 3 * 61 + 1, "nobody had signed them when the copy was made"


def test_a_log_that_was_rebuilt_with_its_own_key_is_found_against_a_kept_checkpoint(made):
    report = made.doctor(rebuilt(KEY))
    assert report.findings.count == 0, "whoever has the key can write another log: a kept checkpoint tells"
    first = made.audit(kept=0).findings.first(1)[0]
    assert "does not begin with what it was" in first.problem
    assert first.key.startswith("kept checkpoint of ")


def test_a_checkpoint_of_another_log_is_no_help(made):
    other = Checkpoint("log.example/2", 5, b"r" * 32)
    report = audit_database(made.url, Trust((KEY.key,), kept=other))
    assert "is of the log 'log.example/2'" in report.findings.first(1)[0].problem


def test_a_new_key_is_enough_where_it_signed_the_newest_state(made):
    """Older ones were signed before it was there: they say nothing, and the root holds all that they did."""

    def rotated(connection: Connection) -> None:
        query = select(log_checkpoint.c.root).where(log_checkpoint.c.size == LEAVES)
        root = connection.execute(query).scalar()
        note = checkpoint.sign(Checkpoint(ORIGIN, LEAVES, root), [KEY, OTHER])
        connection.execute(update(log_checkpoint).where(log_checkpoint.c.size == LEAVES).values(note=note))

    made.doctor(rotated)
    for keys in ((KEY.key,), (OTHER.key,), (OTHER.key, KEY.key)):
        assert list(made.audit(keys=keys).findings) == []
    check(made.doctor(*DOCTORED["tier"][0]), "tier")


def test_a_key_that_signed_nothing_proves_nothing(made):
    report = made.audit(keys=(OTHER.key,))
    assert report.state is None
    assert "not signed with" in report.findings.first(1)[0].problem


def test_witnesses_are_counted_where_their_cosignatures_hold(made):
    note = Note.parse(made.kept[-1])
    good = cosignature.cosign(note.text, WITNESS, 1_800_000_000).line()
    bad = cosignature.cosign("another\n", WITNESS, 1_800_000_000).line()
    report = made.doctor(
        insert(log_cosignature).values(size=LEAVES, witness="witness", at=0, line=good),
    )
    assert report.state.witnesses == ()
    assert made.audit(witnesses=(WITNESS.key,)).state.witnesses == (("witness", 1_800_000_000),)
    made.doctor(update(log_cosignature).values(line=bad))
    first = made.audit(witnesses=(WITNESS.key,)).findings.first(1)[0]
    assert (first.table, "does not hold" in first.problem) == ("log_cosignature", True)
