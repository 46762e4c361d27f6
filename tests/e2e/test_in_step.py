"""Attestations that arrive at once go through their stages together, and one that is given up leaves all of it or nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.harness import Guest, Harness
from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.service import attestation
from verifier.web import wire_codec as wire

_TURNS = 12
"""More turns of the loop than an attestation takes to its commit."""


async def _command(guest: Guest):
    body = json.dumps(guest.evidence(await guest.challenge())).encode()
    return wire.attest_command(wire.decode_body(body, wire.AttestationRequest, wire.JSON), "192.0.2.1")


async def _steady(verifier: Harness, count: int) -> list[Guest]:
    guests = [await verifier.guest(seed) for seed in range(1, count + 1)]
    for guest in guests:
        await guest.attest()
    return guests


async def test_all_are_judged_before_any_is_recorded(verifier, monkeypatch):
    seen = []
    judge, record = attestation.appraise_staged, verifier.service.store.record

    def judged(*arguments):
        seen.append("judged")
        return judge(*arguments)

    async def recorded(recording):
        seen.append("recorded")
        return await record(recording)

    commands = [await _command(guest) for guest in await _steady(verifier, 5)]
    monkeypatch.setattr(attestation, "appraise_staged", judged)
    monkeypatch.setattr(verifier.service.store, "record", recorded)
    attest = verifier.service.services.attestations.attest
    outcomes = await asyncio.gather(*map(attest, commands))

    assert [outcome.verdict.tier.label for outcome in outcomes] == ["affirming"] * 5
    assert seen == ["judged"] * 5 + ["recorded"] * 5


@pytest.mark.parametrize("turns", range(_TURNS))
async def test_given_up_at_any_turn_it_is_stored_whole_or_not_at_all(verifier, turns):
    (guest,) = await _steady(verifier, 1)
    command = await _command(guest)
    attestations = verifier.service.services.attestations
    before = await _sequence(verifier, guest)

    given_up = asyncio.create_task(attestations.attest(command))
    for _ in range(turns):
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    try:
        again = await attestations.attest(command)
    except RefusedError as error:
        assert error.reason is Reason.NONCE_REUSED
    else:
        assert again.verdict.tier.label == "affirming"
    assert await _sequence(verifier, guest) == before + 1

    answer = await guest.attest()
    assert answer.json["verdict"]["status"] == "affirming"
    assert answer.json["verdict"]["sequence"] == before + 2


async def _sequence(verifier: Harness, guest: Guest) -> int:
    answer = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")
    return answer.json["sequence"]
