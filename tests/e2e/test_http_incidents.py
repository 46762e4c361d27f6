"""Clones and rollbacks that an operator resolves, over HTTP: two guests that really share one TPM's state."""

from __future__ import annotations

import copy

import pytest

from tests.harness import Guest
from verifier.ports import Scope

A = "4c4c4544-0042-3510-8052-b4c04f4b0a0a"
B = "4c4c4544-0042-3510-8052-b4c04f4b0b0b"


async def attest(guest: Guest, uuid: str, boot: str, hostname: str = ""):
    answer = await guest.attest(
        identity={"smbios_uuid": uuid, "hostname": hostname or f"host-{uuid[-2:]}"}, boot_id=boot
    )
    assert answer.status in {200, 403}, answer.content
    return answer


async def machine(verifier, seed: int = 1, uuid: str = A) -> Guest:
    guest = Guest.booted(verifier, seed)
    body = guest.enrollment(await verifier.token(Scope.JOIN), identity={"smbios_uuid": uuid})
    begun = await verifier.post("/v1/enrollments", body)
    done = await guest.activate(begun.json)
    assert done.json["status"] == "enrolled", "its own UUID makes it nobody's replacement"
    guest.attester_id = done.json["attester_id"]
    return guest


def copied(guest: Guest) -> Guest:
    """The same machine again: TPM state, NV and what the agent remembers."""
    return Guest(guest.harness, guest.tpm.clone(), guest.log, guest.attester_id, hints=copy.copy(guest.hints))


async def two_guests(verifier) -> tuple[Guest, Guest]:
    """A, attested, and its copy B with a UUID of its own; both have gone on."""
    a = await machine(verifier)
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"
    b = copied(a)
    for _ in range(2):
        assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"
    assert (await attest(b, B, "boot-b")).json["verdict"]["status"] == "contraindicated"
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "contraindicated"
    return a, b


async def incidents(verifier):
    return (await verifier.get("/v1/incidents", Scope.DASHBOARD)).json["incidents"]


async def resolve(verifier, number: str, **body):
    return await verifier.post(f"/v1/incidents/{number}/resolve", body, scope=Scope.OPERATOR)


async def test_both_guests_are_listed_and_the_kept_one_is_affirming_again(verifier):
    a, b = await two_guests(verifier)
    (found,) = await incidents(verifier)
    assert (found["kind"], found["attester"]) == ("clone-proven", a.attester_id)
    assert {guest["smbios_uuid"] for guest in found["guests"]} == {A, B}
    assert {guest["hostname"] for guest in found["guests"]} == {"host-0a", "host-0b"}
    assert (await verifier.get(f"/v1/incidents/{found['id']}")).json == found

    done = await resolve(verifier, found["id"], keep=A, reenroll=B, reason="b is the test copy")
    assert (done.status, done.json["id"]) == (200, a.attester_id)
    assert await incidents(verifier) == []
    for _ in range(2):
        assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"
        refused = await attest(b, B, "boot-b")
        assert (refused.status, refused.code) == (403, "reenrollment-required")
        assert "new vTPM" in refused.json["detail"]
    assert await incidents(verifier) == []
    (entry,) = (await verifier.get(f"/v1/audit?subject={found['id']}")).json["entries"]
    assert (entry["action"], entry["reason"]) == ("incident.resolved", "b is the test copy")
    assert entry["detail"]["keep"]["smbios_uuid"] == A
    assert entry["detail"]["refused"] == [B]
    assert entry["detail"]["kind"] == "clone-proven"


async def test_the_copy_may_be_the_one_that_is_kept(verifier):
    a, b = await two_guests(verifier)
    (found,) = await incidents(verifier)
    assert (await resolve(verifier, found["id"], keep="host-0b")).status == 200
    assert (await attest(b, B, "boot-b")).json["verdict"]["status"] == "affirming"
    assert (await attest(a, A, "boot-a")).code == "reenrollment-required"
    assert (await attest(b, B, "boot-b")).json["verdict"]["status"] == "affirming"


async def test_the_copy_cannot_enrol_with_the_copied_tpm_but_with_a_new_one(verifier):
    _, b = await two_guests(verifier)
    (found,) = await incidents(verifier)
    await resolve(verifier, found["id"], keep=A)
    identity = {"smbios_uuid": B, "hostname": "host-0b"}
    body = b.enrollment(await verifier.token(Scope.JOIN), identity=identity)
    refused = await verifier.post("/v1/enrollments", body)
    assert (refused.status, refused.code) == (403, "reenrollment-required")
    renewed = await machine(verifier, 77, B)
    assert renewed.attester_id != b.attester_id
    assert (await attest(renewed, B, "boot-b2")).json["verdict"]["status"] == "affirming"


async def test_a_copy_that_gives_the_kept_ones_uuid_is_found_again(verifier, clock):
    a, b = await two_guests(verifier)
    (found,) = await incidents(verifier)
    await resolve(verifier, found["id"], keep=A)
    clock.advance(seconds=1)
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"
    assert (await attest(b, A, "boot-b")).json["verdict"]["status"] == "contraindicated"
    (again,) = await incidents(verifier)
    assert again["id"] != found["id"]


