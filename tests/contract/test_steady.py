"""What a steady attestation does not write: what is there already, and stays as if it had been written."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

from sqlalchemy import delete, func, select, update

from tests.contract.conftest import Database
from tests.contract.records import CLOCK, NOW, enrol, recording, sha256
from verifier.store import values
from verifier.store.schema import attestation, blob, boot, judgement, latest

LOG = b"boot log" * 100


def at_position(item, position, **changes):
    """Judged at a position, of a boot that goes on."""
    return dataclasses.replace(item, position=position, boot_goes_on=position > 0, **changes)


def at(minutes, **clock):
    moment = NOW + timedelta(minutes=minutes)
    return recording("att-1", at=moment, clock=dataclasses.replace(CLOCK, **clock), boot_log=LOG)


async def boots(store):
    columns = boot.c.reset_count, boot.c.clock, boot.c.first_seen_at, boot.c.seen_at
    return [tuple(row) for row in await store._backend.rows(select(*columns).order_by(boot.c.reset_count))]


class TestBoots:
    async def test_a_boot_that_goes_on_is_told_with_its_newest_clock(self, store):
        await enrol(store, "att-1")
        for position, clock in enumerate((10, 20, 30)):
            assert await store.record(at_position(at(position, clock=clock, safe=clock < 30), position))
        state = await store.attester_state("att-1")
        assert state.boot.clock == dataclasses.replace(CLOCK, clock=30, safe=False)
        assert state.boot.seen_at == NOW + timedelta(minutes=2)
        assert state.boot.firmware_version == at(0).boot.firmware_version

    async def test_what_a_boot_showed_last_is_kept_when_another_follows(self, store):
        await enrol(store, "att-1")
        for position, clock in enumerate((10, 20)):
            await store.record(at_position(at(position, reset_count=1, clock=clock), position))
        rebooted = at_position(at(5, reset_count=2, clock=25), 2)
        await store.record(dataclasses.replace(rebooted, boot_goes_on=False))
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
        changed = dataclasses.replace(item.boot, ima='{"entries":7}', userspace_log_sha256=sha256(b"u"))
        await store.record(dataclasses.replace(item, boot=changed, boot_goes_on=False))
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
            await store.record(item if brings else dataclasses.replace(item, blobs={}))
            ((used,),) = await store._backend.rows(
                select(blob.c.last_used_at).where(blob.c.digest == sha256(LOG))
            )
            assert used == values.micros(NOW + timedelta(days=days)) // values.DAY * values.DAY

    async def test_a_failed_transaction_is_no_promise(self, store):
        """What it would have stored is stored by the next."""
        await enrol(store, "att-1")
        broken = dataclasses.replace(
            at(0), verdict=dataclasses.replace(at(0).verdict, policy_revision=object())
        )
        with_log = dataclasses.replace(broken, blobs=at(0).blobs)
        (failed,) = await asyncio.gather(store.record(with_log), return_exceptions=True)
        assert isinstance(failed, Exception)
        assert await store.blob(sha256(LOG)) is None
        await store.record(at(1))
        assert await store.blob(sha256(LOG)) == LOG


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
