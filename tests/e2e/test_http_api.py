"""The service over HTTP, end to end: a real store, a TPM that really signs."""

from __future__ import annotations

import asyncio
import hashlib
import io

import jwt
import msgspec
import pytest
import zstandard

from tests.harness import Guest, boot_log, running, settings_for, unb64
from tests.simulator import AkProfile, SoftwareCa, Tamper
from verifier.errors import StoreUnavailable
from verifier.logs import configure_logs
from verifier.ports import Scope


def codes(verdict):
    """What did not pass."""
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


# --- DESIGN section 2, rule 2: the AK


async def test_rule_2_a_software_ak_that_a_real_tpm_activated_is_refused(verifier):
    """It has to admit in its name what it is, or the TPM would not have activated it."""
    guest = Guest.booted(verifier)
    forged = guest.tpm.make_ak(AkProfile(resident=False, attributes=0x00040040))
    answer = await verifier.post(
        "/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN), ak_public=_b64(forged.public))
    )
    assert (answer.status, answer.code) == (403, "ak-attributes")
    assert verifier.rows()["enrollment"] == 0


async def test_rule_2_an_ak_is_enrolled_only_with_the_proof_of_activation(verifier):
    guest = Guest.booted(verifier)
    begun = await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
    path = f"/v1/enrollments/{begun.json['enrollment_id']}/activation"
    for _ in range(5):
        wrong = await verifier.post(path, {"proof": _b64(bytes(32))})
        assert (wrong.status, wrong.code) == (403, "activation-failed")
    limited = await verifier.post(path, {"proof": _b64(bytes(32))})
    assert (limited.status, limited.code) == (429, "rate-limited")
    assert int(limited.headers["Retry-After"]) > 0
    assert verifier.rows()["attester"] == 0
    verifier.clock.advance(seconds=61)
    assert (await guest.activate(begun.json)).status == 200  # wrong proofs consumed nothing
    again = await guest.activate(begun.json)
    assert (again.status, again.code) == (404, "not-found")


async def test_an_enrolment_expires(verifier, clock):
    guest = Guest.booted(verifier)
    begun = await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
    clock.advance(minutes=5)
    late = await guest.activate(begun.json)
    assert (late.status, late.code) == (410, "enrollment-expired")


# --- rule 3: the EK


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ek_certificates": []}, "ek-certificate-missing"),
        ({"ek_certificates": ["AAAA"]}, "ek-certificate-malformed"),
        ({"certificate_of": 2}, "ek-certificate-key-mismatch"),
        ({"ca": "stranger"}, "ek-certificate-untrusted"),
    ],
)
async def test_rule_3_an_ek_without_a_path_to_an_anchor_is_refused(verifier, changes, code):
    ca = SoftwareCa(changes["ca"]) if "ca" in changes else None
    guest = Guest.booted(verifier, **({"ca": ca} if ca else {}))
    body = guest.enrollment(await verifier.token(Scope.JOIN, uses=1))
    if "certificate_of" in changes:
        body["ek_certificates"] = [_b64(Guest.booted(verifier, changes["certificate_of"]).tpm.ek_certificate)]
    if "ek_certificates" in changes:
        body["ek_certificates"] = changes["ek_certificates"]
    before = verifier.rows()
    answer = await verifier.post("/v1/enrollments", body)
    assert (answer.status, answer.code) == (403, code)
    assert verifier.rows() == before
    body = guest.enrollment(body["join_token"], ek_certificates=[_b64(guest.tpm.ek_certificate)])
    if code != "ek-certificate-untrusted":  # the refusal cost no use of the token
        assert (await verifier.post("/v1/enrollments", body)).status == 201


async def test_rule_3_the_certificate_of_the_ek_is_found_among_others(verifier):
    guest = Guest.booted(verifier)
    others = [Guest.booted(verifier, 2).tpm.ek_certificate, b"\x30\x00", guest.tpm.ek_certificate]
    body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[_b64(der) for der in others])
    assert (await verifier.post("/v1/enrollments", body)).status == 201


