"""Policies with a runtime part, over HTTP: real sets in a folder, lists judged in real processes."""

from __future__ import annotations

import pytest

from tests.harness import running, settings_for
from tests.ima_guest import MeasuringGuest, a_set, policy_of
from verifier.ports import Scope
from verifier.runtime_sets.files import save_set

LONG = 1_000
PROGRAMS = a_set([f"/usr/bin/p{number}" for number in range(LONG)])
TOOL = a_set(["/opt/acme/tool"], "acme")


@pytest.fixture
async def verifier(tmp_path):
    sets = tmp_path / "sets"
    save_set(sets / "programs.rtset.zst", PROGRAMS)
    settings = settings_for(tmp_path, DEFAULT_POLICY="measured", RUNTIME_SETS_DIR=str(sets))
    (tmp_path / "policies" / "measured.yaml").write_text(policy_of(PROGRAMS))
    async with running(settings) as harness:
        harness.sets = sets
        yield harness


async def register(verifier, source: str):
    return await verifier.call(
        "POST",
        "/v1/policies",
        data=source,
        headers={"Content-Type": "application/yaml"},
        scope=Scope.OPERATOR,
    )


def told(reply) -> tuple[str, set[str]]:
    verdict = reply["verdict"]
    return verdict["status"], {one["code"] for one in verdict["findings"] if one["status"] != "passed"}


@pytest.mark.parametrize("programs", [5, LONG])
async def test_what_the_sets_know_is_affirmed_and_an_update_of_the_policy_judges_the_list_anew(
    verifier, programs
):
    guest = await MeasuringGuest.enrolled(verifier, programs=programs)
    guest.run("/tmp/scratch", b"excluded")
    assert told(await guest.attest()) == ("affirming", set())
    guest.run("/opt/acme/tool")
    assert told(await guest.attest(guest.guest.carried)) == ("contraindicated", {"ima-file-unknown"})
    save_set(verifier.sets / "acme.rtset", TOOL)
    assert (await register(verifier, policy_of(PROGRAMS, TOOL))).status < 300
    verifier.clock.advance(seconds=3)
    assert told(await guest.attest(guest.guest.carried)) == ("affirming", set())
    assert [offset > 0 for offset, _ in guest.sent] == [False, True, True], "no list was sent twice"


async def test_a_policy_whose_set_is_not_there_is_our_fault_and_no_verdict(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    assert told(await guest.attest())[0] == "affirming"
    refused = await register(verifier, policy_of(PROGRAMS, TOOL))
    assert (refused.status, refused.code) == (422, "policy-invalid")
    tried = await verifier.call(
        "POST",
        "/v1/policies/measured/dry-run?all=true",
        data=policy_of(PROGRAMS, TOOL),
        headers={"Content-Type": "application/yaml"},
        scope=Scope.OPERATOR,
    )
    assert (tried.status, tried.code) == (422, "policy-invalid")
    save_set(verifier.sets / "acme.rtset", TOOL)
    await register(verifier, policy_of(PROGRAMS, TOOL))
    (verifier.sets / "acme.rtset").unlink()
    verifier.clock.advance(seconds=3)
    answer = await guest.answer()
    assert (answer.status, answer.code) == (500, "internal-fault")
    latest = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")
    assert latest.json["sequence"] == 1
    save_set(verifier.sets / "acme.rtset", TOOL)
    assert told(await guest.attest())[0] == "affirming"


async def test_triage_leads_to_a_set_that_makes_the_fleet_good(verifier):
    guests = [await MeasuringGuest.enrolled(verifier, seed) for seed in (1, 2)]
    for guest in guests:
        guest.run("/opt/acme/tool")
        assert told(await guest.attest())[0] == "contraindicated"
    out = verifier.sets / "triage.rtset"
    made = await verifier.attestctl("ima", "triage", "--out", out, "--json")
    assert [each["attesters"] for each in made.json["entries"]] == [2]
    digest = made.json["proposal"]["sha256"]
    source = policy_of(PROGRAMS).replace("sets: [", f"sets: [{{sha256: {digest}, name: triage}}, ")
    assert (await register(verifier, source)).status < 300
    verifier.clock.advance(seconds=3)
    for guest in guests:
        assert told(await guest.attest(guest.guest.carried)) == ("affirming", set())
    assert (await verifier.attestctl("ima", "triage")).code == 0
