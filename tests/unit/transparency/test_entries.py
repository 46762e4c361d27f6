"""Entries are a row in one form; bundles prove that one is in a log."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.unit.transparency.test_notes import key_of
from tests.unit.transparency.test_tiles import Kept, hashes
from verifier.store.schema import attestation, audit
from verifier.transparency import checkpoint, entries, merkle, tiles
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.entries import AuditEntry, VerdictEntry
from verifier.transparency.errors import BundleError, EntryError, NoteError, ProofError

VERDICT = {
    "attester_id": "att-1",
    "sequence": 7,
    "tenant": "default",
    "tier": 2,
    "judged_at": 1_700_000_000_000_000,
    "valid_until": 1_700_000_600_000_000,
    "policy_id": "web",
    "policy_revision": "ab" * 32,
    "evidence_sha256": bytes(range(32)),
    "clock": -1,
    "reset_count": 3,
    "restart_count": 0,
    "safe": True,
    "boot_id": None,
    "judgement": b"\xff" * 32,
    "rejudged_at": None,
    "evidence": '{"quote":"00"}',
}
AUDIT = {
    "tenant": "default",
    "at": 1_700_000_000_000_000,
    "actor": "tok-1",
    "action": "policy.added",
    "subject": "web",
    "reason": 'said "yes" — twice',
    "detail": "{}",
}
NOT_LOGGED = {"log_batch", "log_place"}
"""Where a row's leaf is; the number of an audit row is the database's."""


def test_the_form_of_a_verdict_stays_what_it_is() -> None:
    """Whoever changes this breaks every proof in circulation: a new form has a new version."""
    assert entries.verdict_entry(VERDICT) == (
        b'{"kind":"verdict/1","tenant":"default","attester_id":"att-1","sequence":7,"tier":2,'
        b'"judged_at":1700000000000000,"valid_until":1700000600000000,"policy_id":"web","policy_revision":"'
        + b"ab"
        * 32
        + b'","evidence_sha256":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","clock":-1,'
        b'"reset_count":3,"restart_count":0,"safe":true,"boot_id":null,"judgement":"'
        + b"ff" * 32
        + b'","rejudged_at":null,"evidence":"{\\"quote\\":\\"00\\"}"}'
    )


def test_the_form_of_an_audit_entry_stays_what_it_is() -> None:
    assert (
        entries.audit_entry(AUDIT)
        == (
            '{"kind":"audit/1","tenant":"default","at":1700000000000000,"actor":"tok-1","action":"policy.added",'
            '"subject":"web","reason":"said \\"yes\\" — twice","detail":"{}"}'
        ).encode()
    )


def test_every_column_is_in_its_entry() -> None:
    assert set(VerdictEntry.__struct_fields__) == {column.name for column in attestation.c} - NOT_LOGGED
    assert set(AuditEntry.__struct_fields__) == {column.name for column in audit.c} - NOT_LOGGED - {
        "sequence"
    }


@pytest.mark.parametrize("column", sorted(VERDICT))
def test_a_change_of_any_column_is_another_leaf(column: str) -> None:
    value = VERDICT[column]
    other = {
        bytes: lambda: value[:-1] + b"\x01",
        str: lambda: value + "x",
        int: lambda: value + 1,
        bool: lambda: not value,
        type(None): lambda: 1 if column == "rejudged_at" else "x",
    }
    changed = {**VERDICT, column: other[type(value)]()}
    assert entries.verdict_entry(changed) != entries.verdict_entry(VERDICT)


def test_entries_are_read_again() -> None:
    verdict = entries.parse(entries.verdict_entry(VERDICT))
    assert isinstance(verdict, VerdictEntry)
    assert (verdict.sequence, verdict.evidence_sha256) == (7, bytes(range(32)).hex())
    audited = entries.parse(entries.audit_entry(AUDIT))
    assert isinstance(audited, AuditEntry)
    assert audited.reason == AUDIT["reason"]


GOOD = entries.audit_entry(AUDIT)
BAD_ENTRIES = {
    "empty": b"",
    "no-json": b"{",
    "a-space": GOOD.replace(b":", b": ", 1),
    "doubled": GOOD.replace(b'"detail"', b'"detail":"x","detail"'),
    "escaped": GOOD.replace(b"default", b"\\u0064efault"),
    "other-order": json.dumps({"tenant": "default"} | json.loads(GOOD), separators=(",", ":")).encode(),
    "one-more": GOOD.replace(b"{", b'{"more":1,', 1),
    "one-less": GOOD.replace(b',"detail":"{}"', b""),
    "later-version": GOOD.replace(b"audit/1", b"audit/2"),
    "trailing": GOOD + b"\n",
    "no-utf-8": GOOD.replace(b"default", b"\xff"),
    "deep": b"[" * 100_000,
    "upper-hex": entries.verdict_entry(VERDICT).replace(b"ff" * 32, b"FF" * 32),
    "another-number": entries.verdict_entry(VERDICT).replace(b'"tier":2', b'"tier":2.0'),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_an_entry_has_one_form(case: str) -> None:
    with pytest.raises(EntryError):
        entries.parse(BAD_ENTRIES[case])


def bundle_of(entry: bytes, index: int = 700, size: int = 1000) -> Bundle:
    kept, leaves = Kept(), hashes(size)
    leaves[index] = merkle.leaf_hash(entry)
    root = kept.append(*leaves)
    note = checkpoint.sign(Checkpoint("log.example/1", size, root), [key_of(1)])
    return Bundle(entry, index, tiles.inclusion(index, size, kept.read), note)


def test_a_bundle_proves_its_entry_offline() -> None:
    bundle = bundle_of(GOOD)
    read = Bundle.parse(bundle.encode())
    assert read == bundle
    proven = read.proven([key_of(1).key])
    assert proven.entry == entries.parse(GOOD)
    assert proven.state.checkpoint.size == 1000


def test_a_bundle_proves_nothing_else() -> None:
    bundle = bundle_of(GOOD)
    with pytest.raises(ProofError):
        dataclasses.replace(bundle, entry=GOOD.replace(b"yes", b"no")).proven([key_of(1).key])
    with pytest.raises(ProofError):
        dataclasses.replace(bundle, index=701).proven([key_of(1).key])
    with pytest.raises(NoteError):
        bundle.proven([key_of(2).key])
    with pytest.raises(EntryError):
        bundle_of(b"{}").proven([key_of(1).key])


def test_what_is_no_bundle() -> None:
    good = json.loads(bundle_of(GOOD).encode())
    bad = [
        b"",
        b"[]",
        b"[" * 100_000,
        *(
            json.dumps({**good, **change}).encode()
            for change in (
                {"format": "vtpm-attest-log-proof/2"},
                {"more": 1},
                {"index": "7"},
                {"proof": ["00"]},
                {"proof": ["AA" * 32]},
                {"proof": ["zz" * 32]},
                {"entry": None},
                {"entry": "\ud800"},
            )
        ),
    ]
    for data in bad:
        with pytest.raises(BundleError):
            Bundle.parse(data)


def test_a_proof_of_growth_is_for_the_two_states_it_was_asked_for() -> None:
    kept = Kept()
    states = [Checkpoint("log.example/1", size, kept.append(*hashes(size - kept.size))) for size in (7, 20)]
    old, new = states
    proof = Consistency(7, 20, tiles.consistency(7, 20, kept.read))
    assert Consistency.parse(proof.encode()) == proof
    assert json.loads(proof.encode()).keys() == {"from", "to", "proof"}
    proof.prove(old, new)
    for one, two in (
        (new, old),
        (old, dataclasses.replace(new, origin="log.example/2")),
        (old, dataclasses.replace(new, size=21)),
        (dataclasses.replace(old, root=new.root), new),
        (old, dataclasses.replace(new, root=old.root)),
    ):
        with pytest.raises(ProofError):
            proof.prove(one, two)
    for data in (b"", b"[]", b"[" * 100_000, b'{"from":1,"to":2,"proof":["00"]}', b'{"from":1,"to":2}'):
        with pytest.raises(BundleError):
            Consistency.parse(data)
