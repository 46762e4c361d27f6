"""What a machine that was not answered owes when it asks again: nothing; and what its token opens for nobody else."""

from __future__ import annotations

import asyncio

from tests.harness import Guest
from tests.simulator import AkProfile
from verifier.ports import Scope


async def uses_left(verifier):
    return [
        one["uses_left"] for one in (await verifier.get("/v1/tokens")).json["tokens"] if "uses_left" in one
    ]


async def begin(guest, token):
    return await guest.harness.post("/v1/enrollments", guest.enrollment(token))


def refused(answer):
    return (answer.status, answer.code) == (401, "join-token-invalid")


async def test_a_machine_that_lost_the_challenge_asks_again_for_nothing(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=2), Guest.booted(verifier)
    answers = [await begin(guest, token) for _ in range(3)]
    assert [answer.status for answer in answers] == [201] * 3
    assert await uses_left(verifier) == [1]
    assert (await guest.activate(answers[0].json)).status == 200, "each of the challenges is as good"


async def test_what_one_machine_paid_no_other_has(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=1), Guest.booted(verifier)
    assert (await begin(guest, token)).status == 201
    assert refused(await begin(Guest.booted(verifier, 2), token))
    guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="another"))
    assert refused(await begin(guest, token)), "another key of the same TPM is another question"


async def test_a_challenge_that_ran_out_is_paid_anew(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=1), Guest.booted(verifier)
    assert (await begin(guest, token)).status == 201
    verifier.clock.advance(minutes=6)
    assert refused(await begin(guest, token))


async def test_a_machine_that_lost_the_answer_to_its_proof_learns_of_it(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=1), Guest.booted(verifier)
    done = await guest.activate((await begin(guest, token)).json)
    again = await begin(guest, token)
    assert again.status == 201
    assert (await guest.activate(again.json)).json["attester_id"] == done.json["attester_id"]
    assert await uses_left(verifier) == [0]
    guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="another"))
    assert refused(await begin(guest, token))


async def test_a_token_that_is_used_up_brings_nobody_back(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=1), Guest.booted(verifier)
    await guest.enroll(token)
    await guest.speak()
    copy = guest.copied(smbios_uuid="uuid-of-the-copy")
    for one in (guest, copy, guest):
        one.tpm.advance(60_000)
        await one.speak()
    offered = await begin(guest, token)
    assert offered.status == 201, "until somebody has decided"
    (incident,) = (await verifier.get("/v1/incidents")).json["incidents"]
    decided = await verifier.post(
        f"/v1/incidents/{incident['id']}/resolve",
        {"reenroll": "all", "reason": "who knows"},
        scope=Scope.OPERATOR,
    )
    assert decided.status == 200, decided.content
    assert refused(await begin(guest, token))
    await guest.activate(offered.json)
    unheard = await verifier.post("/v1/challenges", {"attester_id": guest.attester_id})
    assert unheard.code == "reenrollment-required", "an offer of before is no word of an operator"
    await guest.enroll(await verifier.token(Scope.JOIN, uses=1))
    assert (await guest.attest()).status == 200


async def test_a_token_that_was_revoked_gives_nobody_a_second_challenge(verifier):
    token, guest = await verifier.token(Scope.JOIN, uses=1), Guest.booted(verifier)
    await begin(guest, token)
    (made,) = [one for one in (await verifier.get("/v1/tokens")).json["tokens"] if one.get("uses_left") == 0]
    await verifier.call("DELETE", f"/v1/tokens/{made['id']}", scope=Scope.ADMIN)
    assert refused(await begin(guest, token))


async def test_of_many_that_want_the_last_use_one_has_it(verifier):
    token = await verifier.token(Scope.JOIN, uses=1)
    guests = [Guest.booted(verifier, seed) for seed in range(1, 9)]
    answers = await asyncio.gather(*(begin(guest, token) for guest in guests))
    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    (winner,) = [guest for guest, answer in zip(guests, answers, strict=True) if answer.status == 201]
    assert (await begin(winner, token)).status == 201
