"""The service over HTTP, end to end: a real store, a TPM that really signs."""

from __future__ import annotations

import asyncio
import hashlib
import io
from datetime import timedelta

import jwt
import msgspec
import zstandard

from tests.harness import Guest, boot_log, running, settings_for, unb64
from tests.simulator import AkProfile
from verifier.logs import configure_logs
from verifier.ports import Scope


def codes(verdict):
    """Everything that did not pass, remarks too."""
    return {finding["code"] for finding in verdict["findings"] if finding["status"] != "passed"}


async def verdict_of(verifier, guest):
    return await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict", Scope.RELYING_PARTY)


# --- the main job


async def test_a_guest_enrols_attests_and_a_relying_party_verifies_its_ear(verifier, clock):
    guest = await verifier.guest()
    reply = (await guest.attest(want_ear=True)).json
    assert reply["verdict"]["status"] == "affirming"
    assert reply["verdict"]["vector"]["configuration"] == 2
    assert reply["next_in"] == 300
    shown = await verdict_of(verifier, guest)
    assert shown.json == reply["verdict"]
    ear = await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict?nonce=0123456789",
        Scope.RELYING_PARTY,
        headers={"Accept": "application/eat+jwt"},
    )
    assert ear.headers["Content-Type"] == "application/eat+jwt"
    keys = jwt.PyJWKSet.from_dict((await verifier.call("GET", "/.well-known/jwks.json")).json)
    for text in (reply["ear"], ear.content.decode()):
        key = keys[jwt.get_unverified_header(text)["kid"]]
        claims = jwt.decode(text, key, algorithms=["ES256"], issuer="https://verifier.test")
        assert claims["sub"] == guest.attester_id
        assert claims["eat_profile"] == "tag:ietf.org,2026:rats/ear#03"
        assert claims["iat"] == int(clock.at.timestamp())
        assert claims["exp"] == int(clock.at.timestamp()) + 600
        appraisal = claims["submods"]["vtpm"]
        assert appraisal["ear_status"] == 2
        assert appraisal["ear_trustworthiness_vector"] == reply["verdict"]["vector"]
        policy = reply["verdict"]["policy"]
        assert appraisal["ear_appraisal_policy_ids"] == [f"{policy['id']}@sha256:{policy['revision']}"]
    assert claims["eat_nonce"] == "0123456789"


async def test_a_steady_guest_names_its_log_by_digest_and_uses_the_nonce_it_was_given(verifier, clock):
    guest = await verifier.guest()
    first = (await guest.attest()).json
    clock.advance(seconds=first["next_in"])
    challenge = first["challenge"]
    assert unb64(challenge["boot_log_sha256"]) == hashlib.sha256(guest.log).digest()
    second = await guest.attest(challenge, boot_log={"sha256": challenge["boot_log_sha256"]})
    assert second.json["verdict"]["status"] == "affirming"
    assert second.json["verdict"]["sequence"] == 2
    assert verifier.rows()["blob"] == 3  # one log, two quotes


async def test_messagepack_and_zstd_carry_the_same_messages(verifier):
    guest = await verifier.guest()
    guest.keeps_ratchet = False
    challenge = await guest.challenge()
    body = guest.evidence(challenge)
    for name in ("nonce", "attest", "signature"):
        body[name] = unb64(body[name])
    body["boot_log"] = {"content": guest.log}
    body["pcrs"] = [{"bank": "sha256", "values": {k: unb64(v) for k, v in body["pcrs"][0]["values"].items()}}]
    packed = zstandard.compress(msgspec.msgpack.encode(body))
    headers = {
        "Content-Type": "application/msgpack",
        "Content-Encoding": "zstd",
        "Accept": "application/msgpack",
    }
    answer = await verifier.call("POST", "/v1/attestations", data=packed, headers=headers)
    assert answer.status == 200, answer.content
    assert answer.headers["Content-Type"] == "application/msgpack"
    reply = msgspec.msgpack.decode(answer.content)
    assert reply["verdict"]["status"] == "affirming"
    assert len(reply["challenge"]["nonce"]) == 32


async def test_a_guest_without_secure_boot_is_contraindicated_with_the_reason(verifier):
    guest = Guest.booted(verifier, log=boot_log(secure=False))
    await guest.enroll()
    verdict = (await guest.attest()).json["verdict"]
    assert verdict["status"] == "contraindicated"
    assert codes(verdict) == {"secure-boot-off"}


