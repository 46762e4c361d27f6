"""Enrolments that a person decides, and machines that come with another TPM, over HTTP with a real store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from tests.harness import FakeClock, Guest, b64, running, settings_for
from tests.simulator import AkProfile
from verifier.appraisal.correlate import correlate
from verifier.appraisal.inventory import InventoryMachine, MachineKey
from verifier.inventory.registry import Registry, SourceName
from verifier.ports import Scope

VM = "4c4c4544-0042-3510-8052-b4c04f4b3132"
VM_SWAPPED = "44454c4c-4200-1035-8052-b4c04f4b3132"
OTHER_VM = "4c4c4544-0042-3510-8052-b4c04f4b9999"


@asynccontextmanager
async def verifier_with(folder, methods: str, clock=None, **changes: str):
    async with running(settings_for(folder, ENROLLMENT_METHODS=methods, **changes), clock) as harness:
        yield harness


def identity(uuid: str | None = VM, hostname: str = "web-1") -> dict[str, str]:
    return {"hostname": hostname} | ({} if uuid is None else {"smbios_uuid": uuid})


async def begin(guest: Guest, *, token: str | None = None, uuid: str | None = VM, **changes):
    return await guest.harness.post(
        "/v1/enrollments", guest.enrollment(token, identity=identity(uuid), **changes)
    )


async def prove(guest: Guest, **options):
    """Begin and activate; the answer to the proof, and how to ask again."""
    begun = await begin(guest, **options)
    assert begun.status == 201, begun.content
    proof = guest.proof(begun.json)
    path = f"/v1/enrollments/{begun.json['enrollment_id']}/activation"
    return await guest.harness.post(path, {"proof": b64(proof)}), proof


async def ask_again(guest: Guest, answer, proof: bytes):
    path = f"/v1/enrollments/{answer.json['enrollment_id']}/activation"
    return await guest.harness.post(path, {"proof": b64(proof)})


async def enrolled(verifier, seed: int, uuid: str = VM) -> Guest:
    guest = Guest.booted(verifier, seed)
    answer, _ = await prove(guest, token=await verifier.token(Scope.JOIN), uuid=uuid)
    assert answer.json["status"] == "enrolled", answer.content
    guest.attester_id = answer.json["attester_id"]
    return guest


async def decide(verifier, number: str, what: str = "approve", **body):
    return await verifier.post(f"/v1/enrollments/{number}/{what}", body, scope=Scope.OPERATOR)


async def attest(guest: Guest, uuid: str = VM, **changes):
    return await guest.attest(identity=identity(uuid), **changes)


async def audit(verifier, subject: str | None = None):
    return await verifier.decisions(subject)


# --- approve


async def test_an_approved_machine_attests_with_exactly_the_keys_it_proved(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        guest = Guest.booted(verifier)
        answer, proof = await prove(guest)
        assert (answer.status, answer.json["status"], answer.json["code"]) == (
            200,
            "pending",
            "enrollment-pending",
        )
        assert answer.json["retry_after"] > 0
        assert verifier.rows()["attester"] == 0
        (shown,) = (await verifier.get("/v1/enrollments", Scope.DASHBOARD)).json["enrollments"]
        assert shown["id"] == answer.json["enrollment_id"]
        assert shown["identity"] == {"hostname": "web-1", "smbios_uuid": VM}
        assert shown["source"] == "127.0.0.1"
        assert shown["endorsement"]["profile"]["methods"] == [], "nothing has held yet"
        assert len(shown["endorsement"]["ek_sha256"]) == 64
        assert shown["ak_name"] == guest.tpm.ak_name.hex()
        assert "conflicts" not in shown

        still = await ask_again(guest, answer, proof)
        assert still.json["status"] == "pending"
        approved = await decide(verifier, shown["id"], reason="ticket 7")
        assert (approved.status, approved.json["status"]) == (200, "approved")
        assert approved.json["decision_reason"] == "ticket 7"
        done = await ask_again(guest, answer, proof)
        assert done.json["status"] == "enrolled"
        guest.attester_id = done.json["attester_id"]
        assert guest.attester_id == approved.json["attester"]
        record = (await verifier.get(f"/v1/attesters/{guest.attester_id}")).json
        assert record["endorsement"]["method"] == "approve"
        assert record["endorsement"]["profile"]["methods"] == ["approve"]
        assert (await attest(guest)).json["verdict"]["status"] == "affirming"
        other = guest.tpm.make_ak(AkProfile(label="never approved"))
        refused = await attest(guest, quote={"ak": other})
        assert (refused.status, refused.code) == (403, "quote-signature")
        (entry,) = await audit(verifier, shown["id"])
        assert (entry["action"], entry["reason"]) == ("enrollment.approved", "ticket 7")
        assert entry["actor"].startswith("tok-")
        assert entry["detail"]["ak_name"] == guest.tpm.ak_name.hex()


async def test_what_is_not_proven_is_neither_shown_nor_approved(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        guest = Guest.booted(verifier)
        begun = await begin(guest)
        number = begun.json["enrollment_id"]
        assert (await verifier.get("/v1/enrollments")).json["enrollments"] == []
        for answer in (await verifier.get(f"/v1/enrollments/{number}"), await decide(verifier, number)):
            assert (answer.status, answer.code) == (404, "not-found")
        wrong = await verifier.post(f"/v1/enrollments/{number}/activation", {"proof": b64(bytes(32))})
        assert wrong.code == "activation-failed"
        assert (await decide(verifier, number)).status == 404
        assert await verifier.decisions() == []
    assert verifier.rows()["attester"] == 0


async def test_a_certificate_goes_through_and_only_the_others_wait(tmp_path):
    async with verifier_with(tmp_path, "certificate|approve,token") as verifier:
        guest = await enrolled(verifier, 1)
        assert (await attest(guest)).json["verdict"]["status"] == "affirming"
        other = Guest.booted(verifier, 2)
        answer, _ = await prove(
            other, token=await verifier.token(Scope.JOIN), uuid=OTHER_VM, ek_certificates=[]
        )
        assert answer.json["status"] == "pending"
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert shown["endorsement"]["profile"]["methods"] == ["token"]
        assert shown["token"].startswith("tok-")


async def test_both_a_certificate_and_a_person_may_be_asked_for(tmp_path):
    async with verifier_with(tmp_path, "certificate,approve") as verifier:
        guest = Guest.booted(verifier)
        refused = await begin(guest, ek_certificates=[])
        assert (refused.status, refused.code) == (403, "ek-certificate-missing")
        answer, _ = await prove(guest)
        assert answer.json["status"] == "pending"
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert shown["endorsement"]["method"] == "certificate"
        assert shown["endorsement"]["profile"]["key_matches"] is True
        assert shown["endorsement"]["profile"]["methods"] == ["certificate"]


async def test_a_refused_machine_is_told_why_and_stays_out_until_it_is_overruled(tmp_path, clock):
    async with verifier_with(tmp_path, "approve", clock) as verifier:
        guest = Guest.booted(verifier)
        answer, proof = await prove(guest)
        number = answer.json["enrollment_id"]
        assert (await decide(verifier, number, "refuse", reason="not ours")).json["status"] == "refused"
        told = await ask_again(guest, answer, proof)
        assert (told.status, told.code) == (403, "enrollment-refused")
        assert "not ours" in told.json["detail"]
        guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="another key of the same TPM"))
        again = await begin(guest)
        assert (again.status, again.code) == (403, "enrollment-refused")
        (shown,) = (await verifier.get("/v1/enrollments?status=refused")).json["enrollments"]
        assert shown["id"] == number

        assert (await decide(verifier, number)).code == "conflict"
        clock.advance(minutes=1)
        assert (await decide(verifier, number, overrule=True)).json["status"] == "approved"
        assert (await ask_again(guest, answer, proof)).json["status"] == "enrolled"
        actions = [entry["action"] for entry in await audit(verifier, number)]
        assert actions == ["enrollment.approved", "enrollment.refused"]
        assert (await begin(guest)).status == 201, "the last decision counts"


async def test_of_many_who_decide_at_once_on_several_replicas_one_does(tmp_path):
    settings = settings_for(tmp_path, ENROLLMENT_METHODS="approve")
    clock = FakeClock()
    async with running(settings, clock) as one, running(settings, clock) as two:
        guest = Guest.booted(one)
        answer, _ = await prove(guest)
        number = answer.json["enrollment_id"]
        tokens = {id(one): await one.token(Scope.OPERATOR), id(two): await two.token(Scope.OPERATOR)}

        async def press(verifier, what):
            return await verifier.post(
                f"/v1/enrollments/{number}/{what}", {"reason": what}, token=tokens[id(verifier)]
            )

        presses = [
            (verifier, what) for verifier in (one, two) for what in ("approve", "refuse") for _ in range(4)
        ]
        answers = await asyncio.gather(*(press(*each) for each in presses))
        done = [each for each in answers if each.status == 200]
        assert len(done) == 1
        late = [each for each in answers if each.status != 200]
        assert {(each.status, each.code) for each in late} == {(409, "conflict")}
        assert f"was {done[0].json['status']} by tok-" in late[0].json["detail"]
        assert len(await audit(one, number)) == 1
        assert one.rows()["attester"] == (1 if done[0].json["status"] == "approved" else 0)


async def test_asking_again_with_the_same_keys_is_the_same_question_and_costs_no_use(tmp_path):
    async with verifier_with(tmp_path, "approve,token") as verifier:
        guest = Guest.booted(verifier)
        token = await verifier.token(Scope.JOIN, uses=1)
        first, old_proof = await prove(guest, token=token)
        second, proof = await prove(guest, token=token)
        assert second.json["enrollment_id"] == first.json["enrollment_id"]
        assert len((await verifier.get("/v1/enrollments")).json["enrollments"]) == 1
        stale = await ask_again(guest, first, old_proof)
        assert stale.code == "activation-failed"
        stranger = Guest.booted(verifier, 2)
        used_up = await begin(stranger, token=token, uuid=OTHER_VM)
        assert (used_up.status, used_up.code) == (401, "join-token-invalid")
        await decide(verifier, first.json["enrollment_id"])
        assert (await ask_again(guest, second, proof)).json["status"] == "enrolled"


async def test_a_machine_that_lost_its_state_needs_no_second_approval_for_the_same_keys(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        guest = Guest.booted(verifier)
        answer, _ = await prove(guest)
        await decide(verifier, answer.json["enrollment_id"])
        again, _ = await prove(guest)
        assert again.json["status"] == "enrolled"
        guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="new"))
        other, _ = await prove(guest)
        assert other.json["status"] == "pending", "another key was never approved"


async def test_pending_enrolments_expire(tmp_path, clock):
    async with verifier_with(tmp_path, "approve", clock, ENROLLMENT_APPROVAL_LIFETIME="1h") as verifier:
        guest = Guest.booted(verifier)
        answer, proof = await prove(guest)
        clock.advance(minutes=60)
        late = await ask_again(guest, answer, proof)
        assert (late.status, late.code) == (410, "enrollment-expired")
        assert (await verifier.get("/v1/enrollments")).json["enrollments"] == []
        assert (await decide(verifier, answer.json["enrollment_id"])).status == 404
        clock.advance(seconds=1)
        assert await verifier.service.services.recorder.purge(clock.now()) == 1


async def test_a_flood_from_one_address_is_bounded_and_leaves_who_waits_already_alone(tmp_path):
    limits = {"ENROLLMENT_MAX_PENDING_PER_ADDRESS": "3"}
    async with verifier_with(tmp_path, "approve", **limits) as verifier:
        first = Guest.booted(verifier, 1)
        await prove(first, uuid=None)
        for seed in (2, 3):
            assert (await begin(Guest.booted(verifier, seed), uuid=None)).status == 201
        before = verifier.rows()
        full = await begin(Guest.booted(verifier, 4), uuid=None)
        assert (full.status, full.code) == (429, "enrollment-queue-full")
        assert int(full.headers["Retry-After"]) > 0
        assert verifier.rows() == before
        assert (await prove(first, uuid=None))[0].json["status"] == "pending"
        await decide(verifier, (await verifier.get("/v1/enrollments")).json["enrollments"][0]["id"])
        assert (await begin(Guest.booted(verifier, 5), uuid=None)).status == 201


async def test_a_flood_from_everywhere_is_bounded_by_the_tenant(tmp_path):
    limits = {"ENROLLMENT_MAX_PENDING_PER_ADDRESS": "0", "ENROLLMENT_MAX_PENDING": "2"}
    async with verifier_with(tmp_path, "certificate|approve", **limits) as verifier:
        for seed in (1, 2):
            assert (await begin(Guest.booted(verifier, seed), uuid=None, ek_certificates=[])).status == 201
        full = await begin(Guest.booted(verifier, 3), uuid=None, ek_certificates=[])
        assert full.code == "enrollment-queue-full"
        assert (await begin(Guest.booted(verifier, 4), uuid=None)).status == 201, (
            "who need not wait is let in"
        )


async def test_the_list_goes_by_pages_oldest_first(tmp_path, clock):
    async with verifier_with(tmp_path, "approve", clock) as verifier:
        numbers = []
        for seed in range(1, 6):
            answer, _ = await prove(Guest.booted(verifier, seed), uuid=None)
            numbers.append(answer.json["enrollment_id"])
            clock.advance(seconds=1)
        seen, cursor = [], ""
        while cursor is not None:
            page = (await verifier.get(f"/v1/enrollments?limit=2{cursor}")).json
            seen += [each["id"] for each in page["enrollments"]]
            cursor = f"&cursor={page['cursor']}" if "cursor" in page else None
        assert seen == numbers
        foreign = (await verifier.get("/v1/enrollments?limit=2")).json["cursor"]
        answer = await verifier.get(f"/v1/enrollments?status=refused&cursor={foreign}")
        assert (answer.status, answer.code) == (400, "malformed-request")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/enrollments?status=offered", None),
        ("GET", "/v1/enrollments?limit=0", None),
        ("GET", "/v1/enrollments?cursor=AAAA", None),
        ("GET", "/v1/incidents?cursor=%F0", None),
        ("GET", "/v1/audit?before=0", None),
        ("GET", "/v1/audit?before=99999999999999999999", None),
        ("GET", "/v1/audit?subject=", None),
        ("POST", "/v1/enrollments/{id}/approve", {"reason": "x" * 1001}),
        ("POST", "/v1/enrollments/{id}/approve", {"reason": 1}),
        ("POST", "/v1/enrollments/{id}/approve", {"because": "typo"}),
        ("POST", "/v1/enrollments/{id}/approve", {"as_new": True, "replaces": "att-1"}),
        ("POST", "/v1/enrollments/{id}/approve", {"replaces": "../att"}),
        ("POST", "/v1/enrollments/{id}/refuse", {"overrule": True}),
        ("POST", "/v1/enrollments/{id}/refuse", []),
    ],
)
async def test_bad_input_is_a_400_and_decides_nothing(tmp_path, method, path, body):
    async with verifier_with(tmp_path, "approve") as verifier:
        answer, _ = await prove(Guest.booted(verifier))
        await verifier.get("/v1/status")
        await verifier.post("/v1/enrollments/x/approve", {}, scope=Scope.OPERATOR)
        before = verifier.rows()
        path = path.replace("{id}", answer.json["enrollment_id"])
        options = {} if body is None else {"json": body}
        bad = await verifier.call(method, path, scope=Scope.ADMIN, **options)
        assert (bad.status, bad.code) == (400, "malformed-request")
        after = verifier.rows()
        assert {**after, "token": before["token"]} == before
        assert len((await verifier.get("/v1/enrollments")).json["enrollments"]) == 1


async def test_another_tenant_sees_and_decides_nothing_of_it(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        answer, _ = await prove(Guest.booted(verifier))
        number = answer.json["enrollment_id"]
        foreign = await verifier.token(Scope.OPERATOR, tenant="other")
        assert (await verifier.call("GET", "/v1/enrollments", token=foreign)).json["enrollments"] == []
        for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
            options = {"json": {}} if method == "POST" else {}
            hidden = await verifier.call(method, f"/v1/enrollments/{number}{path}", token=foreign, **options)
            assert (hidden.status, hidden.code) == (404, "not-found")
        await decide(verifier, number)
        assert {
            one["action"] for one in (await verifier.call("GET", "/v1/audit", token=foreign)).json["entries"]
        } == {"token.created"}


async def test_a_revoked_machine_cannot_be_approved_back(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        guest = Guest.booted(verifier)
        answer, _ = await prove(guest)
        attester = (await decide(verifier, answer.json["enrollment_id"])).json["attester"]
        guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="second"))
        waiting, _ = await prove(guest)
        await verifier.post(f"/v1/attesters/{attester}/revoke", None, scope=Scope.OPERATOR)
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert [conflict["code"] for conflict in shown["conflicts"]] == ["attester-revoked"]
        refused = await decide(verifier, waiting.json["enrollment_id"])
        assert (refused.status, refused.code) == (403, "attester-revoked")
        assert (await begin(guest)).code == "attester-revoked"


async def test_a_known_key_under_another_uuid_is_shown_to_whoever_decides(tmp_path):
    async with verifier_with(tmp_path, "approve") as verifier:
        guest = Guest.booted(verifier)
        answer, _ = await prove(guest, uuid=VM)
        attester = (await decide(verifier, answer.json["enrollment_id"])).json["attester"]
        guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="second"))
        await prove(guest, uuid=OTHER_VM)
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        (conflict,) = shown["conflicts"]
        assert (conflict["code"], conflict["subject"]) == ("clone-suspected", attester)
        assert VM in conflict["message"]


# --- a known machine with another TPM


async def test_nobody_takes_a_machines_place_by_claiming_its_uuid(tmp_path):
    """The takeover of a peer's registrar: a certified TPM, a join token, and somebody else's UUID."""
    async with verifier_with(tmp_path, "certificate,token") as verifier:
        victim = await enrolled(verifier, 1)
        assert (await attest(victim)).json["verdict"]["status"] == "affirming"
        before = (await verifier.get(f"/v1/attesters/{victim.attester_id}")).json
        for claim in (VM, VM.upper(), VM_SWAPPED):
            impostor = Guest.booted(verifier, 2)
            answer, proof = await prove(impostor, token=await verifier.token(Scope.JOIN), uuid=claim)
            assert (answer.json["status"], answer.json["code"]) == ("pending", "identity-replaced")
            assert "attester_id" not in answer.json
        assert (await verifier.get(f"/v1/attesters/{victim.attester_id}")).json == before
        assert verifier.rows()["attester"] == 1
        # The impostor's key speaks for nobody, not for its victim either.
        impostor.attester_id = victim.attester_id
        stolen = await attest(impostor)
        assert (stolen.status, stolen.code) == (403, "quote-signature")
        assert (await attest(victim)).json["verdict"]["status"] == "affirming"
        await decide(verifier, answer.json["enrollment_id"], "refuse", reason="not ours")
        assert (await ask_again(impostor, answer, proof)).code == "enrollment-refused"
        assert (await attest(victim)).json["verdict"]["status"] == "affirming"


async def test_a_uuid_that_becomes_known_while_a_challenge_is_out_still_waits(tmp_path):
    async with verifier_with(tmp_path, "certificate,token") as verifier:
        impostor = Guest.booted(verifier, 2)
        begun = await begin(impostor, token=await verifier.token(Scope.JOIN))
        await enrolled(verifier, 1)
        answer = await impostor.activate(begun.json)
        assert (answer.json["status"], answer.json["code"]) == ("pending", "identity-replaced")


async def test_an_approved_replacement_takes_the_place_and_keeps_the_old_history(tmp_path, clock):
    async with verifier_with(tmp_path, "certificate,token", clock) as verifier:
        old = await enrolled(verifier, 1)
        await verifier.service.services.assignments.label("default", old.attester_id, {"tier": "web"}, "t")
        await attest(old)
        challenge = await old.challenge()
        clock.advance(minutes=1)
        new = Guest.booted(verifier, 2)
        answer, proof = await prove(new, token=await verifier.token(Scope.JOIN))
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert shown["code"] == "identity-replaced"
        assert shown["candidates"] == [old.attester_id]
        assert [each["subject"] for each in shown["conflicts"]] == [old.attester_id]
        assert shown["endorsement"]["profile"]["methods"] == ["certificate", "token"]
        approved = (await decide(verifier, shown["id"], reason="new vTPM after restore")).json
        assert approved["replaces"] == old.attester_id

        new.attester_id = (await ask_again(new, answer, proof)).json["attester_id"]
        assert new.attester_id not in {old.attester_id, None}
        verdict = (await attest(new)).json["verdict"]
        assert (verdict["status"], verdict["sequence"]) == ("affirming", 1), "its clock is not the old one's"
        record = (await verifier.get(f"/v1/attesters/{new.attester_id}")).json
        assert record["replaces"] == [old.attester_id]
        assert record["labels"] == {"tier": "web"}
        assert record["endorsement"]["profile"]["methods"] == ["certificate", "token", "approve"]
        assert [
            one["id"] for one in (await verifier.get("/v1/attesters?label=tier=web")).json["attesters"]
        ] == sorted([old.attester_id, new.attester_id])

        gone = (await verifier.get(f"/v1/attesters/{old.attester_id}")).json
        assert (gone["lifecycle"], gone["replaced_by"]) == ("retired", new.attester_id)
        assert gone["verdict"]["status"] == "none"
        assert new.attester_id in gone["verdict"]["findings"][-1]["message"]
        assert len((await verifier.get(f"/v1/attesters/{old.attester_id}/history")).json["verdicts"]) == 1
        for answer in (
            await attest(old, challenge=challenge),
            await verifier.post("/v1/challenges", {"attester_id": old.attester_id}),
        ):
            assert (answer.status, answer.code) == (403, "identity-replaced")
        counts = (await verifier.get("/v1/status")).json["counts"]
        assert (counts["retired"], counts["affirming"]) == (1, 1)
        assert [
            one["id"] for one in (await verifier.get("/v1/attesters?status=retired")).json["attesters"]
        ] == [old.attester_id]
        entry, labelled = await audit(verifier, old.attester_id)
        assert (entry["action"], entry["detail"]["replaced_by"]) == ("identity.replaced", new.attester_id)
        assert labelled["action"] == "attester.labelled"


async def test_a_vtpm_that_comes_back_waits_too_and_then_changes_places(tmp_path):
    async with verifier_with(tmp_path, "certificate,token") as verifier:
        old = await enrolled(verifier, 1)
        new = Guest.booted(verifier, 2)
        answer, _ = await prove(new, token=await verifier.token(Scope.JOIN))
        successor = (await decide(verifier, answer.json["enrollment_id"])).json["attester"]

        back, proof = await prove(old, token=await verifier.token(Scope.JOIN))
        assert (back.json["status"], back.json["code"]) == ("pending", "identity-replaced")
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert shown["candidates"] == [successor]
        assert {each["subject"] for each in shown["conflicts"]} == {successor, old.attester_id}
        await decide(verifier, shown["id"])
        assert (await ask_again(old, back, proof)).json["attester_id"] == old.attester_id
        assert (await attest(old)).json["verdict"]["status"] == "affirming"
        states = {
            one: (await verifier.get(f"/v1/attesters/{one}")).json for one in (old.attester_id, successor)
        }
        assert (states[successor]["lifecycle"], states[successor]["replaced_by"]) == (
            "retired",
            old.attester_id,
        )
        assert states[old.attester_id]["lifecycle"] == "enrolled"
        assert "replaced_by" not in states[old.attester_id]


async def test_a_person_may_also_call_it_a_machine_of_its_own(tmp_path):
    async with verifier_with(tmp_path, "certificate,token") as verifier:
        first = await enrolled(verifier, 1)
        second = Guest.booted(verifier, 2)
        answer, _ = await prove(second, token=await verifier.token(Scope.JOIN))
        approved = (await decide(verifier, answer.json["enrollment_id"], as_new=True)).json
        assert "replaces" not in approved
        assert (await verifier.get(f"/v1/attesters/{first.attester_id}")).json["lifecycle"] == "enrolled"

        third = Guest.booted(verifier, 3)
        answer, _ = await prove(third, token=await verifier.token(Scope.JOIN))
        unclear = await decide(verifier, answer.json["enrollment_id"])
        assert (unclear.status, unclear.code) == (409, "conflict")
        assert first.attester_id in unclear.json["detail"]
        assert approved["attester"] in unclear.json["detail"]
        foreign = await decide(verifier, answer.json["enrollment_id"], replaces="att-nobody")
        assert (foreign.status, foreign.code) == (409, "conflict")
        named = await decide(verifier, answer.json["enrollment_id"], replaces=first.attester_id)
        assert named.json["replaces"] == first.attester_id


async def test_a_conflict_that_appeared_after_the_request_must_be_named_in_the_approval(tmp_path):
    async with verifier_with(tmp_path, "certificate|approve,token") as verifier:
        guest = Guest.booted(verifier, 1)
        answer, _ = await prove(guest, token=await verifier.token(Scope.JOIN), ek_certificates=[])
        assert answer.json["code"] == "enrollment-pending"
        other = await enrolled(verifier, 2)
        number = answer.json["enrollment_id"]
        unclear = await decide(verifier, number)
        assert (unclear.status, unclear.code) == (409, "conflict")
        assert other.attester_id in unclear.json["detail"]
        assert (await decide(verifier, number, as_new=True)).status == 200


async def test_guests_without_a_uuid_or_with_a_placeholder_are_nobodys_replacement(tmp_path):
    async with verifier_with(tmp_path, "certificate,token") as verifier:
        for uuid in (None, "03000200-0400-0500-0006-000700080009", "00000000-0000-0000-0000-000000000000"):
            for seed in (1, 2):
                answer, _ = await prove(
                    Guest.booted(verifier, seed), token=await verifier.token(Scope.JOIN), uuid=uuid
                )
                assert answer.json["status"] == "enrolled"


# --- the inventory's word


class Listed:
    """A real inventory registry, asked as the service asks it."""

    def __init__(self, verifier, clock) -> None:
        self.registry, self.clock = Registry([SourceName("file", "file", "machines.csv")]), clock
        verifier.service.services.approvals._known._inventory = self.ask

    async def ask(self, keys):
        by_uuid = self.registry.by_smbios(keys.smbios_uuid) if keys.smbios_uuid else ()
        return correlate(
            keys,
            by_ek=self.registry.by_ek(keys.ek_fingerprint),
            by_uuid=by_uuid,
            sources=self.registry.status(),
            now=self.clock.now(),
            max_age=timedelta(hours=1),
        )

    def put(self, name: str, uuid: str, *guests: Guest) -> None:
        from verifier.crypto.keys import fingerprint, load_key

        keys = frozenset(fingerprint(load_key(guest.tpm.ek_public).public) for guest in guests)
        machine = InventoryMachine(
            key=MachineKey(source="file", id=name), name=name, smbios_uuid=uuid, ek_fingerprints=keys
        )
        self.registry.apply(changed=[machine])
        self.registry.current("file", at=self.clock.now())


async def test_the_inventory_settles_a_replacement_without_a_person(tmp_path, clock):
    async with verifier_with(tmp_path, "certificate,token", clock) as verifier:
        listed = Listed(verifier, clock)
        old = await enrolled(verifier, 1)
        new = Guest.booted(verifier, 2)
        listed.put("web-1", VM, new)
        successor = await enrolled(verifier, 2)
        assert (await attest(successor)).json["verdict"]["status"] == "affirming"
        gone = (await verifier.get(f"/v1/attesters/{old.attester_id}")).json
        assert (gone["lifecycle"], gone["replaced_by"]) == ("retired", successor.attester_id)
        (entry,) = await audit(verifier, old.attester_id)
        assert (entry["actor"], entry["action"]) == ("inventory", "identity.replaced")


@pytest.mark.parametrize("stale", [False, True])
async def test_an_inventory_that_lists_another_key_or_is_stale_settles_nothing(tmp_path, clock, stale):
    async with verifier_with(tmp_path, "certificate,token", clock) as verifier:
        listed = Listed(verifier, clock)
        old = await enrolled(verifier, 1)
        new = Guest.booted(verifier, 2)
        listed.put("web-1", VM, new if stale else old)
        if stale:
            clock.advance(hours=2)
        answer, _ = await prove(new, token=await verifier.token(Scope.JOIN))
        assert (answer.json["status"], answer.json["code"]) == ("pending", "identity-replaced")
        (shown,) = (await verifier.get("/v1/enrollments")).json["enrollments"]
        assert [each["code"] for each in shown["conflicts"]] == ["identity-replaced", "inventory-disagrees"]


async def test_a_foreign_claim_of_the_uuid_does_not_make_the_true_machine_wait(tmp_path, clock):
    """Somebody was there first with another machine's UUID; the inventory says whose key is whose."""
    async with verifier_with(tmp_path, "certificate,token", clock) as verifier:
        listed = Listed(verifier, clock)
        squatter = await enrolled(verifier, 1, VM)
        listed.put("other", OTHER_VM, squatter)
        listed.put("web-1", VM, Guest.booted(verifier, 2))
        true = await enrolled(verifier, 2, VM)
        assert true.attester_id != squatter.attester_id
        assert (await verifier.get(f"/v1/attesters/{squatter.attester_id}")).json["lifecycle"] == "enrolled"


async def test_where_the_inventory_pins_keys_a_replaced_vtpm_waits_by_name_and_a_stranger_is_refused(
    tmp_path, clock
):
    async with verifier_with(tmp_path, "certificate,token", clock) as verifier:
        from dataclasses import replace

        from verifier.service.methods import parse_methods

        service = verifier.service.services.enrollment
        service._rules = replace(service._rules, requirements=parse_methods(["inventory"]))
        listed = Listed(verifier, clock)
        old = Guest.booted(verifier, 1)
        listed.put("web-1", VM, old)
        assert (await prove(old))[0].json["status"] == "enrolled"
        waits, _ = await prove(Guest.booted(verifier, 2))
        assert (waits.json["status"], waits.json["code"]) == ("pending", "identity-replaced")
        listed.put("other", OTHER_VM, Guest.booted(verifier, 3))
        for guest, uuid in ((Guest.booted(verifier, 3), VM), (Guest.booted(verifier, 4), None)):
            refused = await begin(guest, uuid=uuid)
            assert (refused.status, refused.code) == (403, "inventory-disagrees")
