"""Secrets over HTTP: who is given one, when it is withheld, and that an answer opens once, there, and for that question."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3

import msgspec
import pytest

from agent.release import SealedError
from agent.wire.codec import decode
from agent.wire.secrets import ReleaseReply
from tests.harness import POLICY, Guest, b64, boot_log, running, settings_for, unb64
from tests.postgresql import started
from tests.secrets import KEY, NAME, ask, audit, grant, put, question, unsealed
from tests.simulator import TpmRefusal
from tests.simulator.keys import EkProfile
from verifier.errors import StoreUnavailable
from verifier.ports import Scope

OPERATOR = {"scope": Scope.OPERATOR}


@pytest.fixture
async def guest(verifier) -> Guest:
    """Enrolled, affirming, and granted the secret."""
    made = await verifier.guest()
    await put(verifier)
    await grant(verifier, attester=made.attester_id)
    return made


async def told(verifier) -> list[str]:
    """What the audit log says was done with the secret, but for putting and granting it."""
    actions = [entry["action"] for entry in await audit(verifier)]
    return [action for action in actions if action not in {"secret.put", "secret.granted"}]


async def test_an_affirming_machine_gets_it_and_that_is_recorded(verifier, guest):
    asked = await question(guest)
    answer = await asked.send()
    assert asked.open(answer) == KEY
    assert KEY not in answer.content
    reply = answer.json
    assert (reply["attestation"]["verdict"]["status"], reply["revision"]) == ("affirming", 1)
    entry = (await audit(verifier))[-1]
    assert (entry["action"], entry["actor"]) == ("secret.released", guest.attester_id)
    assert (entry["detail"]["sequence"], entry["detail"]["revision"]) == (1, 1)
    assert entry["detail"]["request_id"] == answer.headers["X-Request-Id"]
    history = (await verifier.get(f"/v1/attesters/{guest.attester_id}/history")).json["verdicts"]
    assert [one["status"] for one in history] == ["affirming"], "the evidence counts as any other"
    metrics = (await verifier.get("/metrics")).content.decode()
    assert 'vtpm_attest_verdicts_total{status="affirming"} 1.0' in metrics
    assert 'vtpm_attest_responses_total{operation="post_v1_secrets_name_release",status="2xx"} 1.0' in metrics


@pytest.mark.parametrize("kind", ["rsa2048", "p384"])
async def test_every_kind_of_ek_opens_it(verifier, kind):
    """That of P-256 all other tests have."""
    guest = await verifier.guest(7, ek=EkProfile(kind=kind))
    await put(verifier)
    await grant(verifier, attester=guest.attester_id)
    assert await unsealed(guest) == KEY


async def test_a_running_agents_attestations_and_questions_do_not_disturb_each_other(guest):
    for _ in range(4):
        assert (await guest.speak())["status"] == "affirming"
        assert await unsealed(guest) == KEY
        assert await unsealed(guest) == KEY


async def test_what_it_was_judged_by_can_be_read_and_judged_again(verifier, guest):
    await unsealed(guest)
    path = "/v1/policies/secure-boot/dry-run?all=true"
    answer = await verifier.call(
        "POST", path, data=POLICY, headers={"Content-Type": "application/yaml"}, **OPERATOR
    )
    assert answer.status == 200, answer.content
    assert (answer.json["counts"]["unchanged"], answer.json["counts"]["unjudged"]) == (1, 0)


# --- who may have it

WHO = {
    "nobody": ([], False),
    "its id": ([{"attester": "ME"}], True),
    "another's id": ([{"attester": "OTHER"}], False),
    "its label": ([{"labels": {"tier": "web"}}], True),
    "labels of which it lacks one": ([{"labels": {"tier": "web", "zone": "b"}}], False),
    "its policy": ([{"policy": "secure-boot"}], True),
    "another policy": ([{"policy": "strict"}], False),
    "its id under another policy": ([{"attester": "ME", "policy": "strict"}], False),
    "all of them": ([{"attester": "ME", "labels": {"tier": "web"}, "policy": "secure-boot"}], True),
    "one of two": ([{"policy": "strict"}, {"labels": {"tier": "web"}}], True),
}


async def test_who_is_all_that_one_grant_says_gets_it(verifier):
    guest, other = await verifier.guest(1), await verifier.guest(2)
    path = f"/v1/attesters/{guest.attester_id}/labels"
    await verifier.call("PUT", path, json={"labels": {"tier": "web", "zone": "a"}}, **OPERATOR)
    ids = {"ME": guest.attester_id, "OTHER": other.attester_id}
    given = set()
    for number, (who, (grants, _)) in enumerate(WHO.items()):
        name = f"secret-{number}"
        await put(verifier, name)
        for one in grants:
            meant = {"attester": ids[one["attester"]]} if "attester" in one else {}
            await grant(verifier, name, **one | meant)
        answer = await ask(guest, name)
        if answer.status == 200:
            given.add(who)
        else:
            assert (answer.status, answer.code) == (404, "secret-unknown")
            assert (await audit(verifier, name))[-1]["reason"] == "no grant is for this attester"
    assert given == {who for who, (_, expected) in WHO.items() if expected}


async def test_without_a_grant_a_secret_looks_like_one_that_is_not_there(verifier):
    guest = await verifier.guest()
    await put(verifier)
    there, absent = await ask(guest), await ask(guest, "disk-xyz")
    for answer in (there, absent):
        assert (answer.status, answer.code) == (404, "secret-unknown")
    said = [{key: value for key, value in one.json.items() if key != "request_id"} for one in (there, absent)]
    assert said[0] == said[1] | {"detail": said[1]["detail"].replace("disk-xyz", NAME)}
    assert (await audit(verifier, "disk-xyz"))[-1]["reason"] == "there is no such secret"
    guest.reboot(boot_log(secure=False))
    assert (await ask(guest)).code == "secret-unknown", "whatever its verdict is"


async def test_a_grant_is_used_up_runs_out_or_is_withdrawn(verifier, clock, guest):
    (first,) = (await verifier.get(f"/v1/secrets/{NAME}")).json["grants"]
    path = f"/v1/secrets/{NAME}/grants/{first['id']}"
    assert (await verifier.call("DELETE", path, **OPERATOR)).status == 204
    assert (await ask(guest)).code == "secret-unknown"
    await grant(verifier, attester=guest.attester_id, uses=2)
    assert await unsealed(guest) == KEY
    assert await unsealed(guest) == KEY
    assert (await ask(guest)).code == "secret-unknown"
    assert (await audit(verifier))[-1]["reason"] == "its grants are used up or over"
    await grant(verifier, policy="secure-boot", expires_in=3600)
    assert await unsealed(guest) == KEY
    clock.advance(hours=1)
    assert (await ask(guest)).code == "secret-unknown"
    left = (await verifier.get(f"/v1/secrets/{NAME}")).json["grants"]
    assert {one.get("uses_left") for one in left} == {0, None}


async def test_a_grant_that_counts_is_kept_while_another_does(verifier, guest):
    await grant(verifier, attester=guest.attester_id, uses=1)
    assert await unsealed(guest) == KEY
    grants = (await verifier.get(f"/v1/secrets/{NAME}")).json["grants"]
    assert {one.get("uses_left") for one in grants} == {None, 1}


# --- withheld


async def _insecure(verifier, guest):
    guest.reboot(boot_log(secure=False))


async def _warned(verifier, guest):
    policy = POLICY.replace("severity: contraindicated", "severity: warning")
    await verifier.call(
        "POST", "/v1/policies", data=policy, headers={"Content-Type": "application/yaml"}, **OPERATOR
    )
    guest.reboot(boot_log(secure=False))


async def _cloned(verifier, guest):
    """Two of it go on, and it is the other one's turn."""
    await guest.attest()
    other = guest.copied(running=True, smbios_uuid="uuid-other")
    await guest.attest()
    await guest.attest()
    assert (await other.attest()).json["verdict"]["status"] == "contraindicated"


