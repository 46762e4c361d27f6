"""What a steady attestation does not write: what is there already, and stays as if it had been written."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy import delete, func, select, update

from tests.contract.conftest import Database
from tests.contract.records import CLOCK, MINUTE, NOBODY, NOW, audit_entry, enrol, recording, sha256
from verifier.appraisal.lineage import Lineage
from verifier.errors import StateMovedError
from verifier.ports import GuestIdentity
from verifier.store import values
from verifier.store.schema import attestation, blob, boot, judgement, latest

LOG = b"boot log" * 100


def at_position(item, position, **changes):
    """Judged at a position, of a boot that goes on."""
    return structs.replace(item, position=position, boot_goes_on=position != 0, **changes)


def at(minutes, **clock):
    moment = NOW + timedelta(minutes=minutes)
    return recording("att-1", at=moment, clock=structs.replace(CLOCK, **clock), boot_log=LOG)


async def boots(store):
    columns = boot.c.reset_count, boot.c.clock, boot.c.first_seen_at, boot.c.seen_at
    return [tuple(row) for row in await store._backend.rows(select(*columns).order_by(boot.c.reset_count))]


class TestBoots:
    async def test_a_boot_that_goes_on_is_told_with_its_newest_clock(self, store):
        await enrol(store, "att-1")
        for position, clock in enumerate((10, 20, 30)):
            assert await store.record(at_position(at(position, clock=clock, safe=clock < 30), position))
        state = await store.attester_state("att-1")
        assert state.boot.clock == structs.replace(CLOCK, clock=30, safe=False)
        assert state.boot.seen_at == NOW + timedelta(minutes=2)
        assert state.boot.firmware_version == at(0).boot.firmware_version

    async def test_what_a_boot_showed_last_is_kept_when_another_follows(self, store):
        await enrol(store, "att-1")
        for position, clock in enumerate((10, 20)):
            await store.record(at_position(at(position, reset_count=1, clock=clock), position))
        rebooted = at_position(at(5, reset_count=2, clock=25), 2)
        await store.record(structs.replace(rebooted, boot_goes_on=False))
        begun = values.micros(NOW)
        minute = 60_000_000
        assert await boots(store) == [
            (1, 20, begun, begun + minute),
            (2, 25, begun + 5 * minute, begun + 5 * minute),
        ]

    async def test_a_boot_that_changed_is_written(self, store):
        await enrol(store, "att-1")
        await store.record(at_position(at(0), 0))
        item = at_position(at(1), 1)
        changed = structs.replace(item.boot, ima='{"entries":7}', userspace_log_sha256=sha256(b"u"))
        await store.record(structs.replace(item, boot=changed, boot_goes_on=False))
        await store.record(at_position(at(2), 2))
        state = await store.attester_state("att-1")
        assert (state.boot.ima, state.boot.userspace_log_sha256) == (changed.ima, sha256(b"u"))


class TestContents:
    async def test_one_row_for_all_that_say_the_same(self, store):
        await asyncio.gather(*(enrol(store, f"att-{number}") for number in range(8)))
        for round_ in range(3):
            moment = NOW + timedelta(minutes=round_)
            await asyncio.gather(
                *(store.record(recording(f"att-{n}", at=moment, boot_log=LOG)) for n in range(8))
            )
        ((logs,),) = await store._backend.rows(
            select(func.count()).where(blob.c.digest == sha256(LOG)).select_from(blob)
        )
        ((judgements,),) = await store._backend.rows(select(func.count()).select_from(judgement))
        assert (logs, judgements) == (1, 1)
        assert await store.blob(sha256(LOG)) == LOG

    async def test_what_was_dropped_is_written_when_it_comes_again(self, store):
        """Whatever day that is: clocks have been set back before."""
        await enrol(store, "att-1")
        await store.record(at(0))
        await store.record(recording("att-1", at=NOW + timedelta(days=3), boot_log=b"another"))
        assert await store.purge_evidence(NOW + timedelta(days=2)) > 0
        assert await store.blob(sha256(LOG)) is None
        await store.record(at(1))
        assert await store.blob(sha256(LOG)) == LOG

    async def test_a_blob_named_on_another_day_is_kept_for_that_day(self, store):
        """By whoever brings it again, and by whoever only names it."""
        await enrol(store, "att-1")
        await store.record(at(0))
        for days, brings in ((1, True), (2, False), (3, False)):
            item = recording("att-1", at=NOW + timedelta(days=days), boot_log=LOG)
            await store.record(item if brings else structs.replace(item, blobs={}))
            ((used,),) = await store._backend.rows(
                select(blob.c.last_used_at).where(blob.c.digest == sha256(LOG))
            )
            assert used == values.micros(NOW + timedelta(days=days)) // values.DAY * values.DAY

    async def test_a_failed_transaction_is_no_promise(self, store):
        """What it would have stored is stored by the next."""
        await enrol(store, "att-1")
        broken = structs.replace(at(0), verdict=structs.replace(at(0).verdict, policy_revision=object()))
        with_log = structs.replace(broken, blobs=at(0).blobs)
        (failed,) = await asyncio.gather(store.record(with_log), return_exceptions=True)
        assert isinstance(failed, Exception)
        assert await store.blob(sha256(LOG)) is None
        await store.record(at(1))
        assert await store.blob(sha256(LOG)) == LOG


async def judged_again(store):
    """The verdict at hand, judged again from stored evidence."""
    verdict = (await store.attester_state("att-1")).latest
    await store.rejudge([structs.replace(verdict, rejudged_at=NOW)], audit_entry())


async def enrolled_again(store):
    """With the same keys, by nobody with authority: only what is known of its EK may be other."""
    before = await store.attester_state("att-1")
    ek, ak = before.attester.ek_fingerprint, before.attester.ak_name
    await enrol(store, "att-1", now=NOW + MINUTE, ek_fingerprint=ek, ak_name=ak, endorsed_by="inventory")


async def resolved(store):
    before = await store.attester_state("att-1")
    assert await store.resolve_lineage("default", "att-1", before.position, Lineage(), audit_entry())


async def warm(store):
    """What is held is forgotten when a connection is made: after this, steady attestations are stored at once."""
    await enrol(store, "att-2")
    await store.record(recording("att-2", boot_log=LOG))
    state = await store.attester_state("att-2")
    item = recording("att-2", boot_log=LOG, identity=state.attester.identity)
    await store.record(at_position(item, state.position, judged_by=state))


CHANGES = {
    "revoked": lambda store: store.revoke_attester("default", "att-1", NOW),
    "labelled": lambda store: store.set_labels("default", "att-1", {"site": "b"}, audit_entry()),
    "another policy": lambda store: store.assign_policy("default", "att-1", "strict", audit_entry()),
    "judged again": judged_again,
    "enrolled again": enrolled_again,
    "resolved": resolved,
    "heard": lambda store: store.record(at(1)),
}


class TestJudgedBy:
    async def test_what_a_steady_attestation_leaves_is_what_is_read(self, store):
        await enrol(store, "att-1")
        await store.record(at(0))
        for minutes in (1, 2, 3):
            state = await store.attester_state("att-1")
            line = Lineage(clock=CLOCK, step=minutes) if minutes < 3 else None
            item = at_position(at(minutes, clock=minutes), state.position, judged_by=state, lineage=line)
            item = structs.replace(item, identity=state.attester.identity)
            left = state.after(item, await store.record(item))
            assert left == await store.attester_state("att-1"), minutes

    async def test_what_may_leave_more_has_to_be_read(self, store):
        await enrol(store, "att-1")
        await store.record(at(0))
        state = await store.attester_state("att-1")
        item = at_position(at(1), state.position, judged_by=state, identity=state.attester.identity)
        assert state.after(item, item.verdict) is not None
        assert state.after(structs.replace(item, boot_goes_on=False), item.verdict) is None
        other = GuestIdentity(hostname="renamed")
        assert state.after(structs.replace(item, identity=other), item.verdict) is None

    @pytest.mark.parametrize("steady", [False, True])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_nothing_is_stored_that_was_judged_by_what_is_no_more(self, store, change, steady):
        """Whoever changed it: the nonce stays good for evidence that is judged by what is."""
        await enrol(store, "att-1")
        await store.record(at(0))
        state = await store.attester_state("att-1")
        item = at_position(at(2), None, judged_by=state)
        if steady:
            await warm(store)
            item = structs.replace(item, position=state.position, identity=state.attester.identity)
        await CHANGES[change](store)
        now = await store.attester_state("att-1")
        assert now != state
        with pytest.raises(StateMovedError):
            await store.record(item)
        assert await store.attester_state("att-1") == now
        item = structs.replace(item, judged_by=now, position=now.position if steady else None)
        assert await store.record(item) is not None

    async def test_a_restored_database_at_the_same_position_is_another(self, store):
        await enrol(store, "att-1")
        await store.record(at(0))
        state = await store.attester_state("att-1")
        lost = structs.replace(state, latest=structs.replace(state.latest, evidence_sha256=bytes(32)))
        await warm(store)
        for identity in (NOBODY, state.attester.identity):
            item = at_position(at(1), state.position, judged_by=lost, identity=identity)
            with pytest.raises(StateMovedError):
                await store.record(item)

    async def test_of_two_at_once_one_is_judged_again(self, store):
        await enrol(store, "att-1")
        await store.record(at(0))
        state = await store.attester_state("att-1")
        items = [at_position(at(minutes), state.position, judged_by=state) for minutes in (1, 2)]
        done = await asyncio.gather(*map(store.record, items), return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["StateMovedError", "VerdictRecord"]


class TestSqlite:
    async def test_what_vanished_behind_our_back_fails_once(self, tmp_path):
        """Nobody but us drops judgements; should somebody, the next one is stored with its own again."""
        database = Database(f"sqlite:///{tmp_path}/verifier.db", "")
        store = await database.open()
        await enrol(store, "att-1")
        await store.record(at(0))

        def drop(connection):
            connection.execute(update(latest).values(judgement=None))
            connection.execute(delete(attestation))
            connection.execute(delete(judgement))

        await store._backend.write(drop)
        (failed,) = await asyncio.gather(store.record(at(1)), return_exceptions=True)
        assert isinstance(failed, Exception)
        assert (await store.record(at(2))).sequence == 2
        await database.close()