async def test_enrolling_again_rebinds_the_ak_and_keeps_the_attester(verifier):
    guest = await verifier.guest()
    await guest.attest()
    first, old = guest.attester_id, guest.tpm.ak
    guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="second"))
    await guest.enroll()
    assert guest.attester_id == first
    assert (await guest.attest()).json["verdict"]["status"] == "affirming"
    refused = await guest.attest(quote={"ak": old})
    assert (refused.status, refused.code) == (403, "quote-signature")


# --- policies


async def test_without_a_policy_nothing_is_affirming(tmp_path):
    async with running(settings_for(tmp_path, DEFAULT_POLICY="not-there")) as verifier:
        verdict = (await (await verifier.guest()).attest()).json["verdict"]
        assert verdict["status"] == "none"
        assert "policy-missing" in codes(verdict)


async def test_a_policy_registered_and_assigned_over_the_api_judges_the_next_attestation(verifier, clock):
    guest = await verifier.guest()
    off = (await verifier.service.services.policies.get("default", "secure-boot")).source
    off = off.replace("id: secure-boot\ndesc", "id: no-secure-boot\ndesc").replace("enabled", "disabled")
    headers = {"Content-Type": "application/yaml"}
    made = await verifier.call(
        "POST", "/v1/policies", data=off.encode(), headers=headers, scope=Scope.OPERATOR
    )
    assert (made.status, made.json["id"]) == (201, "no-secure-boot")
    path = f"/v1/attesters/{guest.attester_id}/policy"
    missing = await verifier.call("PUT", path, json={"policy": "nobody"}, scope=Scope.OPERATOR)
    assert (missing.status, missing.code) == (404, "not-found")
    assert (
        await verifier.call("PUT", path, json={"policy": "no-secure-boot"}, scope=Scope.OPERATOR)
    ).status == 200
    verdict = (await guest.attest()).json["verdict"]
    assert (verdict["status"], verdict["policy"]["id"]) == ("contraindicated", "no-secure-boot")
    assert verdict["policy"]["revision"] == made.json["revision"]


async def test_a_policy_that_would_pass_silently_is_refused(verifier):
    before = verifier.rows()
    for source in (b"schema: x", b"\xff", b"{}", b"schema: vtpm-attest/policy/1\nid: a\nrules: []\n"):
        headers = {"Content-Type": "application/yaml"}
        answer = await verifier.call(
            "POST", "/v1/policies", data=source, headers=headers, scope=Scope.OPERATOR
        )
        assert (answer.status, answer.code) == (422, "policy-invalid")
    assert verifier.rows()["policy"] == before["policy"]


# --- reading


async def test_what_did_not_change_is_not_sent_again(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    for path in (f"/v1/attesters/{guest.attester_id}/verdict", "/v1/status", "/v1/attesters"):
        first = await verifier.get(path)
        again = await verifier.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    path = f"/v1/attesters/{guest.attester_id}/verdict"
    tag = (await verifier.get(path)).headers["ETag"]
    clock.advance(minutes=11)  # growing stale is a change
    assert (await verifier.get(path, headers={"If-None-Match": tag})).status == 200


async def test_history_is_paged_newest_first(verifier, clock):
    guest = await verifier.guest()
    challenge = None
    for _ in range(3):
        challenge = (await guest.attest(challenge)).json["challenge"]
        clock.advance(minutes=5)
    path = f"/v1/attesters/{guest.attester_id}/history"
    page = (await verifier.get(f"{path}?limit=2")).json
    assert [verdict["sequence"] for verdict in page["verdicts"]] == [3, 2]
    rest = (await verifier.get(f"{path}?limit=2&before={page['before']}")).json
    assert [verdict["sequence"] for verdict in rest["verdicts"]] == [1]
    assert "before" not in rest


async def test_another_tenants_attester_does_not_exist(verifier):
    guest = await verifier.guest()
    await guest.attest()
    stranger = await verifier.token(Scope.ADMIN, tenant="other")
    for path in ("", "/verdict", "/history"):
        answer = await verifier.call("GET", f"/v1/attesters/{guest.attester_id}{path}", token=stranger)
        assert (answer.status, answer.code) == (404, "not-found")
    revoked = await verifier.call("POST", f"/v1/attesters/{guest.attester_id}/revoke", token=stranger)
    assert revoked.status == 404
    assert (await verifier.call("GET", "/v1/attesters", token=stranger)).json == {"attesters": []}
    assert (await verifier.call("GET", "/v1/policies", token=stranger)).json == {"policies": []}
    assert guest.attester_id in (await verifier.get("/v1/attesters")).content.decode()


# --- tokens


async def test_join_tokens_run_out_expire_and_are_asked_for(verifier, clock):
    guest = Guest.booted(verifier)

    async def begin(token):
        return await verifier.post("/v1/enrollments", guest.enrollment(token))

    none = await begin(None)
    assert (none.status, none.code) == (401, "join-token-required")
    for text in ("", "vtj1.x", "vta1." + "A" * 43, "vtj1." + "A" * 43):
        wrong = await begin(text)
        assert (wrong.status, wrong.code) == (401, "join-token-invalid")
    last = await verifier.token(Scope.JOIN, uses=1)
    machines = [Guest.booted(verifier, seed) for seed in range(2, 7)]
    asked = (verifier.post("/v1/enrollments", one.enrollment(last)) for one in machines)
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status for answer in answers) == [201, 401, 401, 401, 401]
    short = await verifier.token(Scope.JOIN, lifetime=timedelta(minutes=1))
    clock.advance(minutes=1)
    assert (await begin(short)).code == "join-token-invalid"