WITHHELD = {
    "contraindicated": (_insecure, "the verdict is contraindicated: secure-boot-off"),
    "warning": (_warned, "the verdict is warning: secure-boot-off"),
    "a clone that nobody resolved": (_cloned, "the verdict is contraindicated"),
}


@pytest.mark.parametrize("state", WITHHELD)
async def test_it_is_withheld_with_the_reason_and_that_is_recorded(verifier, guest, state):
    change, why = WITHHELD[state]
    await change(verifier, guest)
    answer = await ask(guest)
    assert (answer.status, answer.code) == (403, "secret-withheld")
    assert why in answer.json["detail"]
    assert await told(verifier) == ["secret.withheld"]
    entry = (await audit(verifier))[-1]
    assert why in entry["reason"]
    assert entry["detail"]["attester"] == guest.attester_id


async def test_without_a_policy_that_decides_the_verdict_is_none_and_it_is_withheld(tmp_path):
    async with running(settings_for(tmp_path, DEFAULT_POLICY="")) as verifier:
        guest = await verifier.guest()
        await put(verifier)
        await grant(verifier, attester=guest.attester_id)
        answer = await ask(guest)
        assert (answer.status, answer.code) == (403, "secret-withheld")
        assert "the verdict is none: policy-missing" in answer.json["detail"]


