import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.simulator import RSA_EK, AkProfile, EkProfile, SoftwareTpm, marshal
from verifier.crypto.keys import fingerprint, load_key, public_key, spki_der
from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.public import parse_public

EVIDENCE = Path(__file__).parents[3] / "policies" / "evidence" / "uki-sb-on"


def point_area(x: int, y: int) -> bytes:
    parameters = marshal.ecc_parameters(
        None, b"\x00\x18\x00\x0b", "p256", x.to_bytes(32, "big"), y.to_bytes(32, "big")
    )
    return marshal.tpm2b(marshal.public_area("ecc", HashAlg.SHA256, 0x00050072, b"", parameters))


def test_the_key_of_an_ek_is_that_of_its_certificate():
    certificate = x509.load_der_x509_certificate((EVIDENCE / "ek_rsa_cert.der").read_bytes())
    public = parse_public((EVIDENCE / "ek_rsa.pub").read_bytes())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_der(public) == spki
    assert fingerprint(public) == hashlib.sha256(spki).digest()


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_ecc_keys_of_every_curve(kind):
    tpm = SoftwareTpm("keys", ak=AkProfile(kind=kind))
    key = public_key(parse_public(tpm.ak_public))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.public_numbers() == tpm.ak.private.public_key().public_numbers()


def test_the_fingerprint_names_the_key_and_not_the_template():
    one = SoftwareTpm("keys", ek=EkProfile())
    other = SoftwareTpm("keys", ek=EkProfile(attributes=0x000300F2, policy=b"p" * 32))
    assert one.ek.name != other.ek.name
    assert fingerprint(parse_public(one.ek_public)) == fingerprint(parse_public(other.ek_public))
    assert fingerprint(parse_public(one.ek_public)) != fingerprint(parse_public(SoftwareTpm("k2").ek_public))


@pytest.mark.parametrize(("x", "y"), [(1, 1), (0, 0), (2**256 - 1, 2**256 - 1)])
def test_a_point_off_the_curve_is_malformed(x, y):
    with pytest.raises(MalformedInputError, match="the point is not on P-256") as caught:
        public_key(parse_public(point_area(x, y)))
    assert caught.value.structure == "TPMS_ECC_POINT"


def test_numbers_the_library_refuses_become_a_typed_error(monkeypatch):
    def refuse(*_):
        raise ValueError("no such key")

    public = parse_public(SoftwareTpm("keys", ek=RSA_EK).ek_public)
    monkeypatch.setattr("verifier.crypto.keys.rsa.RSAPublicNumbers", refuse)
    with pytest.raises(MalformedInputError, match="no such key"):
        public_key(public)


def test_a_loaded_key_is_the_parsed_one_and_is_made_once():
    tpm = SoftwareTpm("keys")
    loaded = load_key(tpm.ak_public)
    assert loaded.public == parse_public(tpm.ak_public)
    assert loaded.name == tpm.ak_name
    assert load_key(bytes(bytearray(tpm.ak_public))) is loaded


def test_a_refused_area_stays_refused():
    for _ in range(2):
        with pytest.raises(MalformedInputError):
            load_key(b"\x00\x01")
