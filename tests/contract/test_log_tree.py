"""The tree of the transparency log: whoever extends it, every leaf has one index, and nothing doctored is ever signed."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, select, update

from tests.conftest import ROOT
from tests.contract.records import MINUTE, NOW, audit_entry, enrol, recording
from tests.contract.transparency import ORIGIN, Log, the_tree_is_made_of_the_rows
from verifier.errors import EvidenceError, LogDamagedError, NotFoundError, StoreUnavailable
from verifier.keys.log_keys import rotate
from verifier.ports_events import EventKind
from verifier.store import log as under_test
from verifier.store import log_purge
from verifier.store.schema import attestation
from verifier.store.schema_events import event
from verifier.store.schema_log import log_checkpoint, log_head, log_tile
from verifier.transparency import checkpoint, cosignature
from verifier.transparency.bundle import Consistency
from verifier.transparency.errors import NoteError
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey


@pytest.fixture
def log(store, tmp_path):
    return Log(store, tmp_path / "log")


async def attest(store, count, attester_id="att-1", **changes):
    for _ in range(count):
        assert await store.record(recording(attester_id, **changes))


async def test_what_waits_gets_its_place_and_is_signed(log):
    await enrol(log.store, "att-1")
    assert await log.sequencer.sign()
    assert (await log.opened()).size == 0
    await attest(log.store, 3)
    figures = await log.store.log_figures()
    assert (figures.waiting, figures.size) == (4, 0)
    assert figures.oldest_waiting is not None
    assert await log.extend() == 4
    assert await log.extend() == 0
    await attest(log.store, 2)
    assert await log.extend() == 2
    assert await the_tree_is_made_of_the_rows(log) == 6


async def test_many_are_taken_a_piece_at_a_time(log, monkeypatch):
    monkeypatch.setattr(under_test, "_LEAVES_AT_ONCE", 7)
    await enrol(log.store, "att-1")
    await asyncio.gather(*(log.store.record(recording("att-1")) for _ in range(40)))
    assert await log.extend() == 41
    assert await the_tree_is_made_of_the_rows(log) == 41


async def test_replicas_write_and_extend_at_the_same_time(database, tmp_path):
    logs = [Log(await database.open(), tmp_path / "log") for _ in range(2)]
    for number in range(4):
        await enrol(logs[0].store, f"att-{number}")
    done = asyncio.Event()

    async def write(number):
        store = logs[number % 2].store
        for turn in range(12):
            assert await store.record(recording(f"att-{number % 4}"))
            await store.add_audit(audit_entry(subject=f"x-{turn}"))

    async def sequence(log):
        while not done.is_set():
            await log.extend()
            await asyncio.sleep(0)

    running = [asyncio.create_task(sequence(log)) for log in logs]
    await asyncio.gather(*(write(number) for number in range(8)))
    done.set()
    await asyncio.gather(*running)
    await logs[0].extend()
    assert await the_tree_is_made_of_the_rows(logs[1]) == 4 + 8 * 24


async def test_what_nobody_got_to_is_taken_up_after_a_restart(database, tmp_path):
    first = Log(await database.open(), tmp_path / "log")
    await enrol(first.store, "att-1")
    await attest(first.store, 3)
    await first.extend()
    await attest(first.store, 2)
    await first.store.close()
    second = Log(await database.open(), tmp_path / "log")
    assert await second.extend() == 2
    assert await the_tree_is_made_of_the_rows(second) == 6


def _write_extend_and_die(url, keys):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.writer_process", url, keys], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        for _ in range(200):
            process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


async def test_a_process_killed_while_it_extends_leaves_no_gap(database, tmp_path):
    for _ in range(3):
        await asyncio.to_thread(_write_extend_and_die, database.url, tmp_path / "log")
        log = Log(await database.open(), tmp_path / "log")
        await log.extend()
        assert await the_tree_is_made_of_the_rows(log) >= 200


async def test_a_server_that_is_gone_for_a_while_holds_the_log_up_and_no_more(
    cluster, postgresql_database, tmp_path
):
    log = Log(await postgresql_database.open(), tmp_path / "log")
    await enrol(log.store, "att-1")
    await attest(log.store, 2)
    await log.extend()
    await attest(log.store, 2)
    cluster.stop()
    try:
        with pytest.raises(StoreUnavailable):
            await log.extend()
    finally:
        cluster.start()
    assert log.sequencer.damage is None
    assert await log.extend() == 2
    assert await the_tree_is_made_of_the_rows(log) == 5


async def test_an_extension_is_whole_or_not_at_all(log, monkeypatch):
    await enrol(log.store, "att-1")
    await attest(log.store, 3)
    with monkeypatch.context() as patch:
        patch.setattr(under_test, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await log.extend()
    assert (await log.store.log_figures()).waiting == 4
    assert await log.extend() == 4
    assert await the_tree_is_made_of_the_rows(log) == 4


DOCTORED = {
    "a leaf": update(log_tile).where(log_tile.c.level == 0).values(hashes=bytes(32 * 5)),
    "a tile is gone": delete(log_tile),
    "the checkpoint's text": update(log_checkpoint).values(note="x\n1\n\n\n\u2014 a b\n"),
    "no checkpoint": delete(log_checkpoint),
    "fewer leaves": update(log_head).values(size=3),
    "more leaves": update(log_head).values(size=6),
}


@pytest.mark.parametrize("what", list(DOCTORED))
async def test_nothing_is_signed_over_a_doctored_log(log, what):
    await enrol(log.store, "att-1")
    await attest(log.store, 4)
    await log.extend()
    kept = {table: await log.rows(select(table)) for table in (log_tile, log_checkpoint, log_head)}
    await log.do(DOCTORED[what])
    doctored = {table: await log.rows(select(table)) for table in kept}
    await attest(log.store, 2)
    restarted = Log(log.store, log.folder)
    for one in (log, restarted, log):
        with pytest.raises(LogDamagedError):
            await one.extend()
        assert one.sequencer.damage
    assert {table: await log.rows(select(table)) for table in kept} == doctored
    found = await log.store.list_audit("default", subject="log", before=None, limit=9)
    assert {one.action for one in found} == {"log.damaged"}
    assert EventKind.LOG_DAMAGED.value in {one["kind"] for one in await log.rows(select(event))}
    for table, rows in kept.items():
        await log.do(delete(table), *(table.insert().values(row) for row in rows))
    assert await log.extend() == 2 + len(found)
    assert log.sequencer.damage is None
    await the_tree_is_made_of_the_rows(log)


async def test_a_backup_that_was_restored_under_a_running_verifier_is_noticed(log):
    await enrol(log.store, "att-1")
    await log.extend()
    tables = (log_tile, log_checkpoint, log_head)
    backup = {table: await log.rows(select(table)) for table in tables}
    await attest(log.store, 2)
    await log.extend()
    for table, rows in backup.items():
        await log.do(delete(table), *(table.insert().values(row) for row in rows))
    await attest(log.store, 1)
    with pytest.raises(LogDamagedError, match="a backup was restored"):
        await log.extend()


async def test_another_verifiers_key_signs_nothing_here(log, tmp_path):
    await enrol(log.store, "att-1")
    await log.extend()
    await attest(log.store, 1)
    stranger = Log(log.store, tmp_path / "another")
    with pytest.raises(LogDamagedError, match="not of this verifier's key"):
        await stranger.extend()
    assert await log.extend() >= 1


async def test_a_new_key_signs_beside_the_old_one_for_a_while(log):
    await enrol(log.store, "att-1")
    await log.extend()
    (old,) = log.keys.trusted()
    rotate(log.folder, timedelta(hours=1), log.clock.now())
    assert await log.sequencer.sign()
    assert not await log.sequencer.sign()
    for key in (old, log.keys.trusted()[0]):
        assert checkpoint.opened((await log.proofs.checkpoint()).note, [key]).checkpoint.size == 1
    log.clock.at += timedelta(hours=2)
    await attest(log.store, 1)
    assert await log.extend() == 1
    (new,) = log.keys.trusted()
    assert new != old
    with pytest.raises(NoteError):
        checkpoint.opened((await log.proofs.checkpoint()).note, [old])
    assert {one.key.name for one in log.keys.signers()} == {ORIGIN}


async def test_every_verdict_and_entry_can_be_proven(log):
    await enrol(log.store, "att-1")
    await attest(log.store, 300)
    await log.store.add_audit(audit_entry())
    await log.extend()
    keys = log.keys.trusted()
    for sequence in (1, 2, 150, 255, 256, 257, 300, None):
        bundle = await log.proofs.verdict("default", "att-1", sequence)
        assert bundle.proven(keys).entry.sequence == (sequence or 300)
    entries = await log.store.list_audit("default", subject=None, before=None, limit=9)
    for one in entries:
        proven = (await log.proofs.audit("default", one.sequence)).proven(keys)
        assert proven.entry.action == one.action
    for tenant, attester, sequence in (
        ("other", "att-1", 1),
        ("default", "att-2", 1),
        ("default", "att-1", 999),
    ):
        with pytest.raises(NotFoundError):
            await log.proofs.verdict(tenant, attester, sequence)
    with pytest.raises(NotFoundError):
        await log.proofs.audit("other", entries[0].sequence)


async def test_a_verdict_that_was_just_given_is_waited_for(log):
    await enrol(log.store, "att-1")
    await attest(log.store, 1)
    asked = asyncio.create_task(log.proofs.verdict("default", "att-1", None))
    await asyncio.sleep(0.05)
    assert not asked.done()
    await log.extend()
    assert (await asked).proven(log.keys.trusted()).entry.sequence == 1


async def test_a_row_from_before_the_log_has_no_proof(log):
    await enrol(log.store, "att-1")
    await attest(log.store, 1)
    await log.do(update(attestation).values(log_batch=None, log_place=None))
    with pytest.raises(NotFoundError):
        await log.proofs.verdict("default", "att-1", 1)


async def test_growth_is_proven_between_all_sizes(log):
    await enrol(log.store, "att-1")
    await log.extend()
    states = [await log.opened()]
    for count in (1, 2, 60, 200, 300):
        await attest(log.store, count)
        await log.extend()
        states.append(await log.opened())
    for number, old in enumerate(states):
        for new in states[number:]:
            proof = await log.proofs.growth(old.size, new.size)
            Consistency.parse(proof.encode()).prove(old, new)
    assert (await log.proofs.growth(5, None)).new == states[-1].size
    for old, new in ((7, 5), (1, states[-1].size + 1)):
        with pytest.raises(EvidenceError):
            await log.proofs.growth(old, new)


async def test_tiles_are_given_by_their_paths(log):
    await enrol(log.store, "att-1")
    await attest(log.store, 299)
    await log.extend()
    first = await log.proofs.tile("tile/0/000")
    assert len(first) == 32 * 256
    assert len(await log.proofs.tile("tile/0/001.p/44")) == 32 * 44
    assert await log.proofs.tile("tile/0/000.p/3") == first[:96]
    assert len(await log.proofs.tile("tile/1/000.p/1")) == 32
    for path in ("tile/0/001", "tile/0/001.p/45", "tile/2/000.p/1"):
        with pytest.raises(NotFoundError):
            await log.proofs.tile(path)
    for path in ("tile/0/1", "tile/x/000", "tile/0/../000", "tile/0/000.p/0"):
        with pytest.raises(EvidenceError):
            await log.proofs.tile(path)


def witness(name="witness.example/w1"):
    return KeySigner(name, Ed25519PrivateKey.generate(), Algorithm.COSIGNATURE_V1)


async def test_a_witness_that_is_known_cosigns(store, tmp_path):
    known, stranger = witness(), witness("stranger.example")
    log = Log(store, tmp_path / "log", witnesses=[known.key])
    await enrol(store, "att-1")
    await log.extend()
    note = Note.parse((await log.proofs.checkpoint()).note)
    with pytest.raises(NotFoundError):
        await log.proofs.checkpoint(cosigned=True)

    def signed(by, text=note.text, at=1_800_000_000):
        line = cosignature.cosign(text, by, at)
        return Note(note.text, (*note.signatures, line)).encode().encode()

    assert await log.proofs.cosign(signed(known)) == (known.key.name,)
    assert await log.proofs.cosign(signed(known, at=1_800_000_001)) == (known.key.name,)
    await attest(store, 1)
    await log.extend()
    kept = await log.proofs.checkpoint(cosigned=True)
    (one,) = cosignature.cosigned(Note.parse(kept.note), [known.key])
    assert (kept.size, one.at) == (1, 1_800_000_001)
    assert (await log.proofs.checkpoint()).size == 2
    assert (await store.log_figures()).witnesses == 1
    for refused in (
        signed(stranger),
        signed(known, "another\n1\n" + note.text.split("\n")[2] + "\n"),
        b"",
        b"x" * 99,
    ):
        with pytest.raises(EvidenceError):
            await log.proofs.cosign(refused)
    other = f"{ORIGIN}\n1\n{'A' * 43}=\n"
    line = cosignature.cosign(other, known, 5)
    with pytest.raises(NotFoundError):
        await log.proofs.cosign(Note(other, (line,)).encode().encode())


async def test_leaves_go_with_their_history_and_the_tree_stays(log, monkeypatch):
    ticks = itertools.count()
    clock = SimpleNamespace(time_ns=lambda: int(log.clock.at.timestamp()) * 10**9 + 1_000 * next(ticks))
    monkeypatch.setattr("verifier.store.log_batches.time", clock)
    monkeypatch.setattr(log_purge, "_CHUNK", 50)
    await log.store.prepare_history(NOW)
    await enrol(log.store, "att-1")
    await enrol(log.store, "att-2")
    await attest(log.store, 1, "att-2", at=NOW)
    await attest(log.store, 300, at=NOW)
    await log.extend()
    early = await log.opened()
    log.clock.at += timedelta(hours=2)
    await attest(log.store, 600, at=NOW)
    await log.extend()
    middle = await log.opened()
    log.clock.at += timedelta(days=21)
    await log.store.prepare_history(log.clock.at)
    await attest(log.store, 5, at=log.clock.at)
    await log.extend()
    newest = await log.opened()
    before = log.clock.at - timedelta(days=4)
    await log.store.purge_history(before)
    gone = await log.store.purge_log(before, log.clock.at)
    assert gone == 900
    assert await log.store.purge_log(before, log.clock.at) == 0
    levels = [(one["level"], one["number"]) for one in await log.rows(select(log_tile))]
    # The first has entries of the audit log, and the latest verdict of whoever fell silent; a checkpoint that is kept
    # ends in the second; the last one is not whole.
    assert sorted(levels) == [(0, 0), (0, 1), (0, 3), (1, 0)]
    keys = log.keys.trusted()
    assert (await log.proofs.verdict("default", "att-2", 1)).proven(keys).state.checkpoint == newest
    assert (await log.proofs.verdict("default", "att-1", 905)).proven(keys)
    for old in (early, middle):
        (await log.proofs.growth(old.size, newest.size)).prove(old, newest)
    with pytest.raises(NotFoundError, match="history"):
        await log.proofs.growth(600, newest.size)
    assert await log.extend() == 0
    await attest(log.store, 300, at=log.clock.at)
    assert await log.extend() == 300
    (await log.proofs.growth(middle.size, None)).prove(middle, await log.opened())


async def test_old_checkpoints_are_thinned_out_and_the_newest_stays(log):
    await enrol(log.store, "att-1")
    for _ in range(12):
        await attest(log.store, 1)
        await log.extend()
        log.clock.at += 15 * MINUTE
    sizes = [
        one["size"] for one in await log.rows(select(log_checkpoint.c.size).order_by(log_checkpoint.c.size))
    ]
    assert len(sizes) == 12
    await log.store.purge_log(NOW - timedelta(days=1), log.clock.at)
    left = [
        one["size"] for one in await log.rows(select(log_checkpoint.c.size).order_by(log_checkpoint.c.size))
    ]
    assert len(left) in (6, 7)
    assert left[-1] == sizes[-1]
    await log.store.purge_log(NOW, log.clock.at + timedelta(days=90))
    last = [one["size"] for one in await log.rows(select(log_checkpoint.c.size))]
    assert last == [sizes[-1]]
    assert VerifierKey.parse(log.keys.trusted()[0].encode()) == log.keys.trusted()[0]