async def test_a_verdict_of_before_counts_for_nothing(verifier, clock, guest):
    """It was affirming a moment ago, and is asked for with evidence of a boot that is not."""
    assert (await guest.attest()).json["verdict"]["status"] == "affirming"
    guest.reboot(boot_log(secure=False))
    assert (await ask(guest)).code == "secret-withheld"
    guest.reboot(boot_log())
    clock.advance(hours=2)
    stale = (await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")).json
    assert stale["lifecycle"] == "stale"
    assert await unsealed(guest) == KEY, "nor does one that ran out"


async def test_who_is_not_heard_gets_nothing(verifier, guest):
    """Revoked, replaced, sent away to enrol again: with questions that were made before."""
    asked = await question(guest)
    await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, **OPERATOR)
    refused = await asked.send()
    assert (refused.status, refused.code) == (403, "attester-revoked")
    challenge = await verifier.post("/v1/challenges", {"attester_id": guest.attester_id})
    assert challenge.code == "attester-revoked"
    assert (await asked.send()).code == "attester-revoked"
    assert await told(verifier) == ["secret.refused"], "once, however often it is sent"
    entry = (await audit(verifier))[-1]
    assert (entry["actor"], entry["detail"]["reasons"]) == (guest.attester_id, ["attester-revoked"])


async def test_who_only_says_to_be_a_revoked_machine_is_not_in_the_audit_log(verifier, guest):
    asked, plain = await question(guest), await question(guest)
    unbound = plain.body | {"evidence": guest.evidence(await guest.challenge())}
    await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, **OPERATOR)
    signature = bytearray(unb64(asked.body["evidence"]["signature"]))
    signature[-1] ^= 1
    for changes in ({"signature": b64(bytes(signature))}, {"signature": "AAAA"}, {"attest": "AAAA"}):
        forged = asked.body | {"evidence": asked.body["evidence"] | changes}
        assert (await verifier.post(asked.path, forged)).code == "attester-revoked"
    assert (await verifier.post(asked.path, unbound)).code == "attester-revoked"
    assert await told(verifier) == []


async def test_a_machine_that_another_tpm_replaced_gets_nothing(verifier, guest):
    asked = await question(guest)
    newer = Guest.booted(verifier, 2)
    newer.identity = dict(guest.identity)
    begun = await verifier.post("/v1/enrollments", newer.enrollment(await verifier.token(Scope.JOIN)))
    pending = await newer.activate(begun.json)
    assert pending.json["code"] == "identity-replaced"
    path = f"/v1/enrollments/{pending.json['enrollment_id']}/approve"
    body = {"reason": "new board", "replaces": guest.attester_id}
    assert (await verifier.post(path, body, **OPERATOR)).status == 200
    assert (await asked.send()).code == "identity-replaced"
    assert await told(verifier) == ["secret.refused"]


