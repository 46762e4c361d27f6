import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.conftest import shared_path
from tests.simulator import RSA_AK, AkProfile, SoftwareTpm, Tamper
from verifier.crypto.keys import load_key
from verifier.crypto.signatures import scheme_problems, verify
from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_quote
from verifier.tcg.pcr import PcrSelection, quoted_digest
from verifier.tcg.public import parse_public
from verifier.tcg.signature import EcdsaSignature, RsaScheme, RsaSignature, parse_signature

EVIDENCE = Path(__file__).parents[3] / "policies" / "evidence"
CAPTURES = sorted(path.parent for path in EVIDENCE.glob("*/quote_rsa.msg"))
MESSAGE = b"signed by a TPM"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

PROFILES = [
    AkProfile(kind=kind, scheme=scheme, hash_alg=hash_alg)
    for kind, scheme in [
        ("p256", None),
        ("p384", None),
        ("p521", None),
        ("rsa2048", "rsassa"),
        ("rsa2048", "rsapss"),
    ]
    for hash_alg in (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
]


def signed(profile: AkProfile, message: bytes = MESSAGE):
    ak = SoftwareTpm("signatures", ak=profile).ak
    return load_key(ak.public), parse_signature(ak.sign(message))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: f"{p.kind}-{p.scheme}-{p.hash_alg.label}")
def test_every_scheme_and_hash_verifies_over_its_message_and_no_other(profile):
    key, signature = signed(profile)
    assert verify(key.key, signature, MESSAGE)
    assert not verify(key.key, signature, MESSAGE + b"\0")
    assert not verify(key.key, signature, b"")
    assert scheme_problems(key.public, signature) == ()


def test_pss_salt_of_either_length_is_valid():
    for longest in (False, True):
        key, signature = signed(AkProfile(kind="rsa2048", scheme="rsapss", max_pss_salt=longest))
        assert verify(key.key, signature, MESSAGE)


def test_the_signature_of_another_key_is_false():
    _, signature = signed(AkProfile())
    assert not verify(load_key(SoftwareTpm("other").ak_public).key, signature, MESSAGE)


def test_a_key_of_another_kind_is_false_and_not_an_error():
    ecc, ecdsa = signed(AkProfile())
    rsa_key, rsassa = signed(RSA_AK)
    assert not verify(rsa_key.key, ecdsa, MESSAGE)
    assert not verify(ecc.key, rsassa, MESSAGE)


def test_rsassa_does_not_pass_for_rsapss_nor_one_hash_for_another():
    key, signature = signed(RSA_AK)
    assert not verify(
        key.key, RsaSignature(RsaScheme.RSAPSS, signature.hash_alg, signature.signature), MESSAGE
    )
    assert not verify(key.key, RsaSignature(signature.scheme, HashAlg.SHA384, signature.signature), MESSAGE)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff" * 255, b"\xff" * 256, bytes(256), b"\xff" * 512])
@pytest.mark.parametrize("scheme", RsaScheme)
def test_rsa_values_of_wrong_size_or_range_are_false(raw, scheme):
    key, _ = signed(RSA_AK)
    assert not verify(key.key, RsaSignature(scheme, HashAlg.SHA256, raw), MESSAGE)


@pytest.mark.parametrize("value", [0, P256_ORDER, P256_ORDER + 1, 2**528 - 1])
def test_ecdsa_values_out_of_range_are_false(value):
    key, signature = signed(AkProfile())
    assert not verify(key.key, EcdsaSignature(HashAlg.SHA256, value, signature.s), MESSAGE)
    assert not verify(key.key, EcdsaSignature(HashAlg.SHA256, signature.r, value), MESSAGE)
    assert not verify(key.key, EcdsaSignature(HashAlg.SHA256, value, value), MESSAGE)


def test_r_beyond_the_order_does_not_wrap_around():
    key, signature = signed(AkProfile())
    assert not verify(key.key, EcdsaSignature(HashAlg.SHA256, signature.r + P256_ORDER, signature.s), MESSAGE)


def test_a_hash_without_an_implementation_is_unsupported_not_false():
    key, signature = signed(AkProfile())
    with pytest.raises(UnsupportedError, match="sm3_256"):
        verify(key.key, EcdsaSignature(HashAlg.SM3_256, signature.r, signature.s), MESSAGE)


def test_a_library_that_lacks_an_algorithm_is_unsupported_not_false():
    class Lacking(rsa.RSAPublicKey):
        def verify(self, *_):
            raise UnsupportedAlgorithm("not in this build")

        encrypt = key_size = public_numbers = public_bytes = recover_data_from_signature = None
        __eq__ = __copy__ = __deepcopy__ = __hash__ = None

    with pytest.raises(UnsupportedError, match="sha3_512"):
        verify(Lacking(), RsaSignature(RsaScheme.RSASSA, HashAlg.SHA3_512, b""), MESSAGE)


def test_departures_from_the_scheme_of_the_key_are_named():
    key, _ = signed(RSA_AK)
    pss = RsaSignature(RsaScheme.RSAPSS, HashAlg.SHA256, b"")
    assert scheme_problems(key.public, pss) == ("signed with scheme 0x0016, the key is tied to 0x0014",)
    sha1 = RsaSignature(RsaScheme.RSASSA, HashAlg.SHA1, b"")
    assert scheme_problems(key.public, sha1) == ("signed with sha1, the key is tied to sha256",)
    assert len(scheme_problems(key.public, EcdsaSignature(HashAlg.SHA1, 1, 1))) == 2


