"""Policies by label over HTTP: assigned, tried beside the one that decides, taken back; and what of it is on record."""

from __future__ import annotations

import pytest

from tests.harness import POLICY
from verifier.ports import Scope

YAML = {"Content-Type": "application/yaml"}
STRICT = POLICY.replace("enabled", "disabled")
"""Contraindicates every guest of these tests: they boot with Secure Boot."""


async def push(verifier, source: str, *, current: bool = True) -> str:
    path = "/v1/policies" + ("" if current else "?current=false")
    made = await verifier.call("POST", path, data=source.encode(), headers=YAML, scope=Scope.OPERATOR)
    assert made.status == 201, made.content
    return made.json["revision"]


async def assign(verifier, policy="secure-boot", **changes):
    body = {"policy": policy, "mode": "enforce", "selector": {"tier": "web"}} | changes
    return await verifier.call("PUT", "/v1/assignments", json=body, scope=Scope.OPERATOR)


async def label(verifier, guest, **labels: str):
    path = f"/v1/attesters/{guest.attester_id}/labels"
    return await verifier.call("PUT", path, json={"labels": labels}, scope=Scope.OPERATOR)


async def verdict(guest):
    return (await guest.attest()).json["verdict"]


async def test_labels_choose_the_policy_from_the_next_attestation_on(verifier, clock):
    web, other = await verifier.guest(1), await verifier.guest(2)
    revision = await push(verifier, STRICT.replace("id: secure-boot", "id: strict", 1))
    made = await assign(verifier, "strict", priority=3)
    assert made.status == 200
    assert (made.json["mode"], made.json["priority"], made.json["selector"]) == (
        "enforce",
        3,
        {"tier": "web"},
    )
    assert (await label(verifier, web, tier="web", env="prod")).json["labels"] == {
        "env": "prod",
        "tier": "web",
    }
    judged = await verdict(web)
    assert judged["policy"] == {"id": "strict", "revision": revision}
    assert judged["status"] == "contraindicated"
    assert (await verdict(other))["policy"]["id"] == "secure-boot"
    why = (await verifier.get(f"/v1/attesters/{web.attester_id}/policies", Scope.DASHBOARD)).json
    assert why == {
        "attester": web.attester_id,
        "labels": {"env": "prod", "tier": "web"},
        "policy": {"id": "strict"},
        "origin": "assignment",
        "assignment": made.json["id"],
    }
    gone = await verifier.call("DELETE", f"/v1/assignments/{made.json['id']}", scope=Scope.OPERATOR)
    assert gone.status == 204
    clock.advance(minutes=1)
    assert (await verdict(web))["policy"]["id"] == "secure-boot"
    assert (await verifier.get("/v1/assignments")).json == {"assignments": []}


async def test_a_change_is_rolled_out_in_stages(verifier, clock):
    guest = await verifier.guest()
    await label(verifier, guest, tier="web")
    staged = await push(verifier, STRICT, current=False)
    revisions = (await verifier.get("/v1/policies/secure-boot/revisions")).json["revisions"]
    assert [each["revision"] for each in revisions][1:] == [staged]
    for mode, status in (("observe", "affirming"), ("warn", "warning"), ("enforce", "contraindicated")):
        made = await assign(verifier, revision=staged, mode=mode)
        assert made.status == 200, made.content
        clock.advance(minutes=1)
        judged = await verdict(guest)
        assert judged["status"] == status, mode
        said = [finding["message"] for finding in judged["findings"] if staged[:8] in finding["message"]]
        assert bool(said) == (mode != "enforce"), "what a tried policy would say is shown"
    # Staged and enforced of one revision are never both there.
    (left,) = (await verifier.get("/v1/assignments")).json["assignments"]
    assert (left["mode"], left["revision"]) == ("enforce", staged)


async def test_the_audit_log_says_who_assigned_what(verifier):
    guest = await verifier.guest()
    made = (await assign(verifier)).json
    await label(verifier, guest, tier="web")
    await verifier.call("DELETE", f"/v1/assignments/{made['id']}", scope=Scope.OPERATOR)
    entries = await verifier.decisions()
    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("assignment.removed", made["id"]),
        ("attester.labelled", guest.attester_id),
        ("assignment.put", made["id"]),
    ]
    assert entries[2]["detail"]["selector"] == {"tier": "web"}
    assert {entry["actor"] for entry in entries} != {""}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"policy": "nobody"}, 404, "not-found"),
        ({"revision": "0" * 64}, 404, "not-found"),
        ({"revision": "latest"}, 400, "malformed-request"),
        ({"mode": "enforced"}, 400, "malformed-request"),
        ({"priority": 2**31}, 400, "malformed-request"),
        ({"selector": {"no spaces": "x"}}, 400, "malformed-request"),
        ({"selector": {str(n): "" for n in range(17)}}, 400, "malformed-request"),
        ({"until": "tomorrow"}, 400, "malformed-request"),
    ],
)
async def test_what_cannot_be_assigned_is_refused_and_nothing_is_kept(verifier, changes, status, code):
    await verifier.get("/v1/assignments", Scope.OPERATOR)  # makes the token
    before = verifier.rows()
    answer = await assign(verifier, **changes)
    assert (answer.status, answer.code) == (status, code)
    assert verifier.rows() == before


async def test_labels_no_selector_could_name_are_refused(verifier):
    guest = await verifier.guest()
    for bad in ({"a b": "c"}, {"a": "b,c"}, {str(n): "" for n in range(65)}):
        answer = await label(verifier, guest, **bad)
        assert (answer.status, answer.code) == (400, "malformed-request")
    unknown = await verifier.call(
        "PUT", "/v1/attesters/att-nobody/labels", json={"labels": {}}, scope=Scope.OPERATOR
    )
    assert (unknown.status, unknown.code) == (404, "not-found")


async def test_another_tenant_neither_sees_nor_moves_an_assignment(verifier):
    made = (await assign(verifier)).json
    stranger = await verifier.token(Scope.ADMIN, tenant="other")
    assert (await verifier.call("GET", "/v1/assignments", token=stranger)).json == {"assignments": []}
    path = f"/v1/assignments/{made['id']}"
    answer = await verifier.call("DELETE", path, token=stranger)
    assert (answer.status, answer.code) == (404, "not-found")
    assert [each["id"] for each in (await verifier.get("/v1/assignments")).json["assignments"]] == [
        made["id"]
    ]


async def test_who_revoked_and_who_chose_the_policy_of_one_attester_is_in_the_audit_log(verifier):
    guest = await verifier.guest()
    path = f"/v1/attesters/{guest.attester_id}"
    chosen = await verifier.call(
        "PUT", f"{path}/policy", json={"policy": "secure-boot"}, scope=Scope.OPERATOR
    )
    assert chosen.status == 200
    for _ in range(2):  # revoked once, whoever says it again
        assert (await verifier.post(f"{path}/revoke", {}, scope=Scope.OPERATOR)).status == 200
    entries = await verifier.decisions(guest.attester_id)
    assert [entry["action"] for entry in entries] == ["attester.revoked", "policy.assigned"]
    assert entries[1]["detail"]["policy"] == "secure-boot"
    assert all(entry["actor"].startswith("tok-") for entry in entries)
