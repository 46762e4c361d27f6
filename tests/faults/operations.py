"""What clients ask of a verifier that changes something, and how each goes on after it was not answered.

Each yields the call that shall be struck at, is sent its answer (None: there was none) and then does what the client would do. What
was answered has to be so afterwards; what was not is done or not done, but never half, and can be asked for again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from tests import pki
from tests.eventually import eventually
from tests.faults.ledger import query
from tests.faults.world import Deed, Operation, World
from tests.harness import POLICY, Answer, Guest, b64, boot_log
from verifier.ports import Scope

Steps: TypeAlias = AsyncGenerator[Deed, Answer | None]
SPENT: Final = {"nonce-reused", "evidence-overtaken"}
YAML: Final = {"Content-Type": "application/yaml"}


async def enrolment(world: World, number: int) -> Steps:
    """A machine whose join token is good for one asks for a credential."""
    guest = Guest.booted(world, 10_000 + number)
    body = guest.enrollment(await world.token(Scope.JOIN, uses=1))
    begun = yield lambda: world.post("/v1/enrollments", body)
    if begun is None:
        begun = await world.post("/v1/enrollments", body)
    assert begun.status == 201, begun.content
    await _activated(world, guest, await guest.activate(begun.json))
    other = Guest.booted(world, 20_000 + number).enrollment(body["join_token"])
    refused = await world.post("/v1/enrollments", other)
    assert (refused.status, refused.code) == (401, "join-token-invalid"), "the token was good for one"


async def activation(world: World, number: int) -> Steps:
    """The same machine opens the credential; where that is not answered it begins anew, as the agent does."""
    guest = Guest.booted(world, 30_000 + number)
    body = guest.enrollment(await world.token(Scope.JOIN, uses=1))
    begun = await world.post("/v1/enrollments", body)
    path, proof = f"/v1/enrollments/{begun.json['enrollment_id']}/activation", b64(guest.proof(begun.json))
    done = yield lambda: world.post(path, {"proof": proof})
    if done is None:
        again = await world.post("/v1/enrollments", body)
        assert again.status == 201, again.content
        done = await guest.activate(again.json)
    await _activated(world, guest, done)


async def _activated(world: World, guest: Guest, done: Answer) -> None:
    assert done.status == 200, done.content
    guest.attester_id = done.json["attester_id"]
    await world.says(guest, "affirming")
    mine = f"SELECT count(*) FROM attester WHERE identity LIKE '%uuid-{guest.tpm.seed}\"%'"
    assert int(query(world.site, mine)[0][0]) == 1


async def challenge(world: World, number: int) -> Steps:
    """A nonce."""
    guest = await world.guest(40_000 + number)
    answer = yield lambda: world.post("/v1/challenges", {"attester_id": guest.attester_id})
    if answer is not None:
        world.note(await guest.attest(answer.json))
    await world.says(guest, "affirming")


async def first_attestation(world: World, number: int) -> Steps:
    """With a log nobody else has."""
    guest = await world.guest(50_000 + number, log=boot_log(f"root=/dev/vd{number} quiet"))
    evidence = guest.evidence(await guest.challenge())
    answer = yield lambda: world.post("/v1/attestations", evidence)
    await _judged_once(world, guest, evidence, answer)


async def attestation(world: World, number: int) -> Steps:
    """The steady one."""
    guest = await world.guest(60_000 + number)
    await world.says(guest, "affirming")
    guest.tpm.advance(60_000)
    evidence = guest.evidence(await guest.challenge())
    answer = yield lambda: world.post("/v1/attestations", evidence)
    await _judged_once(world, guest, evidence, answer)


async def attestation_after_reboot(world: World, number: int) -> Steps:
    """Into what is refused: the verdict changes, and an event tells of it."""
    guest = await world.guest(70_000 + number)
    await world.says(guest, "affirming")
    guest.reboot(boot_log(secure=False))
    evidence = guest.evidence(await guest.challenge())
    answer = yield lambda: world.post("/v1/attestations", evidence)
    await _judged_once(world, guest, evidence, answer, "contraindicated")
    told = f"SELECT count(*) FROM event WHERE attester_id = '{guest.attester_id}' AND kind LIKE 'verdict.%'"
    assert int(query(world.site, told)[0][0]) >= 2


async def _judged_once(
    world: World, guest: Guest, evidence: Any, answer: Answer | None, status: str = "affirming"
) -> None:
    """Sent again as it was: refused where it was stored, taken where it was not. `World` looks at the rows."""
    if answer is not None:
        assert world.note(answer)["status"] == status
    again = await world.post("/v1/attestations", evidence)
    if again.status == 200 and answer is None:
        assert world.note(again)["status"] == status
    else:
        assert (again.status, again.code in SPENT) == (409, True), again.content
    guest.tpm.advance(60_000)
    await world.says(guest, status)


async def policy(world: World, number: int) -> Steps:
    """A revision of the policy by which all are judged."""
    source = POLICY.replace("validity: 10m", f"validity: {600 + number}s")

    async def current() -> str:
        return str((await world.get("/v1/policies/secure-boot", Scope.OPERATOR)).json["revision"])

    async def put() -> Answer:
        return await world.call("POST", "/v1/policies", data=source, headers=YAML, scope=Scope.OPERATOR)

    before = await current()
    answer = yield put
    found = await current()
    if answer is None:
        answer = await put()
        assert found in {before, answer.json["revision"]}
    assert answer.status in {200, 201}, answer.content
    assert await current() == answer.json["revision"]


async def assignment(world: World, number: int) -> Steps:
    """Another policy for one machine, with its line in the audit log."""
    other = POLICY.replace("id: secure-boot\ndesc", "id: other\ndesc")
    await world.call("POST", "/v1/policies", data=other, headers=YAML, scope=Scope.OPERATOR)
    guest = await world.guest(80_000 + number)
    path = f"/v1/attesters/{guest.attester_id}"

    async def put() -> Answer:
        return await world.call("PUT", f"{path}/policy", json={"policy": "other"}, scope=Scope.OPERATOR)

    answer = yield put
    found = (await world.get(path, Scope.OPERATOR)).json.get("policy")
    assert found in ({"other"} if answer is not None else {"other", None})
    assert world.audited("policy.assigned", guest.attester_id) == (found == "other")
    assert (await put()).status < 300
    assert world.note(await guest.attest())["policy"]["id"] == "other"


async def token(world: World, number: int) -> Steps:
    """For a dashboard."""
    body = {"scopes": ["dashboard"], "label": f"number {number}"}

    async def made() -> int:
        listed = (await world.get("/v1/tokens")).json["tokens"]
        return sum(one["label"] == body["label"] for one in listed)

    answer = yield lambda: world.post("/v1/tokens", body, scope=Scope.ADMIN)
    assert await made() in ({1} if answer is not None else {0, 1})
    if answer is None:
        answer = await world.post("/v1/tokens", body, scope=Scope.ADMIN)
    assert (await world.call("GET", "/v1/status", token=answer.json["token"])).status == 200


async def token_revocation(world: World, number: int) -> Steps:
    """A revoked one opens nothing, ever again."""
    made = await world.post("/v1/tokens", {"scopes": ["dashboard"]}, scope=Scope.ADMIN)
    path, secret = f"/v1/tokens/{made.json['info']['id']}", made.json["token"]
    answer = yield lambda: world.call("DELETE", path, scope=Scope.ADMIN)
    if answer is None:
        answer = await world.call("DELETE", path, scope=Scope.ADMIN)
    assert answer.status < 300, answer.content
    assert (await world.call("GET", "/v1/status", token=secret)).status == 401


async def revocation(world: World, number: int) -> Steps:
    """A revoked machine is nobody."""
    guest = await world.guest(90_000 + number)
    await world.says(guest, "affirming")
    held, path = await guest.challenge(), f"/v1/attesters/{guest.attester_id}"
    body = {"reason": "stolen"}
    answer = yield lambda: world.post(f"{path}/revoke", body, scope=Scope.OPERATOR)
    found = (await world.get(path, Scope.OPERATOR)).json["lifecycle"]
    assert found in ({"revoked"} if answer is not None else {"enrolled", "revoked"})
    assert world.audited("attester.revoked", guest.attester_id) == (found == "revoked")
    assert (await world.post(f"{path}/revoke", body, scope=Scope.OPERATOR)).status < 300
    refused = await guest.attest(held)
    assert (refused.status, refused.code) == (403, "attester-revoked")


async def approval(world: World, number: int) -> Steps:
    """A machine with a new TPM takes its old place: two records change, and both keys."""
    old = await world.guest(100_000 + number)
    await world.says(old, "affirming")
    new = Guest.booted(world, 110_000 + number)
    new.identity = old.identity
    begun = await world.post("/v1/enrollments", new.enrollment(await world.token(Scope.JOIN, uses=1)))
    waiting = await new.activate(begun.json)
    assert waiting.json["status"] == "pending", waiting.content
    path = f"/v1/enrollments/{waiting.json['enrollment_id']}/approve"
    answer = yield lambda: world.post(path, {"reason": "new vTPM"}, scope=Scope.OPERATOR)
    again = await world.post(path, {"reason": "new vTPM"}, scope=Scope.OPERATOR)
    assert again.status == 200 if answer is None and again.status == 200 else again.status == 409
    done = await new.activate(begun.json)
    assert done.status == 200, done.content
    new.attester_id = done.json["attester_id"]
    await world.says(new, "affirming")
    gone = (await world.get(f"/v1/attesters/{old.attester_id}", Scope.OPERATOR)).json
    assert (gone["lifecycle"], gone["replaced_by"]) == ("retired", new.attester_id)
    assert world.audited("enrollment.approved", waiting.json["enrollment_id"]) == 1


async def clone_decision(world: World, number: int) -> Steps:
    """Which of two machines with one TPM goes on."""
    original = await world.guest(120_000 + number)
    for _ in range(2):
        world.note(await original.attest())
        original.tpm.advance(60_000)
    copy = original.copied(smbios_uuid=f"copy-{number}", hostname=f"copy-{number}")
    for guest in (original, copy, original):
        world.note(await guest.attest())
        guest.tpm.advance(60_000)
    (incident,) = (await world.get("/v1/incidents", Scope.OPERATOR)).json["incidents"]
    path, body = (
        f"/v1/incidents/{incident['id']}/resolve",
        {"keep": f"guest-{original.tpm.seed}", "reason": "mine"},
    )
    answer = yield lambda: world.post(path, body, scope=Scope.OPERATOR)
    open_ones = (await world.get("/v1/incidents", Scope.OPERATOR)).json["incidents"]
    assert len(open_ones) in ({0} if answer is not None else {0, 1})
    if open_ones:
        assert (await world.post(path, body, scope=Scope.OPERATOR)).status == 200
    await world.says(original, "affirming")


async def webhook(world: World, number: int) -> Steps:
    """Told to somebody from now on."""
    body = {"url": f"https://receiver-{number}.invalid/"}

    async def there() -> list[str]:
        listed = (await world.get("/v1/webhooks", Scope.OPERATOR)).json["webhooks"]
        return [one["id"] for one in listed if one["url"] == body["url"]]

    answer = yield lambda: world.post("/v1/webhooks", body, scope=Scope.OPERATOR)
    assert len(await there()) in ({1} if answer is not None else {0, 1})
    if not await there():
        assert (await world.post("/v1/webhooks", body, scope=Scope.OPERATOR)).status == 201
    for number_ in await there():
        await world.call("DELETE", f"/v1/webhooks/{number_}", scope=Scope.OPERATOR)


async def anchors(world: World, number: int) -> Steps:
    """CA certificates by which others are judged."""
    name, binary = f"lab-{number}", {"Content-Type": "application/octet-stream"}
    der = pki.Ca.root(f"Lab {number}", not_after=pki.time(datetime.now(UTC) + timedelta(days=400))).der

    async def put() -> Answer:
        path = f"/v1/trust-anchors?set={name}"
        return await world.call("POST", path, data=der, headers=binary, scope=Scope.OPERATOR)

    answer = yield put
    found = await world.get(f"/v1/trust-anchors/{name}", Scope.OPERATOR)
    assert found.status in ({200} if answer is not None else {200, 404})
    assert world.audited("anchors.assigned", name) == (found.status == 200)
    if answer is None and found.status == 404:
        assert (await put()).status == 200
    assert (await world.get(f"/v1/trust-anchors/{name}", Scope.OPERATOR)).status == 200
    assert (await world.call("DELETE", f"/v1/trust-anchors/{name}", scope=Scope.OPERATOR)).status < 300


async def rejudging(world: World, number: int) -> Steps:
    """The whole fleet by a policy that has changed, in the background."""
    source = POLICY.replace("validity: 10m", f"validity: {1200 + number}s")
    made = await world.call("POST", "/v1/policies", data=source, headers=YAML, scope=Scope.OPERATOR)
    revision, path = made.json["revision"], "/v1/policies/secure-boot/rejudging"

    left = f"SELECT count(*) FROM latest WHERE policy_revision <> '{revision}'"

    async def done() -> Answer | None:
        now = await world.get(path, Scope.OPERATOR)
        over = now.status == 200 and now.json["state"] == "done"
        return now if over and int(query(world.site, left)[0][0]) == 0 else None

    async def judged() -> Answer:
        begun = await world.call("POST", path, scope=Scope.OPERATOR)
        return begun if begun.status >= 500 else await eventually(done)

    answer = yield judged
    if answer is None:
        assert (await world.call("POST", path, scope=Scope.OPERATOR)).status in {202, 409}
        await eventually(done)


ALL: Final[tuple[Operation, ...]] = (
    enrolment,
    activation,
    challenge,
    first_attestation,
    attestation,
    attestation_after_reboot,
    policy,
    assignment,
    token,
    token_revocation,
    revocation,
    approval,
    clone_decision,
    webhook,
    anchors,
    rejudging,
)