async def test_only_one_is_sent_to_enrol_and_nobodys_state_is_chosen(verifier):
    a, b = await two_guests(verifier)
    (found,) = await incidents(verifier)
    assert (await resolve(verifier, found["id"], reenroll=B)).status == 200
    assert (await attest(b, B, "boot-b")).code == "reenrollment-required"
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"


async def test_all_may_be_sent_to_enrol_again(verifier):
    a, _ = await two_guests(verifier)
    (found,) = await incidents(verifier)
    await resolve(verifier, found["id"], reenroll="all", reason="nobody knows")
    refused = await verifier.post("/v1/challenges", {"attester_id": a.attester_id})
    assert (refused.status, refused.code) == (403, "reenrollment-required")
    await machine(verifier)
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "warning", (
        "two UUIDs are known of this TPM"
    )


async def test_a_restored_state_can_be_accepted(verifier):
    a = await machine(verifier)
    await attest(a, A, "boot-a")
    saved, hints = a.tpm.snapshot(), copy.copy(a.hints)
    for _ in range(2):
        await attest(a, A, "boot-a")
    a.tpm.restore(saved)
    a.hints = hints
    assert (await attest(a, A, "boot-restored")).json["verdict"]["status"] == "contraindicated"
    (found,) = await incidents(verifier)
    assert found["kind"] == "rollback"
    several = await resolve(verifier, found["id"], keep=A)
    assert (several.status, several.code) == (400, "malformed-request")
    newest = found["guests"][-1]
    assert newest["id"] in several.json["detail"]
    assert (
        await resolve(verifier, found["id"], keep=newest["id"], reason="restored on purpose")
    ).status == 200
    for _ in range(2):
        assert (await attest(a, A, "boot-restored")).json["verdict"]["status"] == "affirming"
    assert await incidents(verifier) == []


async def test_an_incident_is_resolved_once_and_not_after_it_has_become_graver(verifier):
    a = await machine(verifier)
    await attest(a, A, "boot-a")
    b = copied(a)
    for _ in range(2):
        await attest(a, A, "boot-a")
    await attest(b, A, "boot-b")
    (rollback,) = await incidents(verifier)
    assert rollback["kind"] == "rollback"
    await attest(a, A, "boot-a")
    (proven,) = await incidents(verifier)
    assert proven["kind"] == "clone-proven"
    late = await resolve(verifier, rollback["id"], keep=rollback["guests"][-1]["id"])
    assert (late.status, late.code) == (404, "not-found")
    same = await resolve(
        verifier, proven["id"], keep=proven["guests"][0]["id"], reenroll=proven["guests"][1]["id"]
    )
    assert (same.status, same.code) == (400, "malformed-request")
    assert "cannot tell them apart" in same.json["detail"]
    assert (await resolve(verifier, proven["id"], keep="boot-a")).status == 200
    assert (await resolve(verifier, proven["id"], keep="boot-a")).status == 404
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "no choice"},
        {"keep": "nobody"},
        {"keep": A, "reenroll": A},
        {"keep": A, "reenroll": "all"},
        {"keep": ""},
        {"keep": ["x"]},
        {"keep": A, "who": "me"},
        {"keep": A, "reason": "x" * 1001},
    ],
)
async def test_a_resolution_that_says_nothing_clear_is_a_400_and_changes_nothing(verifier, body):
    await two_guests(verifier)
    (found,) = await incidents(verifier)
    bad = await resolve(verifier, found["id"], **body)
    assert (bad.status, bad.code) == (400, "malformed-request")
    assert await incidents(verifier) == [found]
    assert await verifier.decisions() == []


async def test_incidents_of_another_tenant_and_names_that_are_none_do_not_exist(verifier):
    await two_guests(verifier)
    (found,) = await incidents(verifier)
    foreign = await verifier.token(Scope.OPERATOR, tenant="other")
    assert (await verifier.call("GET", "/v1/incidents", token=foreign)).json["incidents"] == []
    path = f"/v1/incidents/{found['id']}"
    hidden = [
        await verifier.call("GET", path, token=foreign),
        await verifier.call("POST", f"{path}/resolve", json={"keep": A}, token=foreign),
        await verifier.get("/v1/incidents/x"),
        await verifier.get("/v1/incidents/inc--1"),
        await verifier.get(f"/v1/incidents/inc-{found['attester']}-0"),
    ]
    assert {(each.status, each.code) for each in hidden} == {(404, "not-found")}


async def test_a_foreign_ratchet_is_listed_and_resolved_as_other_incidents_are(verifier):
    """Found by tests/stateful: the list of all incidents was a fault as long as there was one of this kind."""
    a = await machine(verifier)
    await attest(a, A, "boot-a")
    (number,) = a.tpm._state.nv
    a.tpm.nv_undefine(number)  # the agent makes it anew at its next word
    a.hints.clear()
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "contraindicated"
    (found,) = await incidents(verifier)
    assert (found["kind"], found["attester"]) == ("ratchet-foreign", a.attester_id)
    assert (await verifier.get(f"/v1/incidents/{found['id']}")).json == found
    done = await resolve(verifier, found["id"], keep=found["guests"][-1]["id"], reason="reinstalled")
    assert done.status == 200
    assert await incidents(verifier) == []
    assert (await attest(a, A, "boot-a")).json["verdict"]["status"] == "affirming"
