"""AlgorithmIdentifiers and public keys of certificates, for both readers."""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

from asn1crypto import algos, keys
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from verifier.crypto import der
from verifier.crypto.certificate import Scheme, SignatureAlgorithm
from verifier.crypto.keys import PublicKey
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

_NULL: Final = b"\x05\x00"
_PSS: Final = "1.2.840.113549.1.1.10"
_SIGNATURES: Final = {
    "1.2.840.113549.1.1.5": (Scheme.RSA_PKCS1, HashAlg.SHA1),
    "1.2.840.113549.1.1.11": (Scheme.RSA_PKCS1, HashAlg.SHA256),
    "1.2.840.113549.1.1.12": (Scheme.RSA_PKCS1, HashAlg.SHA384),
    "1.2.840.113549.1.1.13": (Scheme.RSA_PKCS1, HashAlg.SHA512),
    "1.2.840.10045.4.1": (Scheme.ECDSA, HashAlg.SHA1),
    "1.2.840.10045.4.3.2": (Scheme.ECDSA, HashAlg.SHA256),
    "1.2.840.10045.4.3.3": (Scheme.ECDSA, HashAlg.SHA384),
    "1.2.840.10045.4.3.4": (Scheme.ECDSA, HashAlg.SHA512),
}
RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
_CURVES: Final = frozenset(
    curve.dotted_string for name, curve in vars(ec.EllipticCurveOID).items() if not name.startswith("_")
)
"""Those `cryptography` knows; which of them are good enough is for `weak_keys` to say."""
_UNUSUAL_CURVES: Final = {"1.2.156.10197.1.301": "SM2"}
MAX_RSA_BITS: Final = 8192
"""A modulus above it serves only to make us work."""
_MAX_EXPONENT_BITS: Final = 64
_UNCOMPRESSED: Final = b"\x00\x04"
"""No unused bits, then the mark of a point with both coordinates (SEC 1, section 2.3.3)."""


@functools.lru_cache(maxsize=64)
def read_signature_algorithm(identifier: bytes) -> SignatureAlgorithm:
    """Decode an AlgorithmIdentifier; `scheme` None where this verifier does not judge it.

    Parameters must be absent or NULL, except those of RSASSA-PSS. NULL behind ECDSA is wrong (RFC 5758,
    section 3.2) but Intel's on-die CA writes it, and it changes nothing.

    Raises:
        MalformedInputError: not an AlgorithmIdentifier; offsets count from its start.
    """
    outer = der.DerCursor(identifier, structure="AlgorithmIdentifier")
    fields = outer.inside(outer.read(der.SEQUENCE, "AlgorithmIdentifier"))
    oid = der.read_oid(fields.read(der.OBJECT_IDENTIFIER, "algorithm"), outer.structure)
    parameters = identifier[fields.offset :]
    if oid == _PSS:
        return _read_pss(parameters)
    if oid not in _SIGNATURES or parameters not in (b"", _NULL):
        return SignatureAlgorithm(oid, None, None)
    return SignatureAlgorithm(oid, *_SIGNATURES[oid])


def _read_pss(parameters: bytes) -> SignatureAlgorithm:
    """RFC 4055, section 3.1. Only one hash for message and mask, as RFC 8017 recommends."""
    unknown = SignatureAlgorithm(_PSS, None, None)
    try:
        decoded = algos.RSASSAPSSParams.load(parameters, strict=True).native
        label = decoded["hash_algorithm"]["algorithm"]
        mask = decoded["mask_gen_algorithm"]
        salt_length = decoded["salt_length"]
        usual = (
            mask["algorithm"] == "mgf1"
            and mask["parameters"]["algorithm"] == label
            and decoded["trailer_field"] in (1, "trailer_field_bc")
        )
    except (ValueError, TypeError, KeyError, IndexError):
        return unknown
    hash_alg = HASH_BY_LABEL.get(label)
    if not usual or hash_alg is None or not 0 <= salt_length <= hash_alg.size:
        return unknown
    return SignatureAlgorithm(_PSS, Scheme.RSA_PSS, hash_alg, salt_length)


class KeyInfo(NamedTuple):
    """A certificate's public key."""

    algorithm: str
    """Dotted OID, as the certificate says; with the curve where that is not one we know."""
    key: PublicKey | None
    """None where the algorithm is not judged."""
    spki: bytes
    """Canonical SubjectPublicKeyInfo: rsaEncryption, or an uncompressed point on a named curve."""


def read_key(spki: der.Element) -> KeyInfo:
    """Read a SubjectPublicKeyInfo.

    RSAES-OAEP keys (RFC 4055, section 4.1; early Infineon and STMicroelectronics EKs) become plain RSA keys:
    the parameters restrict how the key encrypts, which TPM2_MakeCredential fixes by itself.

    Raises:
        MalformedInputError: a named algorithm whose key does not parse, or is out of bounds.
    """
    fields = der.DerCursor(spki.buffer, spki.content, spki.end)
    identifier = fields.inside(fields.read(der.SEQUENCE, "algorithm"))
    oid = der.read_oid(identifier.read(der.OBJECT_IDENTIFIER, "algorithm"))
    bits = fields.read(der.BIT_STRING, "subjectPublicKey").value
    fields.finish("SubjectPublicKeyInfo")
    if oid == EC_PUBLIC_KEY and identifier.peek() != der.OBJECT_IDENTIFIER:
        # RFC 5480, section 2.1.1. Explicit parameters were how CVE-2020-0601 forged other people's keys.
        raise der.malformed("the curve is not given by name", identifier.offset)
    if oid == EC_PUBLIC_KEY:
        curve = der.read_oid(identifier.read(der.OBJECT_IDENTIFIER, "namedCurve"))
        if curve not in _CURVES:
            named = _UNUSUAL_CURVES.get(curve, "curve")
            return KeyInfo(f"{oid} ({named} {curve})", None, spki.encoded)
    if oid not in (RSA_ENCRYPTION, RSAES_OAEP, EC_PUBLIC_KEY):
        return KeyInfo(oid, None, spki.encoded)
    try:
        key = _plain_rsa(bits) if oid == RSAES_OAEP else load_der_public_key(spki.encoded)
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm) as error:
        raise der.malformed(f"the public key does not parse: {error}", spki.start) from error
    match key:
        case RSAPublicKey():
            if key.key_size > MAX_RSA_BITS:
                detail = f"an RSA key of {key.key_size} bits; at most {MAX_RSA_BITS} are read"
                raise der.malformed(detail, spki.start)
            return KeyInfo(oid, key, _canonical_spki(key))
        case EllipticCurvePublicKey() if bits[:2] == _UNCOMPRESSED:
            # One encoding of a named curve and a point is left: this. Asking OpenSSL for it costs 28 us.
            return KeyInfo(oid, key, spki.encoded)
        case EllipticCurvePublicKey():
            return KeyInfo(oid, key, _canonical_spki(key))
    raise der.malformed(f"the key is not what its algorithm {oid} says", spki.start)


def _canonical_spki(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _plain_rsa(bits: bytes) -> RSAPublicKey:
    if bits[:1] != b"\x00":
        raise ValueError("the key does not fill whole bytes")
    numbers = keys.RSAPublicKey.load(bits[1:], strict=True).native
    modulus, exponent = numbers["modulus"], numbers["public_exponent"]
    if not 0 < modulus.bit_length() <= MAX_RSA_BITS or exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise ValueError("modulus or exponent out of bounds")
    return RSAPublicNumbers(exponent, modulus).public_key()
