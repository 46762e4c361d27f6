"""Evidence is kept as long as a verdict that counts was judged from it, and dropped after."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from msgspec import structs

from tests.contract.records import NOW, enrol, recording, sha256

DAY = timedelta(days=1)
OLD = b"the log of an old image" * 20
NEW = b"the log of a new image" * 20


async def held(store, attester_id, sequence) -> set[str]:
    """Roles of a verdict's evidence that are still there, whole."""
    roles = await store.evidence_of("default", attester_id, sequence)
    return {role for role, digest in roles.items() if await store.blob(bytes.fromhex(digest)) is not None}


async def test_superseded_evidence_goes_and_the_latest_stays_however_old(store):
    await enrol(store, "att-1")
    await enrol(store, "silent")
    await store.record(recording("silent", at=NOW - 400 * DAY, boot_log=b"seen once" * 50))
    await store.record(recording("att-1", at=NOW - 60 * DAY, boot_log=OLD))
    await store.record(recording("att-1", at=NOW - 29 * DAY, boot_log=NEW))
    await store.record(recording("att-1", at=NOW - 28 * DAY, boot_log=NEW))
    assert await store.purge_evidence(NOW - 30 * DAY) == 2  # the first quote and its log
    assert await held(store, "att-1", 1) == set()
    for attester_id, sequence in (("att-1", 2), ("att-1", 3), ("silent", 1)):
        assert await held(store, attester_id, sequence) == {"quote", "boot-log"}
    assert await store.purge_evidence(NOW) == 1  # the second quote; its log is that of the third
    assert await held(store, "att-1", 2) == {"boot-log"}
    for attester_id, sequence in (("att-1", 3), ("silent", 1)):
        assert await held(store, attester_id, sequence) == {"quote", "boot-log"}
    assert await store.purge_evidence(NOW + 400 * DAY) == 0


async def test_a_log_that_others_still_use_stays_and_history_keeps_its_verdicts(store):
    await enrol(store, "att-1")
    await enrol(store, "att-2")
    await store.record(recording("att-1", at=NOW - 9 * DAY, boot_log=OLD))
    await store.record(recording("att-2", at=NOW - 8 * DAY, boot_log=OLD))
    await store.record(recording("att-1", at=NOW - 7 * DAY, boot_log=NEW))
    before = await store.history("default", "att-1", before=None, limit=10)
    assert await store.purge_evidence(NOW) == 1
    assert await store.blob(sha256(OLD)) == OLD
    assert await store.history("default", "att-1", before=None, limit=10) == before


async def test_a_log_named_without_being_sent_counts_as_used(store):
    await enrol(store, "att-1")
    first = recording("att-1", at=NOW - 9 * DAY, boot_log=OLD)
    await store.record(first)
    steady = recording("att-1", at=NOW, boot_log=OLD)
    named = {digest: data for digest, data in steady.blobs.items() if digest != sha256(OLD)}
    await store.record(structs.replace(steady, blobs=named))
    assert await store.purge_evidence(NOW - DAY) == 1  # the first quote
    assert await held(store, "att-1", 2) == {"quote", "boot-log"}


async def test_the_day_of_the_limit_is_kept_whole(store):
    await enrol(store, "att-1")
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    await store.record(recording("att-1", at=midnight, boot_log=OLD))
    await store.record(recording("att-1", at=midnight + DAY, boot_log=NEW))
    assert await store.purge_evidence(midnight + DAY - timedelta(microseconds=1)) == 0
    assert await store.purge_evidence(midnight + DAY) == 2


async def test_evidence_that_comes_back_into_use_while_old_is_dropped_is_never_lost(database):
    """Two replicas: one drops, the other records guests that boot the old image again and send its log whole."""
    recorder, dropper = await database.open(), await database.open()
    names = [f"att-{number}" for number in range(24)]
    for name in names:
        await enrol(recorder, name)
    logs = [b"log %d " % number * 40 for number in range(3)]
    for number, name in enumerate(names):
        await recorder.record(recording(name, at=NOW - 90 * DAY, boot_log=logs[number % 3]))
        await recorder.record(recording(name, at=NOW - 60 * DAY, boot_log=NEW))

    async def drop():
        for _ in range(12):
            await dropper.purge_evidence(NOW - 30 * DAY)

    async def boot_again():
        for number, name in enumerate(names):
            await recorder.record(recording(name, at=NOW, boot_log=logs[number % 3]))

    await asyncio.wait_for(asyncio.gather(drop(), boot_again()), 60)
    for name in names:
        assert await held(recorder, name, 3) == {"quote", "boot-log"}
    await dropper.purge_evidence(NOW - 30 * DAY)
    assert [await held(recorder, name, 2) for name in names] == [set()] * len(names)


async def test_a_blob_that_is_named_again_after_it_was_found_unneeded_stays(store):
    await enrol(store, "att-1")
    await store.record(recording("att-1", at=NOW - 90 * DAY, boot_log=OLD))
    await store.record(recording("att-1", at=NOW - 60 * DAY, boot_log=NEW))
    look = store._candidates

    async def look_and_be_overtaken(*arguments):
        found = await look(*arguments)
        if found:
            await store.record(recording("att-1", at=NOW, boot_log=OLD))
        return found

    store._candidates = look_and_be_overtaken
    assert await store.purge_evidence(NOW - 30 * DAY) == 1  # the first quote; the log is in use again
    assert await held(store, "att-1", 3) == {"quote", "boot-log"}
