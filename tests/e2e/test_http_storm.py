"""More guests at once than the verifier works on: some are sent away with a time to come back, none is lost."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.test_utils import make_mocked_request

from tests.eventually import eventually
from tests.harness import Guest, running, settings_for
from verifier.ports import Scope
from verifier.service import admission
from verifier.service.admission import Party
from verifier.web import dispatch
from verifier.web.agent_routes import attesting


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
                assert 1 <= int(begun.headers["Retry-After"]) <= 300
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


async def test_clients_that_send_their_bodies_slowly_keep_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "_SLOW", 0.0)
    settings = settings_for(tmp_path, "[limits]\nslots = 1\nqueue = 3\n")
    async with running(settings) as verifier:
        host, port = verifier.url.removeprefix("http://").split(":")
        head = (
            "POST {} HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{{"
        )
        streams = []
        for path in ("/v1/enrollments", "/v1/challenges", "/v1/attestations") * 6:
            streams.append(await asyncio.open_connection(host, int(port)))
            streams[-1][1].write(head.format(path).encode())
        told = [await reader.readuntil(b"\r\n") for reader, _ in streams[:6]]
        assert set(told) == {b"HTTP/1.1 503 Service Unavailable\r\n"}
        guest = await verifier.guest()
        assert (await guest.attest()).status == 200
        for _, writer in streams:
            writer.close()


async def test_nothing_is_done_for_a_client_that_has_gone_while_it_waited(tmp_path):
    """It will come again: the nonce is not spent, and nobody else waits for work that is for nobody."""
    async with running(settings_for(tmp_path, "[limits]\nslots = 1\nqueue = 3\n")) as verifier:
        guest, door = await verifier.guest(), verifier.service.services.admission
        evidence = guest.evidence(await guest.challenge())
        body = json.dumps(evidence).encode()
        with door.enter(Party.BOOTED) as ticket:
            async with ticket.turn():
                host, port = verifier.url.removeprefix("http://").split(":")
                _, writer = await asyncio.open_connection(host, int(port))
                head = "POST /v1/attestations HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nContent-Length: "
                writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
                await eventually(lambda: sum(one.waiting for one in door.states().values()) == 1)
                writer.transport.abort()
                await asyncio.sleep(0.1)
        await eventually(lambda: sum(one.waiting for one in door.states().values()) == 0)
        assert (await verifier.post("/v1/attestations", evidence)).status == 200


@pytest.mark.parametrize(
    ("headers", "party"),
    [
        ({"Content-Length": "1500"}, Party.STEADY),
        ({"Content-Length": "40000"}, Party.BOOTED),
        ({"Content-Length": "1500", "Content-Encoding": "zstd"}, Party.BOOTED),
        ({"Transfer-Encoding": "chunked"}, Party.BOOTED),
    ],
    ids=["small", "with-a-log", "compressed", "of-any-length"],
)
def test_a_steady_attestation_is_known_by_its_head(headers, party):
    assert attesting(make_mocked_request("POST", "/v1/attestations", headers=headers)) is party


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