async def test_of_a_clone_the_kept_machine_gets_it_and_the_copy_nothing(verifier, guest):
    await _cloned(verifier, guest)
    other = guest.copied(running=True, smbios_uuid="uuid-other")
    (found,) = (await verifier.get("/v1/incidents")).json["incidents"]
    path = f"/v1/incidents/{found['id']}/resolve"
    body = {"keep": guest.identity["smbios_uuid"], "reenroll": "uuid-other", "reason": "a copy"}
    assert (await verifier.post(path, body, **OPERATOR)).status == 200
    refused = await ask(other)
    assert (refused.status, refused.code) == (403, "reenrollment-required")
    assert await unsealed(guest) == KEY
    assert await told(verifier) == ["secret.refused", "secret.released"]


async def test_a_machine_that_has_to_enrol_again_gets_nothing(verifier, guest):
    await _cloned(verifier, guest)
    (found,) = (await verifier.get("/v1/incidents")).json["incidents"]
    asked = await question(guest)
    path = f"/v1/incidents/{found['id']}/resolve"
    assert (await verifier.post(path, {"reenroll": "all", "reason": "both"}, **OPERATOR)).status == 200
    refused = await asked.send()
    assert (refused.status, refused.code) == (403, "reenrollment-required")
    assert await told(verifier) == ["secret.refused"]


# --- what is asked with


async def test_a_quote_of_an_attestation_releases_nothing_and_the_other_way_about(guest):
    challenge = await guest.challenge()
    asked = await question(guest)
    plain = asked.body | {"evidence": guest.evidence(challenge)}
    answer = await guest.harness.post(asked.path, plain)
    assert (answer.status, answer.code) == (403, "quote-nonce")
    answer = await guest.harness.post("/v1/attestations", asked.body["evidence"])
    assert (answer.status, answer.code) == (403, "quote-nonce")
    assert asked.open(await asked.send()) == KEY, "neither spent the nonce"


async def test_a_question_is_for_one_secret_and_one_reply_key(verifier, guest):
    await put(verifier, "other", b"another secret")
    await grant(verifier, "other", attester=guest.attester_id)
    asked, mine = await question(guest), await question(guest)
    elsewhere = await verifier.post("/v1/secrets/other/release", asked.body)
    assert (elsewhere.status, elsewhere.code) == (403, "quote-nonce")
    redirected = asked.body | {"reply_key": mine.body["reply_key"]}
    assert (await verifier.post(asked.path, redirected)).code == "quote-nonce"
    assert asked.open(await asked.send()) == KEY


async def test_a_question_is_answered_once(verifier, guest):
    asked = await question(guest)
    assert (await asked.send()).status == 200
    again = await asked.send()
    assert (again.status, again.code) == (409, "nonce-reused")
    assert await told(verifier) == ["secret.released"]


async def test_a_question_runs_out_with_its_nonce(guest, clock):
    asked = await question(guest)
    clock.advance(minutes=3)
    assert (await asked.send()).code == "nonce-expired"


async def test_a_reply_key_that_is_none_is_refused_before_the_nonce_is_spent(guest):
    asked = await question(guest)
    for key in (b"", b"\x04", bytes(65), b"\x04" + b"\x01" * 64):
        answer = await guest.harness.post(asked.path, asked.body | {"reply_key": b64(key)})
        assert answer.status == 400
        assert answer.code in {"malformed-request", "malformed-structure"}
    assert (await asked.send()).status == 200


