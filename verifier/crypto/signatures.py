"""Signatures of TPM keys."""

from __future__ import annotations

from functools import cache
from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.exceptions import UnsupportedAlgorithm as LibraryLacksAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from verifier.crypto.keys import PublicKey
from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import TPM_ALG_ECDSA, HashAlg
from verifier.tcg.public import Public
from verifier.tcg.signature import EcdsaSignature, RsaScheme, RsaSignature

HASHES: Final[dict[HashAlg, hashes.HashAlgorithm]] = {
    HashAlg.SHA1: hashes.SHA1(),  # noqa: S303 - verified when asked; whether it counts is the policy's business
    HashAlg.SHA256: hashes.SHA256(),
    HashAlg.SHA384: hashes.SHA384(),
    HashAlg.SHA512: hashes.SHA512(),
    HashAlg.SHA3_256: hashes.SHA3_256(),
    HashAlg.SHA3_384: hashes.SHA3_384(),
    HashAlg.SHA3_512: hashes.SHA3_512(),
}
_ECDSA: Final = {hash_alg: ec.ECDSA(algorithm) for hash_alg, algorithm in HASHES.items()}
_PKCS1V15: Final = padding.PKCS1v15()
# TPMs differ in salt length (digest size, or the largest that fits): both are valid under Part 1, annex B.7.
_PSS: Final = {
    hash_alg: padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO) for hash_alg, algorithm in HASHES.items()
}


def verify(key: PublicKey, signature: RsaSignature | EcdsaSignature, message: bytes) -> bool:
    """Whether `signature` is one of `key` over `message`.

    True proves that the holder of the private key signed exactly these bytes; not when, and not that the key
    is in a TPM. False: a bad signature, or one of another kind than the key. SHA-1 is computed like any
    other hash; refusing it is left to the caller's policy.

    Args:
        key: public key.
        signature: as parsed from a TPMT_SIGNATURE.
        message: the bytes signed (TPMS_ATTEST), not their digest.

    Raises:
        UnsupportedError: the hash algorithm is not available.
    """
    algorithm = HASHES.get(signature.hash_alg)
    if algorithm is None:
        raise _unsupported(signature.hash_alg)
    try:
        if isinstance(signature, EcdsaSignature):
            return _is_ecc(type(key)) and _verify_ecdsa(
                cast("ec.EllipticCurvePublicKey", key), signature, message
            )
        return isinstance(key, rsa.RSAPublicKey) and _verify_rsa(key, signature, message, algorithm)
    except InvalidSignature:
        return False
    except LibraryLacksAlgorithm as error:
        raise _unsupported(signature.hash_alg) from error


@cache
def _is_ecc(kind: type) -> bool:
    """To ask an abstract class about each key takes a microsecond."""
    return issubclass(kind, ec.EllipticCurvePublicKey)


def _verify_ecdsa(key: ec.EllipticCurvePublicKey, signature: EcdsaSignature, message: bytes) -> bool:
    # r and s need no range check here: the library refuses 0 and whatever is not below the group order.
    key.verify(encode_dss_signature(signature.r, signature.s), message, _ECDSA[signature.hash_alg])
    return True


def _verify_rsa(
    key: rsa.RSAPublicKey, signature: RsaSignature, message: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    scheme = _PKCS1V15 if signature.scheme is RsaScheme.RSASSA else _PSS[signature.hash_alg]
    key.verify(signature.signature, message, scheme, algorithm)
    return True


def scheme_problems(public: Public, signature: RsaSignature | EcdsaSignature) -> tuple[str, ...]:
    """Where a signature departs from the scheme its key is tied to; empty when nothing does.

    A TPM cannot sign otherwise with a key that has a scheme, so a valid signature that departs was made
    elsewhere. A key without a scheme (no attestation key) is tied to nothing.
    """
    scheme = public.scheme
    if scheme is None:
        return ()
    used = TPM_ALG_ECDSA if isinstance(signature, EcdsaSignature) else signature.scheme.value
    problems: tuple[str, ...] = ()
    if used != scheme.algorithm:
        problems += (f"signed with scheme 0x{used:04x}, the key is tied to 0x{scheme.algorithm:04x}",)
    if scheme.hash_alg is not None and signature.hash_alg is not scheme.hash_alg:
        problems += (f"signed with {signature.hash_alg.label}, the key is tied to {scheme.hash_alg.label}",)
    return problems


def _unsupported(hash_alg: HashAlg) -> UnsupportedError:
    return UnsupportedError(f"signatures with {hash_alg.label} are not supported", structure="TPMT_SIGNATURE")
