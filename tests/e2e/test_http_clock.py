"""A verifier whose clock jumps, ahead and back: nothing is accepted twice, and nobody stays trusted for longer."""

from __future__ import annotations

import pytest

from tests.harness import running, settings_for
from verifier.ports import Scope


async def jump(verifier, hours):
    """As the service lives through it: what has expired is dropped once a minute."""
    verifier.clock.advance(hours=hours)
    await verifier.service.services.recorder.purge(verifier.clock.now())


async def standing(verifier, guest):
    """What relying parties and operators are told of it, by every way of asking."""
    path = f"/v1/attesters/{guest.attester_id}"
    one = (await verifier.get(f"{path}/verdict", Scope.RELYING_PARTY)).json
    shown = (await verifier.get(path)).json
    listed = {
        kind: [row["id"] for row in (await verifier.get(f"/v1/attesters?status={kind}")).json["attesters"]]
        for kind in ("enrolled", "stale")
    }
    counts = (await verifier.get("/v1/status")).json["counts"]
    return one["status"], shown["lifecycle"], {kind: len(found) for kind, found in listed.items()}, counts


@pytest.mark.parametrize("ratchet", ["true", "false"])
async def test_a_nonce_is_not_accepted_again_after_the_clock_was_ahead(tmp_path, clock, ratchet):
    async with running(settings_for(tmp_path, f"[attestation]\nratchet = {ratchet}\n"), clock) as verifier:
        guest = await verifier.guest()
        evidence = guest.evidence(await guest.challenge())
        assert (await verifier.post("/v1/attestations", evidence)).status == 200
        await jump(verifier, 3)
        await jump(verifier, -3)
        again = await verifier.post("/v1/attestations", evidence)
        assert (again.status, again.code) == (409, "nonce-expired")
        for _ in range(2):
            assert (await guest.speak())["status"] == "affirming"
        assert (await guest.speak())["sequence"] == 4


async def test_a_challenge_that_was_open_when_the_clock_jumped(verifier):
    guest = await verifier.guest()
    challenge = await guest.challenge()
    await jump(verifier, 3)
    answer = await guest.attest(challenge)
    assert (answer.status, answer.code) == (409, "nonce-expired")
    assert (await guest.attest()).status == 200
    await jump(verifier, -3)
    assert (await guest.speak())["status"] == "affirming"


async def test_a_verdict_from_a_clock_that_was_ahead_says_nothing_once_it_is_right_again(verifier):
    guest = await verifier.guest()
    verifier.clock.advance(hours=3)
    assert (await guest.attest()).status == 200
    assert (await standing(verifier, guest))[:2] == ("affirming", "enrolled")
    verifier.clock.advance(hours=-3)
    status, lifecycle, listed, counts = await standing(verifier, guest)
    assert (status, lifecycle) == ("none", "stale")
    assert listed == {"enrolled": 0, "stale": 1}
    assert (counts["stale"], counts["affirming"]) == (1, 0)
    answer = await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict?min_tier=affirming", Scope.RELYING_PARTY
    )
    assert answer.status == 403
    found = (await verifier.get("/v1/verdicts?min_tier=affirming", Scope.RELYING_PARTY)).json
    assert found["verdicts"] == []
    assert (await guest.speak())["status"] == "affirming"
    status, lifecycle, listed, counts = await standing(verifier, guest)
    assert (status, lifecycle, listed) == ("affirming", "enrolled", {"enrolled": 1, "stale": 0})


async def test_replicas_whose_clocks_differ_a_little_agree(verifier):
    guest = await verifier.guest()
    verifier.clock.advance(minutes=4)
    assert (await guest.attest()).status == 200
    verifier.clock.advance(minutes=-4)
    assert (await standing(verifier, guest))[:2] == ("affirming", "enrolled")


async def test_tokens_and_silent_guests_when_the_clock_goes_ahead(verifier):
    guest = await verifier.guest()
    assert (await guest.attest()).status == 200
    verifier.clock.advance(hours=3)
    assert (await standing(verifier, guest))[:2] == ("none", "stale")
    verifier.clock.advance(hours=-3)
    assert (await standing(verifier, guest))[:2] == ("affirming", "enrolled")
