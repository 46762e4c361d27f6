"""The primary dies and its standby takes over: guests are put off, then attest on, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.e2e.test_http_assignments import STRICT, push
from tests.eventually import eventually
from tests.harness import FakeClock, running, settings_for
from tests.postgresql import started


@pytest.fixture
def pair():
    """A primary and the standby that follows it."""
    with started() as primary:
        primary.sql("CREATE DATABASE site")
        standby = primary.standby()
        try:
            yield primary, standby
        finally:
            standby.remove()


@asynccontextmanager
async def replicas(folder, primary, standby):
    url = f"postgresql://verifier@/site?host={standby.root},{primary.root}"
    settings, clock = settings_for(folder, DATABASE=url), FakeClock()
    async with running(settings, clock) as first, running(settings, clock) as second:
        yield first, second


async def test_guests_attest_on_and_every_verdict_they_were_given_is_there(tmp_path, pair):
    primary, standby = pair
    async with replicas(tmp_path, primary, standby) as sites:
        guests = [await sites[0].guest(seed) for seed in range(1, 5)]
        given: dict[str, list[int]] = {guest.attester_id: [] for guest in guests}
        put_off: list[str] = []
        over = asyncio.Event()

        async def live(guest, number):
            while not over.is_set():
                guest.harness = sites[(number := number + 1) % 2]
                asked = await guest.harness.post("/v1/challenges", {"attester_id": guest.attester_id})
                answer = await guest.attest(asked.json) if asked.status == 200 else asked
                if answer.status == 200:
                    given[guest.attester_id].append(answer.json["verdict"]["sequence"])
                else:
                    assert (answer.status, answer.code) == (503, "verifier-unavailable"), answer.content
                    put_off.append(answer.headers["Retry-After"])
                    await asyncio.sleep(0.05)

        living = [asyncio.create_task(live(guest, number)) for number, guest in enumerate(guests)]
        await eventually(lambda: all(len(each) >= 3 for each in given.values()))
        await asyncio.to_thread(primary.stop, "immediate")
        await eventually(lambda: len(put_off) >= 4)
        await asyncio.to_thread(standby.promote)
        before = {key: len(each) for key, each in given.items()}

        def all_go_on():
            for ended in living:
                if ended.done():
                    ended.result()  # what a guest was told that it should not have been
            return all(len(each) >= before[key] + 3 for key, each in given.items())

        await eventually(all_go_on)
        over.set()
        await asyncio.gather(*living)
        for guest in guests:
            history = (await sites[1].get(f"/v1/attesters/{guest.attester_id}/history?limit=100")).json
            stored = [one["sequence"] for one in history["verdicts"]]
            assert stored == list(range(len(stored), 0, -1))
            acknowledged = given[guest.attester_id]
            assert len(acknowledged) == len(set(acknowledged))
            assert set(acknowledged) <= set(stored)
        assert all(int(seconds) > 0 for seconds in put_off)


async def test_replicas_tell_each_other_again_and_no_nonce_is_good_twice(tmp_path, pair):
    primary, standby = pair
    async with replicas(tmp_path, primary, standby) as (first, second):
        guest = await first.guest()
        body = guest.evidence(await guest.challenge())
        assert (await first.post("/v1/attestations", body)).status == 200
        await asyncio.to_thread(primary.stop, "immediate")
        await asyncio.to_thread(standby.promote)

        async def refused():
            answer = await second.post("/v1/attestations", body)
            return answer.status != 503 and answer.code == "nonce-reused"

        await eventually(refused)
        await eventually(lambda: all(one.service.store.announcements.state.told for one in (first, second)))
        guest.harness = second
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        await push(first, STRICT)

        async def judged():
            return (await guest.attest()).json["verdict"]["status"] == "contraindicated"

        await eventually(judged)


async def test_a_primary_that_takes_no_more_writes_is_left_for_the_one_that_does(tmp_path, pair):
    primary, standby = pair
    async with replicas(tmp_path, primary, standby) as (first, _):
        guest = await first.guest()
        assert (await guest.attest()).status == 200
        primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        primary.sql("SELECT pg_reload_conf()")
        await asyncio.to_thread(standby.promote)

        async def attested():
            asked = await first.post("/v1/challenges", {"attester_id": guest.attester_id})
            return asked.status == 200 and (await guest.attest(asked.json)).status == 200

        await eventually(attested)
        assert standby.rows("SELECT max(sequence) FROM attestation", "site") == ["2"]