async def test_an_api_token_expires_even_while_it_is_remembered(verifier, clock):
    token = await verifier.token(Scope.DASHBOARD, lifetime=timedelta(seconds=3))
    assert (await verifier.call("GET", "/v1/status", token=token)).status == 200
    clock.advance(seconds=3)
    assert (await verifier.call("GET", "/v1/status", token=token)).code == "unauthenticated"


async def test_tokens_are_made_shown_once_and_revoked(verifier):
    body = {"scopes": ["relying-party"], "label": "gateway", "expires_in": 3600}
    made = await verifier.post("/v1/tokens", body, scope=Scope.ADMIN)
    secret, token_id = made.json["token"], made.json["info"]["id"]
    guest = await verifier.guest()
    await guest.attest()
    path = f"/v1/attesters/{guest.attester_id}/verdict"
    assert (await verifier.call("GET", path, token=secret)).status == 200
    listed = await verifier.get("/v1/tokens")
    assert token_id in listed.content.decode()
    assert secret not in listed.content.decode()
    assert (await verifier.call("DELETE", f"/v1/tokens/{token_id}", scope=Scope.ADMIN)).status == 204
    gone = await verifier.call("GET", path, token=secret)
    assert (gone.status, gone.code) == (401, "unauthenticated")
    for wrong in (
        {"scopes": []},
        {"scopes": ["join", "admin"]},
        {"scopes": ["admin"], "uses": 2},
        {"scopes": ["root"]},
    ):
        assert (await verifier.post("/v1/tokens", wrong, scope=Scope.ADMIN)).status == 400


async def test_secrets_are_neither_logged_nor_stored(tmp_path):
    stream = io.StringIO()
    configure_logs("json", "debug", stream)
    async with running(settings_for(tmp_path, LOG_ACCESS="true")) as verifier:
        guest = Guest.booted(verifier)
        join = await verifier.token(Scope.JOIN)
        await guest.enroll(join)
        await guest.attest()
        api = await verifier.token(Scope.ADMIN)
        await verifier.call("GET", "/v1/status", token=api)
        await verifier.call("GET", "/v1/status", token=api[:-1] + "A")
        await verifier.post("/v1/enrollments", guest.enrollment(join[:-4]))
        metrics = (await verifier.call("GET", "/metrics", token=api)).content
        state = verifier.service.settings.state_dir
        stored = b"".join(path.read_bytes() for path in state.glob("verifier.db*"))
    secrets = [join.split(".")[1], api.split(".")[1], api.split(".")[1][:-1]]
    assert "verdict.recorded" in stream.getvalue()
    for secret in secrets:
        assert secret not in stream.getvalue()
        assert secret.encode() not in stored
        assert unb64(secret.replace("-", "+").replace("_", "/") + "==")[:24] not in stored
        assert secret.encode() not in metrics
