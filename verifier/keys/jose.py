"""ES256 tokens over a key that may live anywhere: compact JWS, COSE_Sign1, JWK."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import cbor2
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.errors import VerifierFault

COORDINATE: Final = 32
JWT_TYPE: Final = "eat+jwt"
CWT_TYPE: Final = "application/eat+cwt"
_COSE_SIGN1: Final = 18
_ALG, _KID, _TYPE = 1, 4, 16
_ES256: Final = -7
RawSign = Callable[[bytes], bytes]
"""ECDSA with P-256 and SHA-256 over a message: r || s, 32 bytes each, big-endian. May block."""


class SigningKey:
    """A key with its JWK, its `kid` (RFC 7638 thumbprint) and its protected headers, made once."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: RawSign) -> None:
        self.kid = thumbprint(public)
        self.jwk = jwk(public)
        self._sign = sign
        self._jose_header = b64(msgspec.json.encode({"alg": "ES256", "kid": self.kid, "typ": JWT_TYPE}))
        self._cose_header = cbor2.dumps({_ALG: _ES256, _KID: self.kid.encode(), _TYPE: CWT_TYPE})

    def jwt(self, claims: Mapping[str, object]) -> str:
        """Compact JWS (RFC 7515, section 7.1) over the claims as JSON."""
        signing_input = f"{self._jose_header}.{b64(msgspec.json.encode(claims))}"
        return f"{signing_input}.{b64(self._sign(signing_input.encode()))}"

    def cwt(self, claims: Mapping[object, object]) -> bytes:
        """Tagged COSE_Sign1 (RFC 9052, section 4.2) over the claims as CBOR; `kid` and type (RFC 9596) are protected."""
        payload = cbor2.dumps(claims)
        signed = cbor2.dumps(["Signature1", self._cose_header, b"", payload])
        signature = self._sign(signed)
        return cbor2.dumps(cbor2.CBORTag(_COSE_SIGN1, [self._cose_header, {}, payload, signature]))


def software_key(private: ec.EllipticCurvePrivateKey) -> SigningKey:
    """Over a key in memory."""

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256())))
        # RFC 7518, section 3.4, and RFC 9053, section 2.1: R || S.
        return r.to_bytes(COORDINATE, "big") + s.to_bytes(COORDINATE, "big")

    return SigningKey(private.public_key(), sign)


def jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The public key as a JWK (RFC 7517) for verifying ES256."""
    return {**_members(key), "kid": thumbprint(key), "alg": "ES256", "use": "sig"}


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """JWK thumbprint (RFC 7638): SHA-256 of the required members in lexical order, base64url."""
    return b64(hashlib.sha256(msgspec.json.encode(_members(key))).digest())


def p256(key: object, where: object) -> ec.EllipticCurvePublicKey:
    """The key as a P-256 public key.

    Raises:
        VerifierFault: it is another kind of key; names `where`.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerifierFault(
            f"{where} is not a P-256 key; make one with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        )
    return key


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _members(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": b64(numbers.x.to_bytes(COORDINATE, "big")),
        "y": b64(numbers.y.to_bytes(COORDINATE, "big")),
    }