async def test_rule_3_first_use_is_trusted_only_where_the_settings_say_tofu(tmp_path):
    settings = settings_for(tmp_path, ENROLLMENT_METHODS="tofu,token")
    async with running(settings) as verifier:
        guest = Guest.booted(verifier)
        guest.tpm.__dict__["ek_certificate"] = b""
        body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[])
        begun = await verifier.post("/v1/enrollments", body)
        guest.attester_id = (await guest.activate(begun.json)).json["attester_id"]
        shown = (await verifier.get(f"/v1/attesters/{guest.attester_id}")).json
        assert shown["endorsement"]["method"] == "tofu"


# --- rule 5: judged whole, every time


async def test_rule_5_a_reboot_into_another_state_is_judged_anew(verifier, clock):
    guest = await verifier.guest()
    first = (await guest.attest()).json
    guest.reboot(boot_log(secure=False))
    clock.advance(minutes=5)
    lazy = await guest.attest(first["challenge"], boot_log={"sha256": first["challenge"]["boot_log_sha256"]})
    assert lazy.json["verdict"]["status"] == "contraindicated"
    assert "boot-log-mismatch" in codes(lazy.json["verdict"])
    honest = await guest.attest(lazy.json["challenge"])
    assert codes(honest.json["verdict"]) == {"secure-boot-off"}


async def test_a_log_that_is_not_held_is_asked_for_and_the_nonce_stays_good(verifier):
    guest, other = await verifier.guest(1), await verifier.guest(2)
    await other.attest(boot_log={"content": _b64(boot_log("another"))})
    challenge = await guest.challenge()
    assert "boot_log_sha256" not in challenge
    for log in (b"never sent", boot_log("another")):  # what others sent cannot be probed for
        digest = hashlib.sha256(log).digest()
        answer = await guest.attest(challenge, boot_log={"sha256": _b64(digest)})
        assert (answer.status, answer.code) == (409, "boot-log-missing")
    assert (await guest.attest(challenge)).json["verdict"]["status"] == "affirming"


# --- rule 6: fresh


async def test_rule_6_a_replayed_attestation_is_refused_and_stores_nothing(verifier):
    guest = await verifier.guest()
    challenge = await guest.challenge()
    body = guest.evidence(challenge)
    assert (await verifier.post("/v1/attestations", body)).status == 200
    before = verifier.rows()
    replayed = await verifier.post("/v1/attestations", body)
    assert (replayed.status, replayed.code) == (409, "nonce-reused")
    requoted = await guest.attest(challenge)
    assert (requoted.status, requoted.code) == (409, "nonce-reused")
    assert verifier.rows() == before


