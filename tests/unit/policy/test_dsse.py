"""Signed policies: what holds, what does not, and what is no envelope at all."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import PolicyError
from verifier.policy import dsse
from verifier.policy.dsse import (
    MAX_ENVELOPE,
    PAYLOAD_TYPE,
    Envelope,
    PolicySigners,
    open_policy,
    sign,
    verify,
)
from verifier.policy.source import parse_source
from verifier.reasons import Reason

POLICY = b"schema: vtpm-attest/policy/1\nid: p\n"
P256 = ec.derive_private_key(7, ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = ec.derive_private_key(8, ec.SECP256R1())
KEYS = {"es256": P256, "ed25519": ED25519}


def signers(*keys) -> PolicySigners:
    return PolicySigners.of(key.public_key() for key in keys)


def changed(source: bytes, **fields) -> bytes:
    return json.dumps(json.loads(source) | fields).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", KEYS)
def test_a_signed_policy_opens_and_names_its_signer(kind: str) -> None:
    key = KEYS[kind]
    source = sign(POLICY, [key])
    opened = open_policy(source, signers(OTHER, key))
    assert opened.payload == POLICY
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert opened.signers == (hashlib.sha256(spki).hexdigest(),)
    assert json.loads(source)["signatures"][0]["keyid"] == opened.signers[0]


@pytest.mark.parametrize("kind", KEYS)
def test_signed_by_someone_else_is_refused(kind: str) -> None:
    with pytest.raises(PolicyError, match="no signature holds") as caught:
        open_policy(sign(POLICY, [KEYS[kind]]), signers(OTHER))
    assert caught.value.reason is Reason.POLICY_SIGNATURE


def test_an_unsigned_policy_is_taken_only_where_no_signature_is_demanded() -> None:
    assert open_policy(POLICY, None).payload == POLICY
    with pytest.raises(PolicyError, match="not signed") as caught:
        open_policy(POLICY, signers(P256))
    assert caught.value.reason is Reason.POLICY_SIGNATURE


def test_without_a_demand_an_envelope_is_unpacked_and_proves_nothing() -> None:
    opened = open_policy(sign(POLICY, [OTHER]), None)
    assert (opened.payload, opened.signers) == (POLICY, ())


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "fields",
    [
        {"payload": b64(POLICY.replace(b"id: p", b"id: q"))},
        {"payload": b64(POLICY + b" ")},
        {"signatures": [{"sig": b64(bytes(64))}]},
        {"signatures": [{"sig": b64(b"\x30\x06\x02\x01\x01\x02\x01\x01")}]},
        {"signatures": [{"sig": ""}]},
    ],
)
def test_any_changed_byte_breaks_the_signature(kind: str, fields: dict) -> None:
    source = changed(sign(POLICY, [KEYS[kind]]), **fields)
    with pytest.raises(PolicyError) as caught:
        open_policy(source, signers(KEYS[kind]))
    assert caught.value.reason is Reason.POLICY_SIGNATURE


def test_the_key_id_decides_nothing() -> None:
    """It is not signed (protocol.md): neither a wrong nor a missing one matters, nor does a right one help."""
    document = json.loads(sign(POLICY, [P256]))
    signature = document["signatures"][0]["sig"]
    for hint in ({}, {"keyid": ""}, {"keyid": "someone"}):
        source = changed(json.dumps(document).encode(), signatures=[{"sig": signature, **hint}])
        assert open_policy(source, signers(P256)).signers
    forged = changed(sign(POLICY, [OTHER]), signatures=[document["signatures"][0] | {"sig": b64(bytes(64))}])
    with pytest.raises(PolicyError, match="no signature holds"):
        open_policy(forged, signers(P256))


def test_one_good_signature_among_others_is_enough_and_every_good_one_is_named() -> None:
    source = sign(POLICY, [OTHER, P256, ED25519])
    assert len(open_policy(source, signers(P256)).signers) == 1
    assert set(open_policy(source, signers(P256, ED25519)).signers) == signers(P256, ED25519).ids


def test_another_payload_type_is_no_policy_even_when_well_signed() -> None:
    kind = "application/vnd.in-toto+json"
    signature = ED25519.sign(dsse.pae(kind, POLICY))
    document = {"payload": b64(POLICY), "payloadType": kind, "signatures": [{"sig": b64(signature)}]}
    with pytest.raises(PolicyError, match=r"payloadType is 'application/vnd\.in-toto"):
        open_policy(json.dumps(document).encode(), signers(ED25519))


def test_a_signature_over_the_bare_payload_is_none() -> None:
    source = changed(sign(POLICY, [ED25519]), signatures=[{"sig": b64(ED25519.sign(POLICY))}])
    with pytest.raises(PolicyError, match="no signature holds"):
        open_policy(source, signers(ED25519))


def test_signatures_of_other_tools_are_read_der_and_url_safe() -> None:
    """In DER, as OpenSSL, cosign and go-securesystemslib write ECDSA; and without padding."""
    message = dsse.pae(PAYLOAD_TYPE, POLICY)
    der = P256.sign(message, ec.ECDSA(hashes.SHA256()))
    text = base64.urlsafe_b64encode(der).decode().rstrip("=")
    source = changed(sign(POLICY, [OTHER]), signatures=[{"sig": text}])
    assert open_policy(source, signers(P256)).signers


# Example of secure-systems-lab/dsse, protocol.md ("Test Vectors"): ECDSA P-256, r || s.
SPEC_KEY = ec.EllipticCurvePublicNumbers(
    46950820868899156662930047687818585632848591499744589407958293238635476079160,
    5640078356564379163099075877009565129882514886557779369047442380624545832820,
    ec.SECP256R1(),
).public_key()
SPEC_SIGNATURE = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="


def test_the_specifications_example_holds() -> None:
    kind, body = "http://example.com/HelloWorld", b"hello world"
    assert dsse.pae(kind, body) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    envelope = Envelope(body, kind, (("", base64.b64decode(SPEC_SIGNATURE)),))
    assert verify(envelope, PolicySigners.of([SPEC_KEY])) == (dsse.key_id(SPEC_KEY),)
    with pytest.raises(PolicyError):
        verify(Envelope(b"hello worlD", kind, envelope.signatures), PolicySigners.of([SPEC_KEY]))


# Of its testvectors/vectors.json: Ed25519 keys of RFC 8032, section 7.1, over a type that is not ASCII, whose
# length counts in bytes.
RFC8032_TEST_1 = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
NOT_ASCII = "xmSk/ug66ysT7ayhkCIjhAq42zgZXSsEWuzUaNL7w2eGAdF/NU6/fRXPtmfN+5DNSAs5/i2lUnHjbbjPsu0tAw=="


def test_the_length_of_a_type_counts_bytes() -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(RFC8032_TEST_1))
    body = b'{"_type":"https://in-toto.io/Statement/v1"}'
    envelope = Envelope(body, "application/vnd.exämple+json", (("A", base64.b64decode(NOT_ASCII)),))
    assert verify(envelope, PolicySigners.of([key])) == (dsse.key_id(key),)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (b'{"payloadType": "x"}', "not an envelope"),
        (b'{"payloadType": 3, "payload": "", "signatures": []}', "not an envelope"),
        (b'{"payloadType": "x", "payload": "", "signatures": []}', "0 signatures"),
        (
            b'{"payloadType": "x", "payload": "", "signatures": [' + b'{"sig": ""},' * 16 + b'{"sig": ""}]}',
            "17",
        ),
        (b'{"payloadType": "x", "payload": "*", "signatures": [{"sig": ""}]}', "payload is not base64"),
        ('{"payloadType": "x", "payload": "é", "signatures": [{"sig": ""}]}'.encode(), "not base64"),
        (b'{"payloadType": "x", "payload": "", "signatures": [{"sig": "A"}]}', "sig is not base64"),
        (b'{"payloadType": "\xff"}', "not an envelope"),
        (b'{"payloadType": ' + b"[" * 100_000, "not an envelope"),
        (b'{"payloadType": "' + b"x" * MAX_ENVELOPE + b'"}', "is larger than"),
    ],
)
def test_what_is_no_envelope_gets_the_typed_error(source: bytes, what: str) -> None:
    for demanded in (None, signers(P256)):
        with pytest.raises(PolicyError, match=what) as caught:
            open_policy(source, demanded)
        assert caught.value.structure == "DSSE"


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b'{"payloadType": ' + tail))
def test_nothing_unsigned_ever_opens(source: bytes) -> None:
    with pytest.raises(PolicyError):
        open_policy(source, signers(P256, ED25519))


def test_only_keys_of_the_two_kinds_sign() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    strong = rsa.generate_private_key(65537, 2048)
    for key in (p384, strong):
        with pytest.raises(PolicyError, match="P-256 or Ed25519"):
            PolicySigners.of([key.public_key()])
        with pytest.raises(PolicyError, match=r"key\.pem: policies are signed with P-256 or Ed25519"):
            dsse.load_private_key(pem(key), "key.pem")
    with pytest.raises(PolicyError, match="no signer is named"):
        PolicySigners.of([])
    with pytest.raises(PolicyError, match="0 signatures"):
        sign(POLICY, [])


def pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.mark.parametrize("kind", KEYS)
def test_keys_are_read_from_pem(kind: str) -> None:
    key = KEYS[kind]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert dsse.key_id(dsse.load_public_key(public, "f")) == dsse.key_id(key.public_key())
    assert dsse.key_id(dsse.load_private_key(pem(key), "f").public_key()) == dsse.key_id(key.public_key())
    with pytest.raises(PolicyError, match=r"f: not a PEM public key"):
        dsse.load_public_key(pem(key), "f")
    with pytest.raises(PolicyError, match=r"f: not a PEM private key"):
        dsse.load_private_key(public, "f")
    with pytest.raises(PolicyError, match=r"f: the key is encrypted"):
        dsse.load_private_key(pem(key, BestAvailableEncryption(b"x")), "f")


def test_the_revision_is_the_digest_of_the_yaml_signed_or_not() -> None:
    text = (
        b"schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [7]}\n"
        b"rules: [{id: r, claim: configuration, secure_boot: enabled}]\n"
        b"unjudged: [{pcrs: [7], why: not what this test is about}]\n"
    )
    plain, signed = parse_source(text), parse_source(sign(text, [P256]), signers(P256))
    assert plain == signed
    assert signed.revision == hashlib.sha256(text).hexdigest()
    assert parse_source(text.decode()) == plain


def test_signers_are_equal_by_their_keys() -> None:
    assert signers(P256, ED25519) == signers(ED25519, P256)
    assert signers(P256) != signers(OTHER)
