"""The simulator is held against the TSS, a real swtpm and captured machines, not against the code it tests."""

import datetime as dt
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.simulator import (
    GOOD_AK_ATTRIBUTES,
    RSA_AK,
    RSA_EK,
    AkProfile,
    Clock,
    SoftwareCa,
    SoftwareTpm,
    Tamper,
    TpmRefusal,
)
from tests.simulator.ca import EK_CERTIFICATE_EKU, TPM_MANUFACTURER
from tests.swtpm import real_tpm
from verifier.crypto.credential import make_credential
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.public import parse_public

EVIDENCE = Path(__file__).parents[2] / "policies" / "evidence"
CAPTURES = sorted(path.parent for path in EVIDENCE.glob("*/binary_bios_measurements"))
NONCE = bytes(range(32))
AT = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
# What the logs leave out, on purpose: PCR 10 is extended by IMA.
NOT_IN_LOG = {10}


def credential_for(tpm, ak):
    made = make_credential(parse_public(tpm.ek_public), ak.name, b"secret", bytes)
    return made.credential_blob, made.encrypted_secret


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_a_replayed_log_gives_the_pcrs_of_the_real_machine(capture):
    tpm = SoftwareTpm("replay")
    tpm.replay_log((capture / "binary_bios_measurements").read_bytes())
    captured = json.loads((capture / "pcrs.json").read_text())
    for bank in ("sha1", "sha256"):
        if captured[bank]:
            ours = {pcr: value.hex() for pcr, value in tpm.pcrs(bank).items()}
            theirs = {int(pcr): value for pcr, value in captured[bank].items()}
            assert {pcr for pcr in ours if ours[pcr] != theirs[pcr]} == NOT_IN_LOG


@pytest.mark.parametrize("profile", [AkProfile(), RSA_AK, AkProfile(kind="rsa2048", scheme="rsapss")])
def test_the_tss_reads_its_quotes_and_the_library_verifies_them(profile):
    pytss = pytest.importorskip("tpm2_pytss")
    tpm = SoftwareTpm("tss", ak=profile)
    tpm.measure(7, b"x")
    message, raw = tpm.quote(NONCE, {"sha256": [0, 7]})
    attest, size = pytss.TPMS_ATTEST.unmarshal(message)
    assert size == len(message)
    assert attest.marshal() == message
    assert bytes(attest.extraData) == NONCE
    values = tpm.pcrs("sha256")
    assert bytes(attest.attested.quote.pcrDigest) == HashAlg.SHA256.digest(values[0] + values[7])
    signature, size = pytss.TPMT_SIGNATURE.unmarshal(raw)
    assert size == len(raw)
    public, _ = pytss.TPM2B_PUBLIC.unmarshal(tpm.ak_public)
    assert public.marshal() == tpm.ak_public
    assert bytes(public.get_name()) == tpm.ak_name
    if profile.scheme == "rsapss":  # the TSS's helper does not verify these
        pad = padding.PSS(padding.MGF1(SHA256()), 32)
        tpm.ak.private.public_key().verify(bytes(signature.signature.rsapss.sig), message, pad, SHA256())
    else:
        signature.verify_signature(public, message)