async def test_a_name_that_no_secret_can_have_is_refused(verifier, guest):
    asked = await question(guest)
    for name in ("a b", "-x", "x" * 65, "name%00", "%C3%A9"):
        answer = await verifier.call("PUT", f"/v1/secrets/{name}", json={"content": "AAAA"}, **OPERATOR)
        assert (answer.status, answer.code) == (400, "malformed-request")
        answer = await verifier.post(f"/v1/secrets/{name}/release", asked.body)
        assert (answer.status, answer.code) == (400, "malformed-request")


# --- what comes back


async def test_another_tpm_or_another_process_cannot_open_an_answer(verifier, guest):
    asked = await question(guest)
    answer = await asked.send()
    other = await verifier.guest(2)
    with pytest.raises(TpmRefusal):
        asked.open(answer, other)
    later = await question(guest)
    recorded = dataclasses.replace(asked, asking=later.asking)
    with pytest.raises(SealedError):
        recorded.open(answer)
    assert asked.open(answer) == KEY


async def test_an_answer_to_something_else_is_refused(verifier, guest):
    await put(verifier, "other", b"another secret")
    await grant(verifier, "other", attester=guest.attester_id)
    first, second, other = [await question(guest, name) for name in (NAME, NAME, "other")]
    answers = [await one.send() for one in (first, second, other)]
    for asked, right in zip((first, second, other), answers, strict=True):
        for answer in answers:
            if answer is right:
                asked.open(answer)
            else:
                with pytest.raises(SealedError):
                    asked.open(answer)


def _flipped(field: str):
    def change(reply: ReleaseReply) -> ReleaseReply:
        content = bytearray(getattr(reply, field))
        content[-1] ^= 1
        return msgspec.structs.replace(reply, **{field: bytes(content)})

    return change


def _verdict(**changes):
    def change(reply: ReleaseReply) -> ReleaseReply:
        verdict = msgspec.structs.replace(reply.attestation.verdict, **changes)
        return msgspec.structs.replace(
            reply, attestation=msgspec.structs.replace(reply.attestation, verdict=verdict)
        )

    return change


TAMPERED = {
    "ciphertext": _flipped("ciphertext"),
    "cut ciphertext": lambda reply: msgspec.structs.replace(reply, ciphertext=reply.ciphertext[:-1]),
    "verifier key": _flipped("verifier_key"),
    "revision": lambda reply: msgspec.structs.replace(reply, revision=reply.revision + 1),
    "sequence": _verdict(sequence=9),
    "attester": _verdict(attester_id="att-another"),
    "credential": _flipped("credential_blob"),
    "encrypted secret": _flipped("encrypted_secret"),
}


async def test_an_answer_that_was_changed_on_its_way_is_refused(guest):
    asked = await question(guest)
    answer = await asked.send()
    for change in TAMPERED.values():
        changed = change(decode(answer.content, ReleaseReply))
        with pytest.raises((SealedError, TpmRefusal)):
            asked.open(dataclasses.replace(answer, content=msgspec.json.encode(changed)))
    assert asked.open(answer) == KEY


# --- while it is on its way


def _before_recording(verifier, happens):
    """Something happens after the evidence was judged and the answer sealed, and before the release is recorded."""
    store = verifier.service.store
    record = store.release_secret

    async def late(*arguments):
        store.release_secret = record
        await happens()
        return await record(*arguments)

    store.release_secret = late


async def test_revoked_meanwhile_it_is_withheld(verifier, guest):
    path = f"/v1/attesters/{guest.attester_id}/revoke"
    _before_recording(verifier, lambda: verifier.post(path, {}, **OPERATOR))
    answer = await ask(guest)
    assert (answer.status, answer.code) == (403, "attester-revoked")
    assert await told(verifier) == ["secret.withheld"]
    assert (await audit(verifier))[-1]["reason"] == "the attester was revoked or replaced meanwhile"


async def test_newer_evidence_overtakes_a_release(verifier, guest):
    _before_recording(verifier, guest.attest)
    answer = await ask(guest)
    assert (answer.status, answer.code) == (409, "evidence-overtaken")
    assert await told(verifier) == []
    assert await unsealed(guest) == KEY


