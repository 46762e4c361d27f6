"""History is kept for a time and no longer, but for what stands now; PostgreSQL drops it by the week."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from sqlalchemy.exc import IntegrityError

from tests.contract.records import NOW, enrol, recording
from tests.contract.test_evidence import held
from tests.harness import FakeClock
from verifier.errors import VerifierFault
from verifier.reasons import Tier
from verifier.service.events import LocalEvents
from verifier.service.recorder import Recorder
from verifier.service.retention import Retention, RetentionRules
from verifier.store import open_store, partitions, values

DAY = timedelta(days=1)


async def sequences(store, attester_id="att-1") -> list[int]:
    """Newest first."""
    found = await store.history("default", attester_id, before=None, limit=1000)
    return [one.sequence for one in found]


async def weeks(store) -> list[str]:
    """Names of the partitions by time."""
    return [one.name for one in await store.storage() if one.ends is not None]


async def rows_of(store, table: str) -> int:
    return await store._backend.write(
        lambda connection: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
    )


async def test_old_verdicts_go_and_the_latest_stays_with_its_evidence_however_old(store):
    for attester_id in ("att-1", "silent"):
        await enrol(store, attester_id)
    for days in (200, 120, 91, 89, 0):
        await store.record(recording("att-1", at=NOW - days * DAY))
    await store.record(recording("silent", at=NOW - 300 * DAY))
    await store.record(recording("silent", at=NOW - 299 * DAY))
    purged = await store.purge_history(NOW - 90 * DAY)
    assert purged.rows == 4
    assert await sequences(store) == [5, 4]
    assert await sequences(store, "silent") == [2]
    await store.purge_evidence(NOW - 30 * DAY)
    assert await held(store, "silent", 2) == {"quote", "boot-log"}
    assert (await store.attester_state("silent")).latest.sequence == 2
    assert (await store.record(recording("att-1"))).sequence == 6
    assert (await store.purge_history(NOW - 90 * DAY)).rows == 0
    assert await store.evidence_of("default", "att-1", 1) is None


async def test_what_was_the_latest_goes_once_another_one_is(store):
    await enrol(store, "att-1")
    await store.record(recording("att-1", at=NOW - 300 * DAY))
    assert (await store.purge_history(NOW - 90 * DAY)).rows == 0
    await store.record(recording("att-1", at=NOW))
    assert (await store.purge_history(NOW - 90 * DAY)).rows == 1


async def test_more_rows_than_one_transaction_takes(store):
    await enrol(store, "att-1")
    await asyncio.gather(*(store.record(recording("att-1", at=NOW - 100 * DAY)) for _ in range(1100)))
    await store.record(recording("att-1"))
    assert (await store.purge_history(NOW - 90 * DAY)).rows == 1100
    assert await sequences(store) == [1101]


async def test_attestations_go_on_while_history_is_dropped(store):
    await enrol(store, "att-1")
    await asyncio.gather(*(store.record(recording("att-1", at=NOW - 100 * DAY)) for _ in range(600)))
    *_, purged = await asyncio.gather(
        *(store.record(recording("att-1", at=NOW)) for _ in range(200)), store.purge_history(NOW - 90 * DAY)
    )
    assert 599 <= purged.rows <= 600
    assert (await sequences(store))[:200] == list(range(800, 600, -1))


async def test_storage_tells_of_every_table(store):
    await enrol(store, "att-1")
    await store.record(recording("att-1"))
    found = {one.name: one for one in await store.storage()}
    assert {"latest", "blob", "audit", "event", "nonce"} <= set(found)
    assert all(one.size > 0 for one in found.values())
    assert ("attestation" in found) != ("attestation_rest" in found)


async def test_weeks_are_made_ahead_once_whoever_makes_them(postgresql_database):
    stores = [await postgresql_database.open() for _ in range(3)]
    far = NOW.replace(year=2031)
    before = set(await weeks(stores[0]))
    made = await asyncio.gather(*(store.prepare_history(far) for store in stores))
    for store in stores:  # what one left to another that was at it
        made.append(await store.prepare_history(far))
    new = sorted(
        (one for one in await stores[0].storage() if one.ends is not None and one.name not in before),
        key=lambda one: one.ends,
    )
    assert len(new) == sum(made) == partitions.AHEAD + 1
    assert new[0].begins <= far < new[0].ends
    assert all(one.ends == after.begins for one, after in itertools.pairwise(new))
    assert await stores[0].prepare_history(far) == 0


async def test_what_came_before_its_week_was_made_moves_into_it(postgresql_database):
    store = await postgresql_database.open()
    await enrol(store, "att-1")
    far = NOW.replace(year=2031)
    for days in (0, 8, 400):
        await store.record(recording("att-1", at=far + days * DAY))
    assert await rows_of(store, "attestation_rest") == 3
    await store.prepare_history(far)
    assert await rows_of(store, "attestation_rest") == 1
    assert await sequences(store) == [3, 2, 1]


async def test_a_week_goes_as_a_whole_when_it_is_over_but_for_what_stands_now(postgresql_database):
    store = await postgresql_database.open()
    for attester_id in ("att-1", "silent"):
        await enrol(store, attester_id)
    far = NOW.replace(year=2031)
    await store.prepare_history(far)
    await store.record(recording("silent", at=far))
    for days in (0, 1, 8, 15):
        await store.record(recording("att-1", at=far + days * DAY))
    week_ends = values.moment(partitions.week_of(values.micros(far)) + partitions.WEEK)
    assert (await store.purge_history(week_ends - timedelta(seconds=1))).partitions == 0
    purged = await store.purge_history(week_ends)
    assert (purged.partitions, purged.size > 0) == (1, True)
    assert await sequences(store) == [4, 3]
    assert await sequences(store, "silent") == [1]
    assert await held(store, "silent", 1) == {"quote", "boot-log"}
    assert await rows_of(store, "attestation_rest") == 1
    await store.record(recording("silent", at=far + 9 * DAY))
    assert (await store.purge_history(week_ends)).rows == 1
    assert await sequences(store, "silent") == [2]


def saying(attester_id, what, at):
    made = recording(attester_id, at=at)
    return structs.replace(made, verdict=structs.replace(made.verdict, findings=({"code": what},)))


async def test_judgements_go_with_the_verdicts_that_named_them(store):
    for attester_id in ("att-1", "silent"):
        await enrol(store, attester_id)
    far = NOW.replace(year=2031)
    await store.prepare_history(far)
    await store.record(saying("silent", "stands", far))
    await store.record(saying("att-1", "goes", far))
    await store.record(saying("att-1", "stays", far + 15 * DAY))
    assert await rows_of(store, "judgement") == 3
    assert (await store.purge_history(far + 14 * DAY)).judgements == 1
    assert (await store.attester_state("silent")).latest.findings == ({"code": "stands"},)
    assert (await store.attester_state("att-1")).latest.findings == ({"code": "stays"},)
    # And it can be said again.
    await store.record(saying("att-1", "goes", far + 16 * DAY))
    assert (await store.attester_state("att-1")).latest.findings == ({"code": "goes"},)
    assert (await store.purge_history(far + 14 * DAY)).judgements == 0


async def test_a_judgement_stays_as_long_as_a_verdict_in_history_names_it(store):
    await enrol(store, "att-1")
    await store.record(saying("att-1", "seen again", NOW - 200 * DAY))
    await store.record(saying("att-1", "seen again", NOW - 80 * DAY))
    await store.record(saying("att-1", "now", NOW))
    assert (await store.purge_history(NOW - 90 * DAY)).judgements == 0
    assert [one.findings[0]["code"] for one in await store.history("default", "att-1", before=None, limit=9)][
        :2
    ] == ["now", "seen again"]


async def test_a_judgement_that_is_named_again_just_before_it_would_go_stays(store, monkeypatch):
    for attester_id in ("att-1", "att-2"):
        await enrol(store, attester_id)
    far = NOW.replace(year=2031)
    await store.prepare_history(far)
    await store.record(saying("att-1", "old", far))
    await store.record(saying("att-1", "now", far + 30 * DAY))
    drop = store._backend.drop

    async def overtaken(work):
        await store.record(saying("att-2", "old", far + 30 * DAY))
        return await drop(work)

    monkeypatch.setattr(store._backend, "drop", overtaken)
    assert (await store.purge_history(far + 14 * DAY)).judgements == 0
    assert (await store.attester_state("att-2")).latest.findings == ({"code": "old"},)


async def test_more_judgements_than_one_transaction_takes_while_others_name_them(store):
    """What is named meanwhile is there afterwards, whoever came first."""
    await enrol(store, "att-1")
    await enrol(store, "att-2")
    said = [f"finding-{number}" for number in range(2 * partitions.CHUNK + 100)]
    far = NOW.replace(year=2031)
    await store.prepare_history(far)
    await asyncio.gather(*(store.record(saying("att-1", what, far)) for what in said))
    await store.prepare_history(far + 30 * DAY)
    await store.record(saying("att-1", "now", far + 30 * DAY))
    again = said[:: len(said) // 50]
    purged, *kept = await asyncio.gather(
        store.purge_history(far + 14 * DAY),
        *(store.record(saying("att-2", what, far + 30 * DAY)) for what in again),
    )
    assert len(said) - len(again) <= purged.judgements <= len(said)
    found = await store.history("default", "att-2", before=None, limit=1000)
    assert sorted(one.findings[0]["code"] for one in found) == sorted(again)
    assert len(kept) == len(again)


async def test_references_are_looked_after_once_judgements_are_dropped(tmp_path):
    store = await open_store(f"sqlite:///{tmp_path}/verifier.db")
    await enrol(store, "att-1")
    await store.record(saying("att-1", "old", NOW - 100 * DAY))
    await store.record(saying("att-1", "now", NOW))

    def drop_all(connection):
        connection.exec_driver_sql("DELETE FROM judgement")

    def fail(connection):
        drop_all(connection)
        raise ValueError("half-way")

    assert (await store.purge_history(NOW - 90 * DAY)).judgements == 1
    with pytest.raises(ValueError, match="half-way"):
        await store._backend.drop(fail)
    with pytest.raises(IntegrityError):
        await store._backend.write(drop_all)
    assert await rows_of(store, "judgement") == 1
    await store.close()


async def test_weeks_are_made_and_dropped_while_others_attest(postgresql_database):
    first, second = await postgresql_database.open(), await postgresql_database.open()
    far = NOW.replace(year=2031)
    for number in range(8):
        await enrol(first, f"att-{number}")
    over = asyncio.Event()

    async def attest(store, number):
        count = 0
        while not over.is_set():
            tier = (Tier.AFFIRMING, Tier.NONE)[count % 2]
            at = far + (count % 40) * DAY
            assert await store.record(recording(f"att-{number}", at=at, tier=tier)) is not None
            count += 1
        return count

    busy = [asyncio.create_task(attest((first, second)[n % 2], n)) for n in range(8)]
    await asyncio.sleep(0.2)
    for days in (0, 7, 14):
        await first.prepare_history(far + days * DAY)
        await second.purge_history(far + days * DAY)
    over.set()
    counts = await asyncio.gather(*busy)
    for number, count in enumerate(counts):
        found = await sequences(first, f"att-{number}")
        assert found[0] == count
        assert len(found) == len(set(found))


async def test_a_week_that_was_taken_out_and_not_dropped_goes_the_next_time(postgresql_database):
    store = await postgresql_database.open()
    await enrol(store, "att-1")
    far = NOW.replace(year=2031)
    await store.prepare_history(far)
    await store.record(recording("att-1", at=far))

    def killed_in_between(connection):
        return partitions.take_out(connection, partitions.partitions(connection)[0])

    assert (await store._backend.write(killed_in_between)).partitions == 1
    (left,) = [one.name for one in await store.storage() if one.name.startswith("dropped_")]
    assert await sequences(store) == [1]
    await store.purge_history(far - 90 * DAY)
    assert left not in [one.name for one in await store.storage()]


def keeper(store, now) -> Retention:
    """What a replica with this clock does from time to time."""
    rules = RetentionRules(history=90 * DAY, evidence=30 * DAY, events=7 * DAY)
    recorder = Recorder(store, LocalEvents())
    return Retention(store=store, outbox=store, recorder=recorder, clock=FakeClock(now), rules=rules)


async def test_a_replica_whose_clock_is_ahead_of_the_databases_drops_nothing(postgresql_database):
    store = await postgresql_database.open()
    await enrol(store, "att-1")
    now = datetime.now(UTC)
    for days in (100, 2, 0):  # 0: in the one week that has a partition, whatever day it is
        await store.record(recording("att-1", at=now - days * DAY))
    wrong = keeper(store, now + 400 * DAY)
    for act in (wrong.history, wrong.evidence, wrong.events, wrong.expired):
        with pytest.raises(VerifierFault, match="clock"):
            await act()
    assert await sequences(store) == [3, 2, 1]
    right = keeper(store, now + timedelta(minutes=30))
    for act in (right.history, right.evidence, right.events, right.expired):
        await act()
    assert await sequences(store) == [3, 2]
    assert right.state.verdicts == 1
    assert right.state.history_begins is not None
