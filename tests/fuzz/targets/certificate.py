"""Certificates: two readers that agree, and nothing that is not signed by whom one trusts is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa

from tests import odd_certificates, pki
from tests.fuzz.corpora import captured, corpus
from tests.fuzz.targets import Bound
from verifier.crypto.aia import issuer_urls
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.der import open_envelope, trim_padding
from verifier.crypto.device_keys import KeyKind, validate_key_certificate
from verifier.crypto.ek import validate_ek
from verifier.crypto.lenient import read_lenient
from verifier.crypto.strict import NotStrictError, read_strict
from verifier.errors import EvidenceError

RAISES = (EvidenceError,)
RUNS = 250
MEMORY = Bound(300, 2 << 20)
CALLS = Bound(400, 100_000)
ROOT = pki.Ca.root()
SUB = ROOT.below("Sub")
MODULUS = int.from_bytes(hashlib.shake_256(b"fuzz").digest(256), "big") | 1 << 2047 | 1
RSA = rsa.RSAPublicNumbers(65537, MODULUS).public_key()
"""Nobody's: an RSA key that is made anew would make another certificate in each process."""
ANCHORS = TrustAnchors.from_der([ROOT.der])
GOOD = (ROOT.ek(), SUB.ek(subject=pki.tpm_name()), ROOT.ek(RSA, spki=pki.oaep_spki(RSA)))
SIGNED = {open_envelope(der).signed for der in GOOD}


def seeds() -> Iterator[bytes]:
    yield from GOOD
    yield from (ROOT.der, SUB.der)
    yield from (case.certificate for case in odd_certificates.CASES if len(case.certificate) < 8192)
    yield from captured("*_cert.der")
    kinds = ("cert-ek", "cert-ak", "cert-platform", "cert-leaf", "cert-ca", "cert-other")
    yield from (data for data in corpus(*kinds, longest=8_192) if data[:1] == b"\x30")


def target(data: bytes) -> None:
    refusal: EvidenceError | None = None
    for judge in (ek, ak, idevid):
        try:
            assert open_envelope(judge(data)).signed in SIGNED, "believed, and not one that was signed"
        except EvidenceError as error:
            assert str(error)
            refusal = error
    der = trim_padding(data)[0]
    certificate = parse_certificate(der)
    issuer_urls(certificate)
    envelope = open_envelope(der)
    try:
        strict, lenient = read_strict(envelope), read_lenient(envelope, "fuzz")
    except (NotStrictError, EvidenceError):
        return
    for name in ("not_before", "not_after", "extensions", "serial", "algorithm", "spki"):
        assert getattr(strict, name) == getattr(lenient, name), name
    if refusal is not None:
        raise refusal


def ek(data: bytes) -> bytes:
    valid = validate_ek(data, intermediates=(SUB.der, data), anchors=ANCHORS, ek_public=None, now=pki.NOW)
    return valid.certificate


def ak(data: bytes) -> bytes:
    return validate_key_certificate(
        data, kind=KeyKind.AK, intermediates=(SUB.der,), anchors=ANCHORS, public=None, now=pki.NOW
    ).certificate


def idevid(data: bytes) -> bytes:
    return validate_key_certificate(
        data, kind=KeyKind.IDEVID, intermediates=(SUB.der,), anchors=ANCHORS, public=None, now=pki.NOW
    ).certificate