async def test_put_anew_meanwhile_the_new_content_is_released(verifier, guest):
    _before_recording(verifier, lambda: put(verifier, content=b"the new one"))
    asked = await question(guest)
    answer = await asked.send()
    assert (asked.open(answer), answer.json["revision"]) == (b"the new one", 2)


@pytest.mark.parametrize("what", ["removed", "withdrawn"])
async def test_removed_or_withdrawn_meanwhile_it_is_not_released(verifier, guest, what):
    path = f"/v1/secrets/{NAME}"
    if what == "withdrawn":
        (granted,) = (await verifier.get(path)).json["grants"]
        path += f"/grants/{granted['id']}"
    _before_recording(verifier, lambda: verifier.call("DELETE", path, **OPERATOR))
    answer = await ask(guest)
    assert (answer.status, answer.code) == (404, "secret-unknown")
    assert "secret.released" not in await told(verifier)


async def test_without_a_record_nothing_leaves(verifier, guest, monkeypatch):
    """The database is gone when the release, or the refusal, is to be recorded."""

    async def gone(*_):
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(verifier.service.store, "release_secret", gone)
        answer = await ask(guest)
        assert (answer.status, answer.code) == (503, "verifier-unavailable")
        assert "ciphertext" not in answer.json
    with monkeypatch.context() as patched:
        patched.setattr(verifier.service.store, "add_audit", gone)
        answer = await ask(guest, "absent")
        assert (answer.status, answer.code) == (503, "verifier-unavailable")
    assert await told(verifier) == []


async def test_a_client_that_hangs_up_leaves_a_record(verifier, guest):
    """The other way about it may be recorded and not arrive: never arrive and not be recorded."""
    await grant(verifier, attester=guest.attester_id, uses=1)
    store, record = verifier.service.store, verifier.service.store.release_secret
    reached = asyncio.Event()

    async def recorded(*arguments):
        done = await record(*arguments)
        reached.set()
        await asyncio.sleep(0.2)
        return done

    store.release_secret = recorded
    asked = await question(guest)
    sending = asyncio.create_task(asked.send())
    await asyncio.wait_for(reached.wait(), 10)
    sending.cancel()
    assert await told(verifier) == ["secret.released"]


# --- replicas


@pytest.fixture(scope="module")
def postgresql():
    """The address of a database on a real server."""
    with started() as server:
        server.sql("CREATE DATABASE secrets")
        yield server.url("secrets")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_of_many_questions_on_two_replicas_one_use_is_given_once(tmp_path, request, database):
    where = {} if database == "sqlite" else {"DATABASE": request.getfixturevalue("postgresql")}
    settings = settings_for(tmp_path, **where)
    async with running(settings) as first, running(settings) as second:
        guests = [await first.guest(seed) for seed in range(1, 5)]
        await put(first)
        await grant(first, policy="secure-boot", uses=1)
        asked = [await question(guest) for guest in guests]
        answers = await asyncio.gather(
            *(one.send((first, second)[number % 2]) for number, one in enumerate(asked))
        )
        opened = [
            one.open(answer) for one, answer in zip(asked, answers, strict=True) if answer.status == 200
        ]
        assert opened == [KEY]
        assert {answer.code for answer in answers if answer.status != 200} == {"secret-unknown"}
        actions = [entry["action"] for entry in await audit(second)]
        assert actions.count("secret.released") == 1
        assert actions.count("secret.refused") == 3
        path = f"/v1/attesters/{guests[0].attester_id}"
        await grant(second, attester=guests[0].attester_id)
        assert await unsealed(guests[0]) == KEY, "what one replica was told counts on the other"
        await second.post(f"{path}/revoke", {}, **OPERATOR)
        assert (await first.post("/v1/challenges", {"attester_id": guests[0].attester_id})).status == 403


# --- at rest and in what the service says


def stored_bytes(verifier) -> bytes:
    folder = verifier.service.settings.state_dir
    return b"".join(path.read_bytes() for path in sorted(folder.glob("verifier.db*")))


