"""A secret on its way to one TPM and one process: what the quote that asks for it covers, and what the answer is.

Two locks, both of which the receiver has to open (docs/adr/0016-secrets.md): a credential for EK and AK, which only that
TPM gives out, and a key agreed with an ephemeral key of the process that asked, which is gone when that ends. Whoever
records the answer and takes over the machine later has the first and lacks the second.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.crypto.credential import Random, ephemeral_key, make_credential
from verifier.errors import MalformedInputError
from verifier.tcg.public import EccCurve, Public

ASKED: Final = b"vtpm-attest secret asked v1\0"
ANSWERED: Final = b"vtpm-attest secret answered v1\0"
KEY_SIZE: Final = 32
REPLY_KEY_SIZE: Final = 65
"""An uncompressed point of P-256 (SEC 1, section 2.3.3)."""
NONCE: Final = bytes(12)
"""Of AES-GCM: no key is used a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Which release an answer belongs to: it opens as the answer to this one alone."""

    asked: bytes
    """What was quoted: see `asked`."""
    attester_id: str
    sequence: int
    """Of the verdict it was released on."""
    revision: int
    """Of the secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """What to send: useless without the TPM, and without the process that asked."""

    credential_blob: bytes
    """TPM2B_ID_OBJECT."""
    encrypted_secret: bytes
    """TPM2B_ENCRYPTED_SECRET."""
    verifier_key: bytes
    """The verifier's ephemeral key, an uncompressed point of P-256."""
    ciphertext: bytes
    """AES-256-GCM with its tag at the end."""


def asked(nonce: bytes, name: str, reply_key: bytes) -> bytes:
    """What a quote has to be over that asks for the secret `name`, to be answered to `reply_key`.

    So the AK says itself what it asks for: a quote of an ordinary attestation releases nothing, one that asks for a
    secret asks for no other, and nobody on the way can have the answer encrypted to a key of its own.

    Args:
        nonce: of the challenge, 32 bytes.
        name: of the secret.
        reply_key: `REPLY_KEY_SIZE` bytes.
    """
    return hashlib.sha256(ASKED + nonce + reply_key + name.encode()).digest()


def read_reply_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """The key to answer to; raises `MalformedInputError` where it is no uncompressed point of P-256."""
    if len(point) != REPLY_KEY_SIZE:
        raise MalformedInputError("reply_key", 0, f"{len(point)} bytes, not {REPLY_KEY_SIZE}")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise MalformedInputError("reply_key", 0, f"not an uncompressed point of P-256: {error}") from error


def seal(
    secret: bytes,
    *,
    ek: Public,
    ak_name: bytes,
    reply_key: ec.EllipticCurvePublicKey,
    answer: Answer,
    random: Random,
) -> SealedSecret:
    """Encrypt `secret` so that only the TPM of `ek`, while it holds the AK, and the owner of `reply_key` can read it.

    Does not prove who made it: whoever knows the public keys can make another one. That the answer is the verifier's
    is TLS's to prove.

    Raises:
        UnsupportedError: an EK to which no credential can be made; see `make_credential`.
    """
    half = random(min(KEY_SIZE, ek.name_alg.size))
    made = make_credential(ek, ak_name, half, random)
    own = ephemeral_key(EccCurve.NIST_P256, random)
    point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    context = _context(answer, point)
    key = _key(half, own.exchange(ec.ECDH(), reply_key), context)
    return SealedSecret(
        credential_blob=made.credential_blob,
        encrypted_secret=made.encrypted_secret,
        verifier_key=point,
        ciphertext=AESGCM(key).encrypt(NONCE, secret, context),
    )


def _context(answer: Answer, verifier_key: bytes) -> bytes:
    """Everything before the id has a fixed length, so no two answers have one context."""
    numbers = answer.sequence.to_bytes(8, "big") + answer.revision.to_bytes(8, "big")
    return hashlib.sha256(
        ANSWERED + answer.asked + verifier_key + numbers + answer.attester_id.encode()
    ).digest()


def _key(half: bytes, shared: bytes, context: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=context).derive(half + shared)