async def test_rule_6_of_concurrent_replays_exactly_one_is_judged(verifier):
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    answers = await asyncio.gather(*(verifier.post("/v1/attestations", body) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    assert verifier.rows()["attestation"] == 1


async def test_rule_6_a_nonce_of_another_attester_is_foreign(verifier):
    guest, other = await verifier.guest(1), await verifier.guest(2)
    answer = await guest.attest(await other.challenge())
    assert (answer.status, answer.code) == (403, "nonce-foreign")
    assert verifier.rows()["nonce"] == 0


async def test_rule_6_a_nonce_expires(verifier, clock):
    guest = await verifier.guest()
    challenge = await guest.challenge()
    clock.advance(minutes=2)
    answer = await guest.attest(challenge)
    assert (answer.status, answer.code) == (409, "nonce-expired")


async def test_rule_6_a_made_up_nonce_is_unknown(verifier):
    guest = await verifier.guest()
    answer = await guest.attest({**await guest.challenge(), "nonce": _b64(bytes(range(32)))})
    assert (answer.status, answer.code) == (403, "nonce-unknown")


async def test_rule_6_a_quote_over_another_nonce_is_refused(verifier):
    guest = await verifier.guest()
    answer = await guest.attest(quote={"tamper": Tamper(nonce=bytes(32))})
    assert (answer.status, answer.code) == (403, "quote-nonce")
    assert verifier.rows()["nonce"] == 0  # a forger cannot use up a guest's nonce


async def test_any_replica_with_the_same_secret_accepts_a_nonce(verifier, tmp_path):
    guest = await verifier.guest()
    challenge = await guest.challenge()
    async with running(verifier.service.settings, verifier.clock) as replica:
        guest.harness = replica
        assert (await guest.attest(challenge)).json["verdict"]["status"] == "affirming"
    guest.harness = verifier
    assert (await guest.attest(challenge)).code == "nonce-reused"


async def test_half_open_challenges_store_nothing(verifier):
    guest = await verifier.guest()
    before = verifier.rows()
    await asyncio.gather(*(guest.challenge() for _ in range(50)))
    assert verifier.rows() == before


# --- rule 7: history reaches the appraisal


async def test_rule_7_a_restored_snapshot_is_noticed_across_attestations(verifier, clock):
    guest = await verifier.guest()
    snapshot = guest.tpm.snapshot()
    await guest.attest()
    guest.tpm.advance(60_000)
    clock.advance(minutes=1)
    await guest.attest()
    guest.tpm.restore(snapshot)
    clock.advance(minutes=1)
    verdict = (await guest.attest()).json["verdict"]
    assert verdict["status"] != "affirming"
    assert "clock-rollback" in codes(verdict)


# --- rule 8: evidence faults and verifier faults


async def test_rule_8_no_verdict_comes_out_of_a_store_that_is_down(verifier, monkeypatch):
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    before = verifier.rows()

    async def down(*_args, **_kwargs):
        raise StoreUnavailable("the disk is on fire at /secret/path")

    with monkeypatch.context() as patched:
        patched.setattr(verifier.service.store, "record", down)
        answer = await verifier.post("/v1/attestations", body)
        assert (answer.status, answer.code) == (503, "verifier-unavailable")
        assert answer.headers["Retry-After"] == "5"
        assert b"verdict" not in answer.content.replace(b"no verdict was made", b"")
        assert b"/secret/path" not in answer.content
        patched.setattr(verifier.service.store, "ping", down)
        assert (await verifier.call("GET", "/readyz")).status == 503
        assert (await verifier.call("GET", "/healthz")).status == 200
    assert verifier.rows() == before
    assert (await verifier.post("/v1/attestations", body)).status == 200  # the nonce was not lost


async def test_rule_8_a_damaged_blob_is_a_fault_and_never_judged(verifier, clock):
    guest = await verifier.guest()
    first = (await guest.attest()).json
    digest = unb64(first["challenge"]["boot_log_sha256"])
    _damage_blob(verifier, digest)
    clock.advance(minutes=5)
    answer = await guest.attest(first["challenge"], boot_log={"sha256": _b64(digest)})
    assert (answer.status, answer.code) == (500, "internal-fault")
    assert digest.hex() not in answer.json["detail"]
    assert verifier.rows()["attestation"] == 1


async def test_rule_8_an_unexpected_fault_leaks_nothing(verifier, monkeypatch):
    async def broken(*_args, **_kwargs):
        raise ZeroDivisionError("password=hunter2")

    monkeypatch.setattr(verifier.service.store, "status_counts", broken)
    answer = await verifier.get("/v1/status")
    assert (answer.status, answer.code) == (500, "internal-fault")
    assert b"hunter2" not in answer.content
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


# --- rule 9: hostile input


def _mangle(**changes):
    def change(body):
        body = body | {key: value for key, value in changes.items() if not callable(value)}
        return body | {key: value(body[key]) for key, value in changes.items() if callable(value)}

    return change


HOSTILE = {
    "attest truncated": (_mangle(attest=lambda t: _b64(unb64(t)[:40])), "malformed-structure", True),
    "attest with trailing bytes": (
        _mangle(attest=lambda t: _b64(unb64(t) + b"\0")),
        "malformed-structure",
        True,
    ),
    "attest of another magic": (
        _mangle(attest=lambda t: _b64(b"\0\0\0\0" + unb64(t)[4:])),
        "quote-magic",
        True,
    ),
    "attest empty": (_mangle(attest=""), "malformed-structure", True),
    "signature empty": (_mangle(signature=""), "malformed-structure", True),
    "signature of an unknown scheme": (
        _mangle(signature=lambda t: _b64(b"\x77\x77" + unb64(t)[2:])),
        "unsupported-algorithm",
        True,
    ),
    "nonce of another length": (_mangle(nonce="AAAA"), "malformed-request", False),
    "bank twice": (_mangle(pcrs=lambda banks: banks * 2), "malformed-request", False),
    "bank nobody knows": (_mangle(pcrs=[{"bank": "md5", "values": {}}]), "malformed-request", False),
    "PCR value of another length": (
        _mangle(pcrs=[{"bank": "sha256", "values": {"0": "A" * 28}}]),
        "malformed-request",
        False,
    ),
    "PCR 32": (
        _mangle(pcrs=[{"bank": "sha256", "values": {"32": "A" * 43 + "="}}]),
        "malformed-request",
        False,
    ),
    "log neither whole nor named": (_mangle(boot_log={}), "malformed-request", False),
    "log from an offset": (_mangle(boot_log={"content": "AAAA", "offset": 9}), "malformed-request", False),
    "log whose digest is another's": (
        _mangle(boot_log={"content": "AAAA", "sha256": "A" * 43 + "="}),
        "malformed-request",
        False,
    ),
    "unknown field": (_mangle(root=True), "malformed-request", False),
    "attester nobody knows": (_mangle(attester_id="att-nobody"), "nonce-foreign", False),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_rule_9_evidence_that_cannot_be_read_gets_a_code_and_changes_nothing(verifier, name):
    change, code, has_offset = HOSTILE[name]
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    before = verifier.rows()
    answer = await verifier.post("/v1/attestations", change(body))
    assert answer.code == code
    assert answer.status in {400, 403}
    assert ("offset" in answer.json) is has_offset
    assert verifier.rows() == before
    assert (await verifier.post("/v1/attestations", body)).status == 200


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b"{", 1),
        (b'{"attester_id":"a",}', 19),
        (b"\xff\xfe", 0),
        (b"[" * 200_000, None),
        (b"{}x", None),
    ],
)
async def test_rule_9_a_body_that_is_no_message_names_the_byte(verifier, body, offset):
    answer = await verifier.call(
        "POST", "/v1/challenges", data=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.code) == (400, "malformed-request")
    assert answer.json.get("offset") == offset