async def test_neither_the_database_nor_the_log_nor_any_answer_has_it(verifier, guest, log):
    secret = os.urandom(32)
    await put(verifier, content=secret)
    asked = await question(guest)
    assert asked.open(await asked.send()) == secret
    for path in ("/v1/secrets", f"/v1/secrets/{NAME}", "/v1/audit", "/metrics", "/openapi.json"):
        answer = await verifier.get(path)
        assert answer.status == 200
        for form in (secret, b64(secret).encode(), secret.hex().encode()):
            assert form not in answer.content, path
    shown = (await verifier.get(f"/v1/secrets/{NAME}")).json
    assert set(shown) == {
        "name", "revision", "size", "key", "created_at", "changed_at", "changed_by", "grants"
    }  # fmt: skip
    held = stored_bytes(verifier)
    for form in (secret, b64(secret).encode(), secret.hex().encode()):
        assert form not in held
        assert form not in log.getvalue().encode()
    assert b"secret.released" in held


async def test_a_row_in_the_place_of_another_does_not_open(verifier, guest):
    """Whoever writes the database cannot have one secret released as another."""
    await put(verifier, "precious", b"not for this machine")
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as connection:
        connection.execute(
            "UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'precious') WHERE name = ?",
            (NAME,),
        )
    answer = await ask(guest)
    assert (answer.status, answer.code) == (500, "internal-fault")
    assert await told(verifier) == []


async def test_keys_are_rotated_without_a_pause(tmp_path, clock):
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    for path in (old, new):
        path.write_bytes(os.urandom(32))
    async with running(settings_for(tmp_path), clock) as verifier:
        guest = await verifier.guest()
        await put(verifier)
        await put(verifier, "other", b"another secret")
        await grant(verifier, attester=guest.attester_id)
    async with running(settings_for(tmp_path, SECRETS_KEYS=str(old)), clock) as verifier:
        guest.harness = verifier
        assert await unsealed(guest) == KEY, "what the service secret encrypted opens all the same"
        await put(verifier, "third", b"third")
        assert await verifier.service.services.secrets.encrypt_anew("cli") == (2, 3)
    both = f"{new},{old}"
    async with running(settings_for(tmp_path, SECRETS_KEYS=both), clock) as verifier:
        guest.harness = verifier
        assert await unsealed(guest) == KEY
        assert await verifier.service.services.secrets.encrypt_anew("cli") == (3, 3)
        assert await verifier.service.services.secrets.encrypt_anew("cli") == (0, 3)
        assert len({one["key"] for one in (await verifier.get("/v1/secrets")).json["secrets"]}) == 1
        assert (await audit(verifier, "third"))[-1]["action"] == "secret.encrypted-anew"
    async with running(settings_for(tmp_path, SECRETS_KEYS=str(old)), clock) as verifier:
        guest.harness = verifier
        answer = await ask(guest)
        assert (answer.status, answer.code) == (500, "internal-fault"), "a fault of ours, and no verdict"
    async with running(settings_for(tmp_path, SECRETS_KEYS=str(new)), clock) as verifier:
        guest.harness = verifier
        assert await unsealed(guest) == KEY


# --- what operators do


async def test_who_may_do_what(verifier, guest):
    allowed = {
        ("GET", "/v1/secrets"): {Scope.OPERATOR, Scope.AUDITOR, Scope.ADMIN},
        ("GET", f"/v1/secrets/{NAME}"): {Scope.OPERATOR, Scope.AUDITOR, Scope.ADMIN},
        ("PUT", f"/v1/secrets/{NAME}"): {Scope.OPERATOR, Scope.ADMIN},
        ("POST", f"/v1/secrets/{NAME}/grants"): {Scope.OPERATOR, Scope.ADMIN},
        ("DELETE", f"/v1/secrets/{NAME}/grants/grt-x"): {Scope.OPERATOR, Scope.ADMIN},
        ("DELETE", f"/v1/secrets/{NAME}"): {Scope.OPERATOR, Scope.ADMIN},
    }
    for (method, path), scopes in allowed.items():
        assert (await verifier.call(method, path)).status == 401
        for scope in set(Scope) - scopes - {Scope.JOIN}:
            assert (await verifier.call(method, path, scope=scope)).status == 403, (method, path, scope)


