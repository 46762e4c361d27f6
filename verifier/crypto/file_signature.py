"""Signatures of single files, as the kernel's IMA verifies them, and the ids of the keys that make them."""

from __future__ import annotations

import enum
import hashlib
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from verifier.crypto.keys import PublicKey
from verifier.crypto.weak_keys import weakness
from verifier.refusals import REFUSALS
from verifier.tcg.ima.signature import FileSignature

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
"""By kernel name. SHA-1 and MD5 are left out: files of one digest can be made, so a signature says too little."""


class Checked(enum.Enum):
    """What a signature is worth."""

    VALID = "valid"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    """Its hash is too weak or unknown, or the key is of a kind that is not judged."""


def check_file_signature(public: bytes, signature: FileSignature, digest: bytes) -> Checked:
    """Whether `signature` is one of a file (or fs-verity) digest by a key.

    Proves, where VALID, that the holder of the key signed this digest; not for which path.

    Args:
        public: SubjectPublicKeyInfo, DER.
        signature: as parsed; its algorithm must be that of `digest`.
        digest: of the file, by `signature.algorithm`.
    """
    algorithm = _HASHES.get(signature.algorithm)
    key = _key(public)
    if algorithm is None or key is None:
        return Checked.UNSUPPORTED
    if len(digest) != algorithm.digest_size:
        return Checked.INVALID
    signed = signature.signed(digest)
    if signed is not None:
        hasher = hashes.Hash(algorithm)
        hasher.update(signed)
        digest = hasher.finalize()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.raw, digest, padding.PKCS1v15(), Prehashed(algorithm))
        else:
            key.verify(signature.raw, digest, ec.ECDSA(Prehashed(algorithm)))
    except InvalidSignature:
        return Checked.INVALID
    except UnsupportedAlgorithm:
        return Checked.UNSUPPORTED
    return Checked.VALID


@lru_cache(maxsize=256)
def _key(public: bytes) -> PublicKey | None:
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        return None
    return None if weakness(key) else key


def key_of_certificate(der: bytes) -> tuple[bytes, bytes, str] | None:
    """Key id (4 bytes), SubjectPublicKeyInfo (DER) and subject of a certificate; None where it is none.

    The id is what the kernel looks a key up by: the end of the subject key identifier, or of the SHA-1 of the key
    where there is none.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        try:
            identifier = certificate.extensions.get_extension_for_class(
                x509.SubjectKeyIdentifier
            ).value.digest
        except x509.ExtensionNotFound:
            identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
        return identifier[-4:], public, certificate.subject.rfc4514_string()
    except REFUSALS:
        return None


def kernel_digest(algorithm: str, data: bytes) -> bytes | None:
    """Digest by the kernel's name of a hash; None where this build lacks it."""
    name = {"rmd160": "ripemd160", "sm3-256": "sm3"}.get(algorithm, algorithm).replace("-", "_")
    try:
        return hashlib.new(name, data, usedforsecurity=False).digest()
    except (ValueError, TypeError):
        return None
