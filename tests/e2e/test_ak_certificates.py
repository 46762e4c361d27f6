"""The AK certificate a verifier issues, as a relying party uses it: to check a quote without asking anyone."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from tests.harness import Guest, b64, boot_log, running, settings_for, unb64
from tests.simulator import AkProfile
from verifier.crypto.keys import public_key
from verifier.ports import Scope
from verifier.tcg.public import parse_public
from verifier.tcg.signature import parse_signature

AK_PURPOSE = "2.23.133.8.3"


async def attested(guest, **changes):
    """A reply that was asked for a certificate, and its evidence."""
    challenge = await guest.challenge()
    body = guest.evidence(challenge, want_ak_certificate=True, **changes)
    reply = (await guest.harness.post("/v1/attestations", body)).json
    return reply, body


async def ca_of(verifier):
    answer = await verifier.call("GET", "/v1/ak-ca")
    assert answer.headers["Content-Type"] == "application/pem-certificate-chain"
    return answer.content


async def fetched(verifier, guest, scope=Scope.RELYING_PARTY):
    return await verifier.get(f"/v1/attesters/{guest.attester_id}/ak-certificate", scope)


async def test_openssl_accepts_it_and_its_key_checks_the_quote(verifier, tmp_path):
    guest = await verifier.guest()
    reply, body = await attested(guest)
    leaf = x509.load_der_x509_certificate(unb64(reply["ak_certificate"]))
    (tmp_path / "ca.pem").write_bytes(await ca_of(verifier))
    (tmp_path / "ak.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", tmp_path / "ak.pem"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert leaf.public_key() == public_key(parse_public(guest.tpm.ak_public))
    signature = parse_signature(unb64(body["signature"]))
    encoded = encode_dss_signature(signature.r, signature.s)
    leaf.public_key().verify(encoded, unb64(body["attest"]), ec.ECDSA(SHA256()))


async def test_it_says_whose_key_it_is_and_for_what(verifier):
    guest = await verifier.guest()
    reply, _ = await attested(guest)
    leaf = x509.load_der_x509_certificate(unb64(reply["ak_certificate"]))
    purposes = leaf.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    assert [one.dotted_string for one in purposes] == [AK_PURPOSE]
    names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert names.critical
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"https://verifier.test/v1/attesters/{guest.attester_id}"]
    (tpm,) = names.value.get_values_for_type(x509.DirectoryName)
    assert (
        tpm.rfc4514_string() == "2.23.133.2.3=id:00020065,2.23.133.2.2=VMware TPM2,2.23.133.2.1=id:564D5700"
    )
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime.total_seconds() == 24 * 3600 + 60


async def test_one_verdict_one_certificate_and_the_next_affirming_verdict_renews_it(verifier, clock):
    guest = await verifier.guest()
    first, _ = await attested(guest)
    pem = (await fetched(verifier, guest)).content
    assert x509.load_pem_x509_certificates(pem)[0] == x509.load_der_x509_certificate(
        unb64(first["ak_certificate"])
    )
    assert (await fetched(verifier, guest)).content == pem
    clock.advance(minutes=5)
    second, _ = await attested(guest)
    ends = [
        x509.load_der_x509_certificate(unb64(reply["ak_certificate"])).not_valid_after_utc
        for reply in (first, second)
    ]
    assert (ends[1] - ends[0]).total_seconds() == 300


async def test_a_bad_verdict_gets_none_and_says_why(verifier):
    guest = await verifier.guest()
    guest.reboot(boot_log(secure=False))
    reply, _ = await attested(guest)
    assert reply["verdict"]["status"] == "contraindicated"
    assert reply.get("ak_certificate") is None
    answer = await fetched(verifier, guest)
    assert (answer.status, answer.code) == (409, "ak-certificate-withheld")
    assert "contraindicated" in answer.json["detail"]


async def test_without_a_verdict_there_is_none(verifier):
    answer = await fetched(verifier, await verifier.guest())
    assert (answer.status, answer.code) == (409, "ak-certificate-withheld")


async def test_a_stale_or_revoked_attester_gets_none(verifier, clock):
    guest = await verifier.guest()
    await attested(guest)
    clock.advance(minutes=11)
    assert (await fetched(verifier, guest)).code == "ak-certificate-withheld"
    await attested(guest)
    assert (await fetched(verifier, guest)).status == 200
    await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
    assert (await fetched(verifier, guest)).code == "ak-certificate-withheld"


async def test_a_new_ak_is_not_certified_by_the_old_key_s_verdict(verifier):
    guest = await verifier.guest()
    await attested(guest)
    verifier.clock.advance(seconds=1)
    other = guest.tpm.make_ak(AkProfile(kind="p384"))
    body = guest.enrollment(await verifier.token(Scope.JOIN), ak_public=b64(other.public))
    begun = (await verifier.post("/v1/enrollments", body)).json
    proof = {"proof": b64(guest.proof(begun, ak=other))}
    done = await verifier.post(f"/v1/enrollments/{begun['enrollment_id']}/activation", proof)
    assert done.json["attester_id"] == guest.attester_id
    assert (await fetched(verifier, guest)).code == "ak-certificate-withheld"


async def test_who_does_not_ask_gets_none(verifier):
    guest = await verifier.guest()
    assert (await guest.attest()).json.get("ak_certificate") is None


@pytest.mark.parametrize(("issue", "status"), [("off", 409), ("enrolled", 200)])
async def test_the_settings_say_to_whom(tmp_path, clock, issue, status):
    async with running(settings_for(tmp_path, AK_CERTIFICATES_ISSUE=issue), clock) as verifier:
        guest = await verifier.guest()
        assert (await fetched(verifier, guest)).status == status


async def test_activation_brings_one_where_enrolled_machines_get_them(tmp_path, clock):
    async with running(settings_for(tmp_path, AK_CERTIFICATES_ISSUE="enrolled"), clock) as verifier:
        guest = Guest.booted(verifier)
        begun = (
            await verifier.post("/v1/enrollments", guest.enrollment(await verifier.token(Scope.JOIN)))
        ).json
        path = f"/v1/enrollments/{begun['enrollment_id']}/activation"
        body = {"proof": b64(guest.proof(begun)), "want_ak_certificate": True}
        done = await verifier.post(path, body)
        assert x509.load_der_x509_certificate(unb64(done.json["ak_certificate"]))
        assert len(done.json["ak_chain"]) == 2


async def test_the_ca_outlives_a_restart(tmp_path, clock):
    async with running(settings_for(tmp_path), clock) as verifier:
        before = await ca_of(verifier)
    async with running(settings_for(tmp_path), clock) as verifier:
        assert await ca_of(verifier) == before


async def test_another_tenant_cannot_fetch_it(verifier):
    guest = await verifier.guest()
    await attested(guest)
    stranger = await verifier.token(Scope.RELYING_PARTY, tenant="other")
    answer = await verifier.call("GET", f"/v1/attesters/{guest.attester_id}/ak-certificate", token=stranger)
    assert (answer.status, answer.code) == (404, "not-found")


async def test_a_suspected_copy_gets_none_even_where_every_enrolled_machine_would(tmp_path, clock):
    async with running(settings_for(tmp_path, AK_CERTIFICATES_ISSUE="enrolled"), clock) as verifier:
        guest = await verifier.guest()
        await attested(guest)
        assert (await fetched(verifier, guest)).status == 200
        clock.advance(minutes=1)
        reply, _ = await attested(guest, identity={"hostname": "copy", "smbios_uuid": "another"})
        codes = {f["code"] for f in reply["verdict"]["findings"] if f["status"] != "passed"}
        assert "clone-suspected" in codes
        answer = await fetched(verifier, guest)
        assert (answer.status, answer.code) == (409, "ak-certificate-withheld")
        assert "clone-suspected" in answer.json["detail"]