async def test_tenants_know_nothing_of_each_others_secrets(verifier, guest):
    theirs = await verifier.token(Scope.OPERATOR, tenant="other")
    assert (await verifier.call("GET", "/v1/secrets", token=theirs)).json == {"secrets": []}
    path = f"/v1/secrets/{NAME}"
    for method, where in (("GET", path), ("DELETE", path), ("DELETE", f"{path}/grants/grt-x")):
        assert (await verifier.call(method, where, token=theirs)).status == 404
    made = await verifier.call("PUT", path, token=theirs, json={"content": b64(b"theirs")})
    assert made.json["revision"] == 1
    refused = await verifier.call(
        "POST", f"{path}/grants", token=theirs, json={"attester": guest.attester_id}
    )
    assert (refused.status, refused.code) == (404, "not-found"), "an attester of another tenant is none"
    await verifier.call("POST", f"{path}/grants", token=theirs, json={"policy": "secure-boot"})
    assert await unsealed(guest) == KEY


async def test_a_grant_that_cannot_be_is_refused(verifier, guest):
    for body, status in (
        ({}, 400),
        ({"labels": {}}, 400),
        ({"labels": {"": "x"}}, 400),
        ({"attester": "att-nobody"}, 404),
        ({"policy": "web", "uses": 0}, 400),
        ({"policy": "web", "tier": "warning"}, 400),
    ):
        answer = await verifier.post(f"/v1/secrets/{NAME}/grants", body, **OPERATOR)
        assert answer.status == status, body
    assert len((await verifier.get(f"/v1/secrets/{NAME}")).json["grants"]) == 1


async def test_how_large_a_secret_may_be(verifier):
    guest = await verifier.guest()
    for size, status in ((0, 400), (65537, 400), (1, 200), (65536, 200)):
        content = os.urandom(size)
        answer = await verifier.call("PUT", "/v1/secrets/big", json={"content": b64(content)}, **OPERATOR)
        assert answer.status == status
    await grant(verifier, "big", attester=guest.attester_id)
    assert await unsealed(guest, "big") == content


async def test_a_new_content_keeps_grants_and_description_and_a_removed_secret_keeps_nothing(verifier, guest):
    path = f"/v1/secrets/{NAME}"
    body = {"content": b64(b"two"), "description": "data volume"}
    await verifier.call("PUT", path, json=body, **OPERATOR)
    third = await put(verifier, content=b"three")
    assert (third["revision"], third["description"], len(third["grants"])) == (3, "data volume", 1)
    assert await unsealed(guest) == b"three"
    assert (await verifier.call("DELETE", path, **OPERATOR)).status == 204
    assert (await verifier.call("DELETE", path, **OPERATOR)).status == 404
    again = await put(verifier)
    assert (again["revision"], again["grants"], again.get("description")) == (1, [], None)
    assert (await ask(guest)).code == "secret-unknown"


async def test_events_tell_of_releases_and_of_what_was_withheld(verifier, guest):
    await unsealed(guest)
    guest.reboot(boot_log(secure=False))
    await ask(guest)
    await verifier.service.services.outbox.publish_events(verifier.clock.now())
    events = await verifier.service.services.outbox.events("default", after=0, limit=100)
    mine = [one for one in events if one.kind.value.startswith("secret.")]
    assert [(one.kind.value, one.subject, one.attester_id) for one in mine] == [
        ("secret.released", NAME, guest.attester_id),
        ("secret.withheld", NAME, guest.attester_id),
    ]
    assert mine[1].data["reasons"] == ["secure-boot-off"]
