"""More guests at once than the verifier works on: some are sent away with a time to come back, none is lost."""

from __future__ import annotations

import asyncio

from tests.harness import Guest, running, settings_for
from verifier.ports import Scope
from verifier.web import dispatch


async def test_a_storm_is_taken_in_pieces_and_every_guest_gets_its_verdict(tmp_path):
    settings = settings_for(tmp_path, "[limits]\nslots = 2\nqueue = 3\n")
    async with running(settings) as verifier:
        token = await verifier.token(Scope.JOIN)
        guests = [Guest.booted(verifier, seed) for seed in range(14)]
        sent_away = 0

        async def arrive(guest: Guest) -> str:
            nonlocal sent_away
            while True:
                begun = await verifier.post("/v1/enrollments", guest.enrollment(token))
                if begun.status == 201:
                    break
                assert (begun.status, begun.code) == (503, "verifier-unavailable")
                assert 1 <= int(begun.headers["Retry-After"]) <= 10
                sent_away += 1
                await asyncio.sleep(0.05)
            while (done := await guest.activate(begun.json)).status == 503:
                await asyncio.sleep(0.05)
            guest.attester_id = done.json["attester_id"]
            while (
                asked := await verifier.post("/v1/challenges", {"attester_id": guest.attester_id})
            ).status == 503:
                await asyncio.sleep(0.05)
            while (answer := await guest.attest(asked.json)).status == 503:
                await asyncio.sleep(0.05)
            return answer.json["verdict"]["status"]

        verdicts = await asyncio.gather(*map(arrive, guests))
        assert verdicts == ["affirming"] * 14
        assert sent_away > 0
        metrics = (await verifier.get("/metrics")).content.decode()
        assert 'vtpm_attest_queue_wait_seconds_count{queue="admission-new"}' in metrics


async def test_a_client_that_sends_its_body_slowly_holds_no_slot(tmp_path):
    settings = settings_for(tmp_path, "[limits]\nslots = 1\nqueue = 3\n")
    async with running(settings) as verifier:
        host, port = verifier.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/enrollments HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await writer.drain()
        await asyncio.sleep(0.1)
        guest = await verifier.guest()
        assert (await guest.attest()).status == 200
        writer.close()


async def test_a_guest_is_told_when_its_turn_takes_too_long_and_the_slot_is_free_again(tmp_path, monkeypatch):
    settings = settings_for(tmp_path, "[limits]\nslots = 1\nqueue = 3\n")
    async with running(settings) as verifier:
        guest = await verifier.guest()
        challenges, store = [await guest.challenge() for _ in range(2)], verifier.service.store
        with monkeypatch.context() as broken:
            broken.setattr(dispatch, "_LONGEST", 0.2)
            broken.setattr(store, "record", lambda _: asyncio.Event().wait())
            # One holds the only slot, the other waits for it: both are told.
            for answer in await asyncio.gather(*map(guest.attest, challenges)):
                assert (answer.status, answer.code) == (503, "verifier-unavailable")
                assert int(answer.headers["Retry-After"]) > 0
        assert (await guest.attest()).status == 200