@pytest.mark.swtpm
def test_it_marshals_and_counts_as_a_real_tpm_does(tmp_path):
    """Same PCR operations on both: same PCRs, same quote but for signer and firmware; same NV name and value."""
    ours = SoftwareTpm("real", banks=(HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512))
    with real_tpm(tmp_path) as tpm:
        from tpm2_pytss import ESYS_TR, TPM2B_NV_PUBLIC, TPM2B_PUBLIC, TPMS_NV_PUBLIC, TPMT_SIG_SCHEME
        from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
        template = TPM2B_PUBLIC.parse(alg="ecc256:ecdsa-sha256:null", objectAttributes=attributes)
        ak, *_ = tpm.create_primary(None, template, ESYS_TR.ENDORSEMENT)
        digest = TPMT_HA(hashAlg=0x000B, digest=TPMU_HA(sha256=b"d" * 32))
        tpm.pcr_extend(ESYS_TR.PCR7, TPML_DIGEST_VALUES([digest]))
        ours.extend(7, {"sha256": b"d" * 32})
        theirs, _ = tpm.quote(ak, "sha256:0,7+sha1:1,17", NONCE)
        mine, _ = ours.quote(NONCE, {"sha256": [0, 7], "sha1": [1, 17]})
        theirs = theirs.marshal()[2:]
        before, after = slice(42, 76), slice(101, None)  # extraData; selections and digest
        assert (mine[before], mine[after]) == (theirs[before], theirs[after])
        assert theirs[84:93] == mine[84:93] == b"\0\0\0\1\0\0\0\0\1"  # resetCount, restartCount, safe

        # The simulator's own name computation, given the real key's name.
        _, name, qualified_name = tpm.read_public(ak)
        ours.ak.name = bytes(name)
        assert ours.ak.qualified_name == bytes(qualified_name)
        nv_public = TPMS_NV_PUBLIC(nvIndex=0x01500000, nameAlg=0x000B, attributes=0x00060046, dataSize=32)
        index = tpm.nv_define_space(b"", TPM2B_NV_PUBLIC(nv_public), ESYS_TR.OWNER)
        tpm.nv_extend(index, b"x")
        null = TPMT_SIG_SCHEME(scheme=0x0010)
        certified, _ = tpm.nv_certify(ak, index, b"nonce", null, 32, 0)
        ours.nv_define_extend(0x01500000)
        ours.nv_extend(0x01500000, b"x")
        mine, _ = ours.nv_certify(b"nonce", 0x01500000)
        theirs = certified.marshal()[2:]
        assert mine[42:49] == theirs[42:49]
        assert mine[-70:] == theirs[-70:]


def test_the_same_seed_is_the_same_machine_and_another_is_not():
    one, same, other = SoftwareTpm("a"), SoftwareTpm("a"), SoftwareTpm("b")
    assert (one.ek_public, one.ak_public, one.ek_certificate) == (
        same.ek_public,
        same.ak_public,
        same.ek_certificate,
    )
    assert one.quote(NONCE, {"sha256": [0]}) == same.quote(NONCE, {"sha256": [0]})
    assert one.ek_public != other.ek_public
    assert one.ak_public != other.ak_public
    assert SoftwareTpm("a", ek=RSA_EK).ek_public == SoftwareTpm("a", ek=RSA_EK).ek_public


def test_clock_and_counters_through_reboot_resume_and_hibernation():
    tpm = SoftwareTpm("clock")
    tpm.measure(4, b"boot manager")
    booted = tpm.pcrs("sha256")
    tpm.advance(1000)
    tpm.suspend_resume()
    assert tpm.clock == Clock(1000, 1, 1, safe=True)
    assert tpm.pcrs("sha256") == booted
    tpm.restart()
    assert tpm.clock == Clock(1000, 1, 2, safe=True)
    assert tpm.pcrs("sha256")[4] == bytes(32)
    tpm.reboot(orderly=False, locality=3)
    assert tpm.clock == Clock(1000, 2, 0, safe=False)
    assert tpm.pcrs("sha256")[0] == bytes(31) + b"\x03"
    assert tpm.pcrs("sha1")[17] == b"\xff" * 20


def test_a_restored_snapshot_goes_back_and_a_clone_goes_its_own_way():
    tpm = SoftwareTpm("history")
    saved = tpm.snapshot()
    clone = tpm.clone()
    tpm.measure(0, b"later")
    tpm.reboot()
    assert clone.clock.reset_count == 1
    assert clone.ak_public == tpm.ak_public
    clone.advance(5)
    assert tpm.clock.clock == 0
    tpm.restore(saved)
    assert tpm.clock == Clock(0, 1, 0, safe=True)
    tpm.advance(1)
    tpm.restore(saved)
    assert tpm.clock.clock == 0


