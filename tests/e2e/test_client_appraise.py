"""Background checks by the client: a real verifier judges what a guest's TPM signed over the relying party's own nonce."""

from __future__ import annotations

import json
import secrets

import pytest
from aiohttp import web

from tests.e2e.test_client import answering, asking
from tests.e2e.test_http_appraisals import bundle
from tests.harness import b64, boot_log
from verifier.client import EarError, EarFault, RefusedError, ReplyError, Tier


@pytest.fixture
async def guest(verifier):
    guest = await verifier.guest()
    await guest.speak()
    return guest


async def test_fresh_evidence_is_judged_for_the_nonce_it_was_made_for(verifier, guest):
    nonce = secrets.token_bytes(32)
    evidence = bundle(guest, nonce)
    async with asking(verifier) as client:
        verdict = await client.appraise(evidence, nonce, attester_id=guest.attester_id)
        assert verdict.affirming(verifier.clock.now())
        assert (verdict.attester_id, verdict.sequence) == (guest.attester_id, 0)
        assert await client.appraise(json.dumps(evidence).encode(), nonce) == verdict
        with pytest.raises(RefusedError) as refused:
            await client.appraise(evidence, secrets.token_bytes(32))
        assert refused.value.code == "quote-nonce"
        other = await verifier.guest(2)
        with pytest.raises(RefusedError) as refused:
            await client.appraise(evidence, nonce, attester_id=other.attester_id)
        assert refused.value.code == "ak-unproven"


async def test_a_machine_that_changed_since_its_last_verdict_is_found_out(verifier, guest):
    verifier.clock.advance(minutes=3)
    guest.reboot(boot_log(secure=False))
    nonce = secrets.token_bytes(16)
    async with asking(verifier) as client:
        latest = await client.verdict(guest.attester_id)
        now = await client.appraise(bundle(guest, nonce), nonce)
    at = verifier.clock.now()
    assert (latest.tier(at), now.tier(at)) == (Tier.AFFIRMING, Tier.CONTRAINDICATED)


async def test_its_ear_carries_nonce_and_audience(verifier, guest):
    nonce = secrets.token_bytes(33)
    async with asking(verifier) as client:
        ear = await client.appraise_ear(bundle(guest, nonce), nonce, audience="payments")
        assert (ear.standing.attester_id, ear.standing.sequence) == (guest.attester_id, 0)
        assert ear.standing.tier_at(verifier.clock.now()) is Tier.AFFIRMING
        with pytest.raises(EarError) as refused:
            await client.verify_ear(ear.token, audience="payments", nonce="another-nonce")
    assert refused.value.fault is EarFault.NONCE


async def test_a_judgement_about_another_nonce_or_machine_is_not_taken(verifier, guest):
    nonce = secrets.token_bytes(32)
    evidence = bundle(guest, nonce)
    latest = (await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")).json
    said = {"nonce": b64(nonce), "verdict": latest}

    async def handler(_request):
        return web.json_response(said)

    async with answering(verifier, handler) as url, asking(verifier, url) as client:
        assert (await client.appraise(evidence, nonce)).attester_id == guest.attester_id
        with pytest.raises(ReplyError):
            await client.appraise(evidence, nonce, attester_id="att-other")
        said["nonce"] = b64(b"another nonce")
        with pytest.raises(ReplyError):
            await client.appraise(evidence, nonce)