def test_a_forger_s_valid_signature_with_another_hash_is_recognised():
    tpm = SoftwareTpm("signatures", ak=RSA_AK)
    attest, raw = tpm.quote(bytes(32), {"sha256": [0]}, tamper=Tamper(hash_alg=HashAlg.SHA1))
    key, signature = load_key(tpm.ak_public), parse_signature(raw)
    assert verify(key.key, signature, attest)
    assert scheme_problems(key.public, signature)


def test_a_key_without_a_scheme_is_tied_to_none():
    public = parse_public((CAPTURES[0] / "ek_rsa.pub").read_bytes())
    assert scheme_problems(public, RsaSignature(RsaScheme.RSAPSS, HashAlg.SHA1, b"")) == ()


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_captured_quotes_are_signed_by_their_ak(capture, kind):
    key = load_key((capture / f"ak_{kind}.pub").read_bytes())
    signature = parse_signature((capture / f"quote_{kind}.sig").read_bytes())
    message = (capture / f"quote_{kind}.msg").read_bytes()
    assert verify(key.key, signature, message)
    assert scheme_problems(key.public, signature) == ()
    for offset in range(0, len(message), 7):
        assert not verify(
            key.key, signature, message[:offset] + bytes([message[offset] ^ 1]) + message[offset + 1 :]
        )


# --- outside vectors: the corpus' manifest names origin, commit and licence; expected results from its validation list


def test_keylime_quote():
    corpus = shared_path("corpus/keylime_keylime")
    key = load_pem_public_key((corpus / "test-data/akpub.pem").read_bytes())
    message = (corpus / "quote.out").read_bytes()
    assert verify(key, parse_signature((corpus / "test-data/quotesig.out").read_bytes()), message)
    public = parse_public((corpus / "test-data/ak.pub").read_bytes())
    assert public.name == (corpus / "test-data/ak.name").read_bytes()
    assert parse_quote(message).selections == (PcrSelection(HashAlg.SHA256, (15, 16, 22)),)


def test_fraunhofer_aisec_quote_and_its_invalid_signature():
    vectors = json.loads(shared_path("corpus/Fraunhofer-AISEC_cmc/tpm_test_vectors.json").read_text())
    key = x509.load_pem_x509_certificate(vectors["validAk"].encode()).public_key()
    message = bytes.fromhex(vectors["validQuote"])
    assert parse_quote(message).selections[0].pcrs == (1, 4)
    assert verify(key, parse_signature(bytes.fromhex(vectors["validSignature"])), message)
    assert not verify(key, parse_signature(bytes.fromhex(vectors["invalidSignature"])), message)


def test_automata_quotes_of_a_cloud_vtpm():
    path = shared_path("corpus/automata-network_automata-tpm-attestation/TPMTest_vectors.json")
    vectors = {item["name"]: bytes.fromhex(item["hex"]) for item in json.loads(path.read_text())}
    numbers = [int.from_bytes(vectors[f"TPM_RSA_KEY_{part}"], "big") for part in "EN"]
    key = rsa.RSAPublicNumbers(*numbers).public_key()
    assert verify(key, parse_signature(vectors["TPM_RSA_SIGNATURE"]), vectors["TPM_RSA_QUOTE"])
    leaf = x509.load_der_x509_certificate(vectors["TPM_AK_CERT_CHAIN_0"]).public_key()
    signature = parse_signature(vectors["TPM_NIST_P256_SIGNATURE"])
    assert isinstance(signature, EcdsaSignature)
    assert verify(leaf, signature, vectors["TPM_NIST_P256_QUOTE"])
    assert parse_quote(vectors["TPM_NIST_P256_QUOTE"]).selections[0].pcrs == (0, 1, 2, 4, 7, 9, 11, 16, 23)


def test_go_attestation_windows_quote_and_its_sha1_pcrs():
    """A Windows guest: SHA-1 bank, AK attributes with noDA, an area without size prefix."""
    vector = json.loads(shared_path("corpus/google_go-attestation/windows_gcp_shielded_vm.json").read_text())
    area = base64.b64decode(vector["AK"]["Public"])
    key = load_key(len(area).to_bytes(2, "big") + area)
    message = base64.b64decode(vector["Quote"]["Quote"])
    signature = parse_signature(base64.b64decode(vector["Quote"]["Signature"]))
    quote = parse_quote(message)
    values = {pcr["Index"]: base64.b64decode(pcr["Digest"]) for pcr in vector["Log"]["PCRs"]}
    assert verify(key.key, signature, message)
    assert quoted_digest(signature.hash_alg, quote.selections, {HashAlg.SHA1: values}) == quote.pcr_digest


@pytest.mark.parametrize("name", ["az-snp-vtpm/evidence-genoa.json", "az-snp-vtpm/evidence-v0.json"])
def test_azure_confidential_vm_quotes(name):
    """The AK is a JWK inside the paravisor's report; signatures are bare RSASSA with SHA-256."""
    evidence = json.loads(shared_path(f"corpus/confidential-containers_trustee/{name}").read_text())
    report = bytes(evidence["report"])
    keys = json.loads(report[report.index(b'{"keys"') : report.rindex(b"}") + 1])["keys"]
    numbers = next(
        [int.from_bytes(base64.urlsafe_b64decode(key[part] + "=="), "big") for part in "en"]
        for key in keys
        if key["kid"] == "HCLAkPub"
    )
    message = bytes(evidence["quote"]["message"])
    signature = RsaSignature(RsaScheme.RSASSA, HashAlg.SHA256, bytes(evidence["quote"]["signature"]))
    quote = parse_quote(message)
    values = {HashAlg.SHA256: dict(enumerate(map(bytes, evidence["quote"]["pcrs"])))}
    assert verify(rsa.RSAPublicNumbers(*numbers).public_key(), signature, message)
    assert quoted_digest(HashAlg.SHA256, quote.selections, values) == quote.pcr_digest
