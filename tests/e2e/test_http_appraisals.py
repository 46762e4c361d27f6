"""Background checks over HTTP: what a relying party's nonce proves, and that nothing is moved by it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os

import jwt
import pytest

from agent.bundle import qualifying_data as agents_binding
from tests import ima_guest
from tests.e2e.test_http_ima import LONG, verifiers
from tests.e2e.test_http_incidents import A, B, incidents, resolve, two_guests
from tests.harness import LINE, PCRS, b64, boot_log, unb64
from verifier.ports import Scope
from verifier.service.background_check import qualifying_data

RP = Scope.RELYING_PARTY
NONCE = bytes(range(100, 120))


def bundle(guest, nonce=NONCE, *, over=None, ratchet=True, quoted=PCRS, **changes):
    """What `attest-agent attest --nonce` writes."""
    over = qualifying_data(nonce) if over is None else over
    attest, signature = guest.tpm.quote(over, {"sha256": quoted})
    values = guest.tpm.pcrs("sha256")
    document = {
        "format": "vtpm-attest/bundle/1",
        "nonce": over.hex(),
        "relying_party_nonce": nonce.hex(),
        "ak_public": b64(guest.tpm.ak_public),
        "ek_public": b64(guest.tpm.ek_public),
        "ek_certificates": [],
        "quote": {"attest": b64(attest), "signature": b64(signature)},
        "pcrs": {"sha256": {str(pcr): values[pcr].hex() for pcr in quoted}},
        "boot_log": b64(guest.log),
        "ima_log": None,
        "identity": guest.identity | {"os": "debian", "agent_version": "0.1.0"},
        "kernel_command_line": LINE,
        "boot_id": guest.boot_id,
        "collected_at": "2026-03-01T12:00:00Z",
        "userspace_log": None,
        "nvpcrs": [],
        "ratchet": shown_ratchet(guest, over) if ratchet else None,
    }
    return document | changes


def shown_ratchet(guest, over):
    """The index as it is, with the step that led there."""
    numbers = list(guest.tpm._state.nv)
    if not numbers:
        return None
    attest, signature = guest.tpm.nv_certify(over, numbers[0])
    return {"attest": b64(attest), "signature": b64(signature)} | guest.hints.get(
        guest.tpm.nv_index(numbers[0]).value, {}
    )


async def ask(verifier, evidence, nonce=NONCE, *, query="", scope=RP, accept="application/json", **more):
    body = {"nonce": b64(nonce), "evidence": evidence} | more
    return await verifier.post(f"/v1/appraisals{query}", body, scope=scope, headers={"Accept": accept})


@pytest.fixture
async def guest(verifier):
    """A guest that has attested twice, so that its ratchet has moved."""
    guest = await verifier.guest()
    for _ in range(2):
        await guest.speak()
    return guest


def test_agent_and_verifier_bind_a_nonce_alike():
    assert agents_binding(NONCE) == qualifying_data(NONCE)
    assert qualifying_data(NONCE) == hashlib.sha256(b"vtpm-attest appraisal v1" + NONCE).digest()


async def test_evidence_over_the_relying_partys_nonce_is_judged_and_nothing_is_kept(verifier, guest):
    await ask(verifier, bundle(guest))
    latest = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")
    before = verifier.rows()
    answer = await ask(verifier, bundle(guest))
    assert answer.status == 200, answer.content
    assert unb64(answer.json["nonce"]) == NONCE
    verdict = answer.json["verdict"]
    assert (verdict["attester_id"], verdict["status"], verdict["sequence"]) == (
        guest.attester_id,
        "affirming",
        0,
    )
    codes = {finding["code"] for finding in verdict["findings"]}
    assert {"quote-verified", "clock-continues", "ratchet-continues", "secure-boot-on"} <= codes
    assert verdict["policy"]["id"] == "secure-boot"
    assert verifier.rows() == before
    assert (await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")).content == latest.content
    assert (await guest.speak())["status"] == "affirming", "its own line of states was not disturbed"


async def test_what_is_wrong_is_in_the_answer_and_not_in_the_latest_verdict(verifier, clock, guest):
    guest.reboot(boot_log(secure=False))
    verdict = (await ask(verifier, bundle(guest))).json["verdict"]
    assert verdict["status"] == "contraindicated"
    latest = (await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")).json
    assert (latest["status"], latest["sequence"]) == ("affirming", 2)


async def test_an_attester_that_never_attested_can_be_checked(verifier):
    guest = await verifier.guest()
    assert (await ask(verifier, bundle(guest))).json["verdict"]["status"] == "affirming"
    answer = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")
    assert answer.status == 404


@pytest.mark.parametrize("size", [8, 64])
async def test_the_nonce_may_be_signed_as_it_is_by_other_tools(verifier, guest, size):
    nonce = os.urandom(size)
    answer = await ask(verifier, bundle(guest, nonce, over=nonce), nonce)
    assert answer.json["verdict"]["status"] == "affirming"


async def test_another_nonce_proves_nothing(verifier, guest):
    for over in (qualifying_data(b"another nonce"), b"another nonce", b""):
        answer = await ask(verifier, bundle(guest, over=over))
        assert (answer.status, answer.code) == (403, "quote-nonce")


async def test_evidence_for_a_relying_party_is_no_attestation(verifier, guest):
    """Who chose the nonce may have got it from the verifier: the binding makes something else of it."""
    challenge = await guest.challenge()
    evidence = bundle(guest, unb64(challenge["nonce"]))
    body = guest.evidence(challenge) | {
        "attest": evidence["quote"]["attest"],
        "signature": evidence["quote"]["signature"],
    }
    answer = await verifier.post("/v1/attestations", body)
    assert (answer.status, answer.code) == (403, "quote-nonce")


async def test_only_keys_that_are_enrolled_here_are_known(verifier, guest):
    stranger = await verifier.guest(2)
    foreign = await verifier.token(RP, tenant="other")
    cases = {
        "another's EK": (bundle(guest, ek_public=b64(stranger.tpm.ek_public)), {}),
        "no EK": (bundle(guest, ek_public=None), {}),
        "another attester is meant": (bundle(guest), {"attester_id": stranger.attester_id}),
        "nobody is meant": (bundle(guest), {"attester_id": "att-nobody"}),
        "another's AK": (bundle(guest, ak_public=b64(stranger.tpm.ak_public)), {}),
    }
    for name, (evidence, more) in cases.items():
        answer = await ask(verifier, evidence, **more)
        assert (answer.status, answer.code) == (403, "ak-unproven"), name
    for named in ({}, {"attester_id": guest.attester_id}):
        answer = await verifier.post(
            "/v1/appraisals", {"nonce": b64(NONCE), "evidence": bundle(guest)} | named, token=foreign
        )
        assert (answer.status, answer.code) == (403, "ak-unproven")
    named = await ask(verifier, bundle(guest, ek_public=None), attester_id=guest.attester_id)
    assert named.json["verdict"]["status"] == "affirming"


async def test_a_signature_of_another_key_is_refused(verifier, guest):
    stranger = await verifier.guest(2)
    evidence = bundle(guest, quote=bundle(stranger)["quote"])
    answer = await ask(verifier, evidence)
    assert (answer.status, answer.code) == (403, "quote-signature")


async def test_a_revoked_attester_proves_nothing(verifier, guest):
    await verifier.call("POST", f"/v1/attesters/{guest.attester_id}/revoke", scope=Scope.OPERATOR)
    answer = await ask(verifier, bundle(guest))
    assert (answer.status, answer.code) == (403, "attester-revoked")


async def test_late_evidence_is_collected_again_and_an_old_state_is_a_rollback(verifier, clock, guest):
    old = bundle(guest)
    copy = guest.copied(running=True)
    clock.advance(seconds=10)
    await guest.speak()
    answer = await ask(verifier, old)
    assert (answer.status, answer.code) == (409, "evidence-overtaken")
    clock.advance(minutes=3)
    verdict = (await ask(verifier, bundle(copy))).json["verdict"]
    codes = {finding["code"] for finding in verdict["findings"] if finding["status"] != "passed"}
    assert verdict["status"] == "contraindicated"
    assert "ratchet-rollback" in codes
    incidents = (await verifier.get("/v1/incidents", Scope.OPERATOR)).json
    assert incidents["incidents"] == [], "a relying party opens no incident"
    assert (await guest.speak())["status"] == "affirming"


async def test_without_the_ratchet_it_is_not_proven_to_be_the_machine(verifier, guest):
    verdict = (await ask(verifier, bundle(guest, ratchet=False))).json["verdict"]
    assert verdict["status"] == "none"
    assert "ratchet-missing" in {finding["code"] for finding in verdict["findings"]}


@pytest.mark.parametrize("profile", ["", "&profile=veraison"])
async def test_an_ear_carries_the_relying_partys_nonce(verifier, guest, profile):
    answer = await ask(verifier, bundle(guest), query=f"?audience=rp{profile}", accept="application/eat+jwt")
    assert answer.headers["Content-Type"] == "application/eat+jwt"
    keys = (await verifier.call("GET", "/.well-known/jwks.json")).json["keys"]
    key = jwt.PyJWK(keys[0])
    claims = jwt.decode(answer.content, key, algorithms=["ES256"], audience="rp")
    assert claims["eat_nonce"] == base64.urlsafe_b64encode(NONCE).rstrip(b"=").decode()
    assert claims["sub"] == guest.attester_id
    older = await ask(verifier, bundle(guest), query="?profile=veraison", accept="application/eat+cwt")
    assert (older.status, older.code) == (400, "malformed-request")
    assert (await ask(verifier, bundle(guest), accept="application/eat+cwt")).status == 200


async def test_what_cannot_be_read_is_refused(verifier, guest):
    good = bundle(guest)
    cases = {
        "short nonce": {"nonce": b64(b"1234567"), "evidence": good},
        "long nonce": {"nonce": b64(bytes(65)), "evidence": good},
        "no evidence": {"nonce": b64(NONCE)},
        "another format": {"nonce": b64(NONCE), "evidence": good | {"format": "x"}},
        "bad hex": {"nonce": b64(NONCE), "evidence": good | {"pcrs": {"sha256": {"0": "zz"}}}},
        "short value": {"nonce": b64(NONCE), "evidence": good | {"pcrs": {"sha256": {"0": "00"}}}},
        "bad bank": {"nonce": b64(NONCE), "evidence": good | {"pcrs": {"md5": {}}}},
        "bad base64": {"nonce": b64(NONCE), "evidence": good | {"boot_log": "%"}},
        "garbled quote": {"nonce": b64(NONCE), "evidence": good | {"quote": {"attest": b64(b"x"), "signature": ""}}},
        "garbled AK": {"nonce": b64(NONCE), "evidence": good | {"ak_public": b64(b"x")}},
        "garbled EK": {"nonce": b64(NONCE), "evidence": good | {"ek_public": b64(b"x")}},
        "garbled log": {"nonce": b64(NONCE), "evidence": good | {"boot_log": b64(b"x" * 40)}},
        "unknown field": {"nonce": b64(NONCE), "evidence": good, "x": 1},
    }  # fmt: skip
    for name, body in cases.items():
        answer = await verifier.post("/v1/appraisals", body, scope=RP)
        assert answer.status == 400, (name, answer.content)
        assert answer.code in {"malformed-request", "malformed-structure", "quote-magic"}, name
    answer = await ask(verifier, good | {"boot_log": b64(bytes(4 * 1024 * 1024 + 1))})
    assert (answer.status, answer.code) == (413, "body-too-large")
    answer = await ask(verifier, good | {"ima_log": b64(bytes(20 * 1024 * 1024))})
    assert (answer.status, answer.code) == (413, "body-too-large")


async def test_who_may_ask(verifier, guest):
    for scope in (Scope.DASHBOARD, Scope.AUDITOR):
        answer = await ask(verifier, bundle(guest), scope=scope)
        assert (answer.status, answer.code) == (403, "forbidden")
    assert (await ask(verifier, bundle(guest), scope=Scope.OPERATOR)).status == 200


async def test_no_more_are_judged_at_once_than_there_is_room_for(verifier, guest):
    evidence, checks = bundle(guest), verifier.service.services.checks
    taken = [await checks._turns.acquire() for _ in range(4)]
    assert all(taken)
    waiting = [asyncio.ensure_future(ask(verifier, evidence)) for _ in range(70)]
    done, rest = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 6:
        more, rest = await asyncio.wait(rest, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    for refused in done:
        assert (refused.result().status, refused.result().code) == (429, "rate-limited")
        assert int(refused.result().headers["Retry-After"]) >= 1
    for _ in taken:
        checks._turns.release()
    assert {(await one).status for one in rest} == {200}


async def test_a_machine_that_was_called_a_copy_is_not_heard(verifier):
    original, copy = await two_guests(verifier)
    (found,) = await incidents(verifier)
    done = await resolve(verifier, found["id"], keep=A, reenroll=B, reason="b is the copy")
    assert done.status == 200, done.content
    answer = await ask(verifier, bundle(copy, identity={"smbios_uuid": B}))
    assert (answer.status, answer.code) == (403, "reenrollment-required")
    assert (await ask(verifier, bundle(original, identity={"smbios_uuid": A}))).status == 200


@pytest.mark.parametrize("programs", [3, LONG])
async def test_the_ima_list_of_a_bundle_is_judged_and_not_remembered(tmp_path, programs):
    async with verifiers(tmp_path) as (verifier, _):
        machine = await ima_guest.MeasuringGuest.enrolled(verifier, programs=programs)
        await machine.attest()

        async def judged(**changes):
            evidence = bundle(machine.guest, quoted=ima_guest.PCRS, ima_log=b64(machine.kernel.list))
            verdict = (await ask(verifier, evidence | changes)).json["verdict"]
            codes = {one["code"] for one in verdict["findings"] if one["status"] != "passed"}
            return verdict["status"], codes

        assert await judged() == ("affirming", set())
        assert await judged(ima_log=None) == ("none", {"ima-list-missing"})
        machine.run("/tmp/dropped")
        before = verifier.rows()
        assert await judged() == ("contraindicated", {"ima-file-unknown"})
        assert verifier.rows() == before
        latest = await verifier.get(f"/v1/attesters/{machine.attester_id}/verdict")
        assert latest.json["status"] == "affirming"
        reply = await machine.attest(machine.guest.carried)
        assert machine.sent[-1][0] > 0, "the attester's own list goes on from where it was"
        assert reply["verdict"]["status"] == "contraindicated"