def test_a_startup_locality_event_sets_the_first_value_of_pcr_0():
    def event(pcr, kind, data):
        return (
            pcr.to_bytes(4, "little")
            + kind.to_bytes(4, "little")
            + bytes(20)
            + len(data).to_bytes(4, "little")
            + data
        )

    tpm = SoftwareTpm("locality")
    tpm.replay_log(event(0, 3, b"StartupLocality\0\x04") + event(1, 4, b"\0\0\0\0"))
    assert tpm.pcrs("sha256")[0] == bytes(31) + b"\x04"
    assert tpm.pcrs("sha1")[1] == HashAlg.SHA1.digest(bytes(40))
    assert tpm.pcrs("sha256")[1] == bytes(32)


def test_extending_with_a_digest_of_another_size_is_refused():
    with pytest.raises(TpmRefusal, match="SIZE"):
        SoftwareTpm("extend").extend(0, {"sha256": bytes(20)})


def test_a_bank_that_is_not_active_is_quoted_as_empty():
    tpm = SoftwareTpm("banks", banks=(HashAlg.SHA256,))
    message, _ = tpm.quote(NONCE, {"sha384": [0, 1], "sha256": [2]})
    assert message[101:115] == b"\0\0\0\2\0\x0c\3\0\0\0\0\x0b\3\4"


@pytest.mark.parametrize("ek", [None, RSA_EK])
def test_garbage_is_not_activated(ek):
    tpm = SoftwareTpm("activate", **({"ek": ek} if ek else {}))
    blob, secret = credential_for(tpm, tpm.ak)
    assert tpm.activate(blob, secret) == b"secret"
    for bad_blob, bad_secret in (
        (blob, secret[:-1]),
        (blob, secret[:-1] + bytes([secret[-1] ^ 1])),
        (blob[:-1], secret),
        (blob[:-1] + bytes([blob[-1] ^ 1]), secret),
        (b"", secret),
    ):
        with pytest.raises(TpmRefusal):
            tpm.activate(bad_blob, bad_secret)


def test_a_software_key_is_activated_only_when_it_admits_to_be_one():
    tpm = SoftwareTpm("forger")
    honest = tpm.make_ak(AkProfile(attributes=0x00040040, resident=False, label="software"))
    assert tpm.activate(*credential_for(tpm, honest), ak=honest) == b"secret"
    lying = honest.with_attributes(GOOD_AK_ATTRIBUTES)
    with pytest.raises(TpmRefusal, match="ATTRIBUTES"):
        tpm.activate(*credential_for(tpm, lying), ak=lying)


def test_keys_of_the_owner_hierarchy_tell_obfuscated_counters():
    tpm = SoftwareTpm("owner")
    ak = tpm.make_ak(AkProfile(hierarchy="owner", label="owner-ak"))
    first, _ = tpm.quote(NONCE, {"sha256": [0]}, ak=ak)
    tpm.reboot()
    second, _ = tpm.quote(NONCE, {"sha256": [0]}, ak=ak)
    resets = [int.from_bytes(message[84:88], "big") for message in (first, second)]
    assert resets[0] != 1
    assert (resets[1] - resets[0]) % 2**32 == 1
    assert first[93:101] == second[93:101] != tpm.firmware_version.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("tamper", "at", "value"),
    [
        (Tamper(magic=0x12345678), slice(0, 4), b"\x12\x34\x56\x78"),
        (Tamper(attest_type=0x8017), slice(4, 6), b"\x80\x17"),
        (Tamper(nonce=b"o" * 32), slice(44, 76), b"o" * 32),
        (Tamper(clock=Clock(1, 2, 3, safe=False)), slice(76, 93), bytes(7) + b"\1\0\0\0\2\0\0\0\3\0"),
        (Tamper(firmware_version=9), slice(93, 101), bytes(7) + b"\x09"),
        (Tamper(pcr_digest=b"p" * 32), slice(113, 145), b"p" * 32),
        (Tamper(suffix=b"!"), slice(145, None), b"!"),
    ],
)
def test_a_forger_signs_what_he_changed(tamper, at, value):
    tpm = SoftwareTpm("forger")
    message, raw = tpm.quote(NONCE, {"sha256": [0]}, tamper=tamper)
    assert message[at] == value
    assert _verifies(tpm, message, raw)