async def test_rule_9_a_bomb_is_refused_while_it_expands(verifier):
    bomb = zstandard.compress(bytes(100_000_000))
    assert len(bomb) < 20_000
    headers = {"Content-Type": "application/json", "Content-Encoding": "zstd"}
    answer = await verifier.call("POST", "/v1/attestations", data=bomb, headers=headers)
    assert (answer.status, answer.code) == (413, "body-too-large")


async def test_rule_9_a_body_over_the_limit_is_refused_before_it_is_read(verifier):
    body = b"x" * (256 * 1024 + 1)
    headers = {"Content-Type": "application/json"}
    answer = await verifier.call("POST", "/v1/challenges", data=body, headers=headers)
    assert (answer.status, answer.code) == (413, "body-too-large")

    async def chunks():
        for _ in range(70):
            yield b"x" * 4096

    streamed = await verifier.call("POST", "/v1/challenges", data=chunks(), headers=headers)
    assert (streamed.status, streamed.code) == (413, "body-too-large")


async def test_rule_9_a_body_that_does_not_arrive_is_given_up(tmp_path):
    async with running(settings_for(tmp_path, LIMITS_BODY_TIMEOUT="1s")) as verifier:

        async def slow():
            yield b"{"
            await asyncio.sleep(3)
            yield b"}"

        headers = {"Content-Type": "application/json"}
        answer = await verifier.call("POST", "/v1/challenges", data=slow(), headers=headers)
        assert (answer.status, answer.code) == (408, "malformed-request")


