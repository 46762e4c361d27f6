"""The trust rules of the design, held over HTTP: each test fails when its rule is taken out."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3

import jwt
import pytest
import zstandard

from tests.harness import Guest, b64, boot_log, running, settings_for, unb64
from tests.simulator import AkProfile, EkProfile, SoftwareCa, Tamper
from verifier.errors import StoreUnavailable
from verifier.ports import Scope


def codes(verdict):
    """Everything that did not pass, remarks too."""
    return {finding["code"] for finding in verdict["findings"] if finding["status"] != "passed"}


async def verdict_of(verifier, guest):
    return await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict", Scope.RELYING_PARTY)


def _damage_blob(verifier, digest):
    path = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(blob)")]
        content = next(name for name in columns if name in {"content", "data", "body"})
        other = zstandard.compress(b"another log")
        changed = connection.execute(f"update blob set {content} = ? where digest = ?", (other, digest))
        assert changed.rowcount == 1


# --- DESIGN section 2, rule 2: the AK


async def test_rule_2_a_software_ak_that_a_real_tpm_activated_is_refused(verifier):
    """It has to admit in its name what it is, or the TPM would not have activated it."""
    guest = Guest.booted(verifier)
    forged = guest.tpm.make_ak(AkProfile(resident=False, attributes=0x00040040))
    answer = await verifier.post(
        "/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN), ak_public=b64(forged.public))
    )
    assert (answer.status, answer.code) == (403, "ak-attributes")
    assert verifier.rows()["enrollment"] == 0


async def test_rule_2_an_ak_is_enrolled_only_with_the_proof_of_activation(verifier):
    guest = Guest.booted(verifier)
    begun = await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
    path = f"/v1/enrollments/{begun.json['enrollment_id']}/activation"
    for _ in range(5):
        wrong = await verifier.post(path, {"proof": b64(bytes(32))})
        assert (wrong.status, wrong.code) == (403, "activation-failed")
    limited = await verifier.post(path, {"proof": b64(bytes(32))})
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


async def test_rule_3_a_key_that_is_no_storage_key_of_a_tpm_is_no_ek(verifier):
    """A signing key with an honest certificate could be made to decrypt nothing, or anything."""
    guest = Guest.booted(verifier, ek=EkProfile(attributes=0x00050072))
    answer = await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
    assert (answer.status, answer.code) == (403, "ek-attributes")


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
        body["ek_certificates"] = [b64(Guest.booted(verifier, changes["certificate_of"]).tpm.ek_certificate)]
    if "ek_certificates" in changes:
        body["ek_certificates"] = changes["ek_certificates"]
    before = verifier.rows()
    answer = await verifier.post("/v1/enrollments", body)
    assert (answer.status, answer.code) == (403, code)
    assert verifier.rows() == before
    body = guest.enrollment(body["join_token"], ek_certificates=[b64(guest.tpm.ek_certificate)])
    if code != "ek-certificate-untrusted":  # the refusal cost no use of the token
        assert (await verifier.post("/v1/enrollments", body)).status == 201


async def test_rule_3_the_certificate_of_the_ek_is_found_among_others(verifier):
    guest = Guest.booted(verifier)
    others = [Guest.booted(verifier, 2).tpm.ek_certificate, b"\x30\x00", guest.tpm.ek_certificate]
    body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[b64(der) for der in others])
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
    await other.attest(boot_log={"content": b64(boot_log("another"))})
    challenge = await guest.challenge()
    assert "boot_log_sha256" not in challenge
    for log in (b"never sent", boot_log("another")):  # what others sent cannot be probed for
        digest = hashlib.sha256(log).digest()
        answer = await guest.attest(challenge, boot_log={"sha256": b64(digest)})
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
    assert (
        sorted((answer.status, answer.status != 200 and answer.code) for answer in answers)
        == [(200, False)] + [(409, "nonce-reused")] * 7
    )
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
    answer = await guest.attest({**await guest.challenge(), "nonce": b64(bytes(range(32)))})
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


async def test_rule_6_a_spent_nonce_is_forgotten_only_once_it_has_expired(verifier, clock):
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    assert (await verifier.post("/v1/attestations", body)).status == 200
    purge = verifier.service.services.recorder.purge
    await purge(clock.now())
    assert (await verifier.post("/v1/attestations", body)).code == "nonce-reused"
    clock.advance(minutes=2, seconds=1)
    assert await purge(clock.now()) == 1
    assert (await verifier.post("/v1/attestations", body)).code == "nonce-expired"


# --- rules 4 and 5: what the AK signed and what does not hold together is a verdict, not a refusal


@pytest.mark.parametrize("kind", ["fewer PCRs", "other values", "another bank"])
async def test_rule_4_a_quote_that_does_not_cover_what_was_asked_is_a_bad_verdict(verifier, kind):
    guest = await verifier.guest()
    assert (await guest.attest()).json["verdict"]["status"] == "affirming"
    if kind == "fewer PCRs":
        answer = await guest.attest(selection={"sha256": [0, 4]})
    elif kind == "another bank":
        answer = await guest.attest(selection={"sha1": [0, 4, 7, 8, 9]})
    else:
        values = {str(pcr): b64(bytes(32)) for pcr in (0, 4, 7, 8, 9)}
        answer = await guest.attest(pcrs=[{"bank": "sha256", "values": values}])
    assert answer.status == 200, answer.content
    assert answer.json["verdict"]["status"] == "contraindicated"
    assert codes(answer.json["verdict"]) & {"quote-pcr-selection", "quote-pcr-digest"}
    assert (await verdict_of(verifier, guest)).json["status"] == "contraindicated"


async def test_rule_4_without_a_log_secure_boot_is_not_believed(verifier):
    guest = await verifier.guest()
    answer = await guest.attest(boot_log=None)
    assert answer.json["verdict"]["status"] in {"none", "contraindicated"}


async def test_a_large_log_is_judged_off_the_event_loop_to_the_same_verdict(verifier, monkeypatch):
    monkeypatch.setattr("verifier.service.attestation._OFFLOAD_ABOVE", 100)
    guest = await verifier.guest()
    assert (await guest.attest()).json["verdict"]["status"] == "affirming"


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


async def test_rule_8_a_damaged_blob_is_asked_for_again_and_never_judged(verifier, clock):
    guest = await verifier.guest()
    first = (await guest.attest()).json
    digest = unb64(first["challenge"]["boot_log_sha256"])
    _damage_blob(verifier, digest)
    clock.advance(minutes=5)
    async with running(verifier.service.settings, clock) as replica:  # one that does not have the log at hand
        guest.harness = replica
        answer = await guest.attest(first["challenge"], boot_log={"sha256": b64(digest)})
        assert (answer.status, answer.code) == (409, "boot-log-missing")
        assert verifier.rows()["attestation"] == 1
        whole = await guest.attest(first["challenge"])
        assert whole.json["verdict"]["status"] == "affirming", "and the nonce is still good"


async def test_rule_8_an_unexpected_fault_is_logged_whole_and_leaks_nothing(verifier, monkeypatch, log):
    async def broken(*_args, **_kwargs):
        raise ZeroDivisionError("password=hunter2")

    monkeypatch.setattr(verifier.service.store, "status_counts", broken)
    answer = await verifier.get("/v1/status")
    assert (answer.status, answer.code) == (500, "internal-fault")
    assert b"hunter2" not in answer.content
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    (fault,) = [line for line in log.getvalue().splitlines() if "http.fault" in line]
    assert answer.json["request_id"] in fault
    assert "ZeroDivisionError" in fault
    assert "fleet.py" in fault  # where it happened
    assert "secret_hash" not in fault  # but none of what the variables held


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