def test_changes_after_signing_break_the_signature():
    tpm = SoftwareTpm("forger")
    honest = tpm.quote(NONCE, {"sha256": [0]})
    assert _verifies(tpm, *honest)
    assert not _verifies(
        tpm, *tpm.quote(NONCE, {"sha256": [0]}, tamper=Tamper(attest_after_signing={80: 255}))
    )
    assert not _verifies(tpm, *tpm.quote(NONCE, {"sha256": [0]}, tamper=Tamper(corrupt_signature=True)))


def _verifies(tpm, message, raw):
    r, s = int.from_bytes(raw[6:38], "big"), int.from_bytes(raw[40:72], "big")
    try:
        tpm.ak.private.public_key().verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def test_an_unwritten_nv_index_cannot_be_certified_and_a_written_one_survives_a_reboot():
    tpm = SoftwareTpm("nv")
    tpm.nv_define_extend(0x01500001)
    with pytest.raises(TpmRefusal, match="UNINITIALIZED"):
        tpm.nv_certify(NONCE, 0x01500001)
    tpm.nv_extend(0x01500001, b"one")
    first, _ = tpm.nv_certify(NONCE, 0x01500001)
    tpm.reboot()
    again, _ = tpm.nv_certify(NONCE, 0x01500001)
    assert first[-32:] == again[-32:] == HashAlg.SHA256.digest(bytes(32) + b"one")


@pytest.mark.parametrize("intermediate", [False, True])
@pytest.mark.parametrize("ek", ["p256", "rsa2048"])
def test_ek_certificates_have_the_profile_of_real_vtpms(intermediate, ek):
    ca = SoftwareCa(intermediate=intermediate)
    tpm = SoftwareTpm("certificate", ca=ca, **({"ek": RSA_EK} if ek == "rsa2048" else {}))
    certificate = x509.load_der_x509_certificate(tpm.ek_certificate)
    assert certificate.public_key() == tpm.ek.private.public_key()
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    name = san.value.get_values_for_type(x509.DirectoryName)[0]
    assert san.critical
    assert name.get_attributes_for_oid(TPM_MANUFACTURER)[0].value == "id:564D5700"
    assert EK_CERTIFICATE_EKU in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_encipherment is (ek == "rsa2048")
    assert usage.key_agreement is (ek == "p256")
    issuer = x509.load_der_x509_certificate((*ca.intermediates_der, *ca.anchors_der)[0])
    certificate.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(ca.root)
    assert len(ca.intermediates_der) == int(intermediate)


def test_two_cas_of_one_name_have_different_keys():
    one, other = SoftwareCa(1), SoftwareCa(2)
    assert one.root.subject == other.root.subject
    assert one.root.public_key() != other.root.public_key()
    assert SoftwareCa(1).anchors_der == one.anchors_der


def test_odd_certificates_can_be_issued_on_demand():
    expired = {"not_after": AT - dt.timedelta(days=1), "san": False, "eku": False}
    extra = [(x509.SubjectKeyIdentifier(b"k"), False)]
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "named")])
    tpm = SoftwareTpm("odd", certificate={**expired, "extensions": extra, "subject": subject})
    certificate = x509.load_der_x509_certificate(tpm.ek_certificate)
    assert certificate.not_valid_after_utc < AT
    assert certificate.subject == subject
    present = {type(extension.value) for extension in certificate.extensions}
    assert x509.SubjectAlternativeName not in present
    assert x509.ExtendedKeyUsage not in present
    assert x509.SubjectKeyIdentifier in present


def test_a_crl_names_the_revoked_certificate_and_is_signed_by_its_issuer():
    ca = SoftwareCa(intermediate=True)
    tpm = SoftwareTpm("revoked", ca=ca)
    crl = x509.load_der_x509_crl(ca.crl(tpm.ek_certificate))
    serial = x509.load_der_x509_certificate(tpm.ek_certificate).serial_number
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None
    issuer = x509.load_der_x509_certificate(ca.intermediates_der[0])
    assert crl.is_signature_valid(issuer.public_key())