async def test_wrong_paths_methods_and_media_types_are_problem_documents(verifier):
    assert (await verifier.call("GET", "/v2/x")).code == "not-found"
    wrong = await verifier.call("GET", "/v1/challenges")
    assert (wrong.status, wrong.code, wrong.headers["Allow"]) == (405, "method-not-allowed", "POST")
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": ""}):
        answer = await verifier.call("POST", "/v1/challenges", data=b"{}", headers=headers)
        assert (answer.status, answer.code) == (415, "unsupported-media-type")
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    answer = await verifier.call("POST", "/v1/challenges", data=b"{}", headers=headers)
    assert (answer.status, answer.code) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "status=green",
        "label=x",
        "cursor=%00",
        "cursor=abc",
        "page=2",
        "limit=1&limit=2",
    ],
)
async def test_a_listing_takes_no_query_it_does_not_understand(verifier, query):
    answer = await verifier.get(f"/v1/attesters?{query}")
    assert (answer.status, answer.code) == (400, "malformed-request")


# --- rule 10: a verdict expires


async def test_rule_10_a_silent_guest_turns_stale_and_is_never_green(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    clock.advance(minutes=10)
    assert (await verdict_of(verifier, guest)).json["status"] == "affirming"
    clock.advance(seconds=1)
    stale = (await verdict_of(verifier, guest)).json
    assert (stale["status"], stale["lifecycle"], stale["vector"]) == ("none", "stale", {})
    listed = (await verifier.get("/v1/attesters?status=stale")).json["attesters"]
    assert [(item["id"], item["status"]) for item in listed] == [(guest.attester_id, "none")]
    counts = (await verifier.get("/v1/status")).json["counts"]
    assert (counts["stale"], counts["affirming"]) == (1, 0)
    ear = await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict", headers={"Accept": "application/eat+jwt"}
    )
    claims = jwt.decode(ear.content.decode(), options={"verify_signature": False})
    assert claims["submods"]["vtpm"]["ear_status"] == 0
    assert claims["exp"] <= clock.at.timestamp()


async def test_a_revoked_attester_is_contraindicated_and_heard_no_more(verifier):
    guest = await verifier.guest()
    challenge = (await guest.attest()).json["challenge"]
    revoked = await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
    assert revoked.json["lifecycle"] == "revoked"
    verdict = (await verdict_of(verifier, guest)).json
    assert (verdict["status"], verdict["lifecycle"]) == ("contraindicated", "revoked")
    assert "attester-revoked" in codes(verdict)
    answer = await guest.attest(challenge)
    assert (answer.status, answer.code) == (403, "attester-revoked")
    refused = await verifier.post("/v1/challenges", {"attester_id": guest.attester_id})
    assert (refused.status, refused.code) == (403, "attester-revoked")
    with pytest.raises(AssertionError, match="attester-revoked"):
        await guest.enroll()


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
    answers = await asyncio.gather(*(begin(last) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 401, 401, 401, 401]
    from datetime import timedelta

    short = await verifier.token(Scope.JOIN, lifetime=timedelta(minutes=1))
    clock.advance(minutes=1)
    assert (await begin(short)).code == "join-token-invalid"


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


def _b64(data):
    import base64

    return base64.b64encode(data).decode()


def _damage_blob(verifier, digest):
    import sqlite3

    path = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(blob)")]
        content = next(name for name in columns if name in {"content", "data", "body"})
        other = zstandard.compress(b"another log")
        changed = connection.execute(f"update blob set {content} = ? where digest = ?", (other, digest))
        assert changed.rowcount == 1
