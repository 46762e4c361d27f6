"""Every EK certificate and look-alike of the corpus, with what a correct validator must say of it and why.

Origin, licence and SHA-256 of each file: corpus/MANIFEST.tsv. Chains found by other tools:
corpus/VALIDATION_certs.tsv. Anchors: all of corpus/tpm-ca-store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.conftest import ROOT, shared_path
from verifier.crypto import keys
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.ek import ValidatedEk, validate_ek
from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.tcg.public import parse_public

AT = datetime(2026, 12, 1, tzinfo=UTC)
IN_2020 = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Accepted:
    vendor: str | None
    virtual: bool | None
    notes: tuple[str, ...] = ()
    """A part of each note, in order."""


@dataclass(frozen=True)
class Refused:
    reason: Reason
    words: str


NO_ANCHOR = Refused(Reason.EK_CERTIFICATE_UNTRUSTED, "no trust anchor for issuer")
SIGNING_KEY = Refused(Reason.EK_CERTIFICATE_PROFILE, "key usage (digital signature)")
EXPIRED_2024 = Refused(Reason.EK_CERTIFICATE_EXPIRED, "expired at 2024-")
IS_CA = Refused(Reason.EK_CERTIFICATE_PROFILE, "it is a CA certificate")

EXPECTED: dict[str, Accepted | Refused] = {
    # --- accepted
    "Fraunhofer-AISEC_cmc/certs/cert-ek_STM_c4fcd8ae48.der": Accepted("STM", virtual=False),
    "nsacyber_paccor/certs/cert-ek_STM_9e62a0df69.der": Accepted("STM", virtual=False),
    "salrashid123_tpm2/certs/cert-ek_GOOG_1eb767b3d9.der": Accepted("GOOG", virtual=True),
    "salrashid123_tpm2/certs/cert-ek_swtpm_54b0e60586.der": Accepted("IBM", virtual=True),
    "salrashid123_tpm2/certs/cert-ek_swtpm_8905c6d874.der": Accepted("IBM", virtual=True),
    "salrashid123_tpm2/certs/cert-ek_swtpm_b29e62e0ef.der": Accepted("IBM", virtual=True),
    # GCE writes neither EKU nor alternative name: reported, and policy's to require.
    "salrashid123_gcp-vtpm-ek-ak/certs/ekcert.pem": Accepted(
        None, virtual=None, notes=("tcg-kp-EKCertificate is absent", "no directory name")
    ),
    # RSAES-OAEP key, SHA-1 signature of 2017, no EKU; not of the ROCA generator though of its maker and time.
    "google_go-attestation/certs/cert-leaf_IFX_7deed572cc.der": Accepted(
        "IFX", virtual=False, notes=("signed with SHA-1", "tcg-kp-EKCertificate is absent")
    ),
    # --- good once (see IN_2020 below), over now: RSAES-OAEP keys and SHA-1 signatures of 2014
    "nsacyber_HIRS/certs/cert-ek_STM_07d685f939.der": EXPIRED_2024,
    "nsacyber_HIRS/certs/cert-ek_STM_411a4bb673.der": EXPIRED_2024,
    "nsacyber_HIRS/certs/cert-ek_STM_6de7b2a29b.der": EXPIRED_2024,
    "nsacyber_paccor/certs/cert-ek_STM_79ead4d39e.der": EXPIRED_2024,
    # --- issuers that are not in the store: each VMCA is its customer's own, others were never published
    "google_go-tpm/certs/cert-ek_VMW_8cdd06be35.der": NO_ANCHOR,
    "google_go-tpm/certs/cert-ek_VMW_e6534a28e1.der": NO_ANCHOR,
    "google_go-tpm/vmware_ek-rsa-crt.pem": NO_ANCHOR,
    "google_go-attestation/certs/cert-ek_GOOG_9f2d40c084.der": NO_ANCHOR,
    "google_go-attestation/certs/cert-leaf_GOOG_3f092ad1e3.der": NO_ANCHOR,
    "google_go-attestation/certs/cert-leaf_GOOG_43d5a3cbf0.der": NO_ANCHOR,
    "google_go-attestation/certs/cert-leaf_GOOG_5a8511bea2.der": NO_ANCHOR,
    "google_go-attestation/certs/cert-leaf_GOOG_fd392db02b.der": NO_ANCHOR,
    "keylime_rust-keylime/certs/cert-leaf_other_642685561e.der": NO_ANCHOR,
    "nsacyber_HIRS/certs/cert-ak_other_43318b383f.der": NO_ANCHOR,
    "nsacyber_paccor/certs/cert-ek_other_ba13d3612c.der": NO_ANCHOR,
    # The Microsoft AIK CAs in the store share its kind of name; this one's is not among them.
    "rustls_webpki/certs/cert-ak_INTC_b2777be35a.der": NO_ANCHOR,
    "flashbots_attested-tls-proxy/certs/cert-ak_azure.der": NO_ANCHOR,
    # GCE rotated the key of its intermediate under one name: name and purpose fit, the signature does not.
    "automata-network_automata-tpm-attestation/TPMTest_cert6.der": Refused(
        Reason.EK_CERTIFICATE_UNTRUSTED, "was not signed with the key"
    ),
    # --- chains hold, but these certify other things than an endorsement key
    # GCE certifies an EK and an AK per VM from one CA; only the key usage tells them apart.
    "salrashid123_gcp-vtpm-ek-ak/certs/akcert.pem": SIGNING_KEY,
    # Says EKU tcg-kp-EKCertificate, but is GCE's signing key: nothing can be encrypted to it.
    "salrashid123_tpm2/certs/cert-ek_GOOG_67cbcce632.der": SIGNING_KEY,
    "confidential-containers_trustee/certs/cert-leaf_other_5ed9da3a26.der": SIGNING_KEY,
    "confidential-containers_trustee/certs/cert-leaf_other_93385399f3.der": SIGNING_KEY,
    "confidential-containers_trustee/certs/cert-leaf_other_fc3f139221.der": SIGNING_KEY,
    "automata-network_automata-tpm-attestation/TPMTest_cert7.der": IS_CA,
    "automata-network_automata-tpm-attestation/TPMTest_cert8.der": IS_CA,
    # A test certificate for a key of 2041 bits.
    "nsacyber_HIRS/certs/cert-leaf_other_670cfdfa0c.der": Refused(
        Reason.EK_CERTIFICATE_PROFILE, "RSA key of 2041 bits"
    ),
    # --- no X.509: an alternative name without its tag, and a made-up key algorithm with raw extension values
    "veraison_services/certs/cert-leaf_other_197831f07c.der": Refused(
        Reason.EK_CERTIFICATE_MALFORMED, "otherName value"
    ),
    "web-auth_webauthn-framework/certs/cert-leaf_other_f200d7fa8a.der": Refused(
        Reason.EK_CERTIFICATE_MALFORMED, "authorityKeyIdentifier"
    ),
}
GOOD_IN_2020 = {
    "nsacyber_HIRS/certs/cert-ek_STM_07d685f939.der",
    "nsacyber_HIRS/certs/cert-ek_STM_411a4bb673.der",
    "nsacyber_HIRS/certs/cert-ek_STM_6de7b2a29b.der",
    "nsacyber_paccor/certs/cert-ek_STM_79ead4d39e.der",
}
KINDS = {"cert-ek", "cert-leaf", "cert-ak", "cert-ak-chain"}
EVIDENCE = ROOT / "policies" / "evidence"


@pytest.fixture(scope="module")
def anchors() -> TrustAnchors:
    store = shared_path("corpus/tpm-ca-store")
    found, unusable = TrustAnchors.sift(path.read_bytes() for path in sorted(store.glob("*.der")))
    assert len(found) == 357
    assert sorted(one.problem for one in unusable) == [
        "keys of algorithm 2.16.840.1.101.3.4.3.18 are not supported",
        "keys of algorithm 2.16.840.1.101.3.4.3.19 are not supported",
        "not a CA certificate (basic constraints)",
        "not a CA certificate (basic constraints)",
    ]
    return found


def validate(file: str, anchors: TrustAnchors, at: datetime, *, padding: bytes = b"") -> ValidatedEk:
    certificate = split_bundle(shared_path(f"corpus/{file}").read_bytes())[0]
    return validate_ek(certificate + padding, anchors=anchors, ek_public=None, now=at)


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("file", EXPECTED)
def test_corpus(file, anchors):
    match EXPECTED[file]:
        case Accepted() as expected:
            valid = validate(file, anchors, AT)
            assert (valid.profile.vendor, valid.profile.virtual) == (expected.vendor, expected.virtual)
            notes = [note for note in valid.profile.notes if "read leniently" not in note]
            assert len(notes) == len(expected.notes)
            assert all(part in note for part, note in zip(expected.notes, notes, strict=True))
        case Refused() as expected:
            with pytest.raises(EvidenceError) as caught:
                validate(file, anchors, AT)
            assert caught.value.reason is expected.reason
            assert expected.words in str(caught.value)


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("file", sorted(GOOD_IN_2020))
def test_expired_ones_were_good_in_their_time(file, anchors):
    valid = validate(file, anchors, IN_2020)
    assert (valid.profile.vendor, valid.profile.eku_present, valid.profile.key) == ("STM", True, "RSA-2048")
    assert any("SHA-1" in note for note in valid.profile.notes)


def test_nothing_of_the_corpus_is_left_out():
    rows = (line.split("\t") for line in shared_path("corpus/MANIFEST.tsv").read_text().splitlines()[1:])
    assert {row[0] for row in rows if row[1] in KINDS} == set(EXPECTED)


@pytest.mark.parametrize("file", [file for file, said in EXPECTED.items() if isinstance(said, Accepted)])
def test_padding_of_an_nv_index_changes_nothing(file, anchors):
    plain, padded = (validate(file, anchors, AT, padding=rest) for rest in (b"", b"\xff" * 500))
    assert (padded.certificate, padded.fingerprint) == (plain.certificate, plain.fingerprint)
    assert "500 bytes of padding behind the certificate" in padded.profile.notes


def captured() -> list[str]:
    return [str(path.relative_to(EVIDENCE)) for path in sorted(EVIDENCE.glob("*/ek_*_cert.der"))]


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("file", captured())
@pytest.mark.parametrize("trusted", ["ek-issuer.pem", "ek-root.pem"])
def test_captured_boots(file, trusted):
    trust = TrustAnchors.from_bundle((EVIDENCE / "ca" / trusted).read_bytes())
    issuer = split_bundle((EVIDENCE / "ca" / "ek-issuer.pem").read_bytes())
    path = EVIDENCE / file
    public = path.with_name("ek_rsa.pub")
    ek_public = parse_public(public.read_bytes()) if "ek_rsa" in file else None
    valid = validate_ek(path.read_bytes(), intermediates=issuer, anchors=trust, ek_public=ek_public, now=AT)
    assert len(valid.chain) == (3 if trusted == "ek-root.pem" else 2)
    assert (valid.profile.vendor, valid.profile.virtual, valid.profile.model) == ("IBM", True, "swtpm")
    assert ek_public is None or keys.fingerprint(ek_public) == valid.fingerprint
