"""TPM public areas as keys of `cryptography`, and their fingerprints."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.errors import MalformedInputError
from verifier.tcg.public import EccCurve, EccParams, Public, RsaParams, parse_public

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

CURVES: Final[dict[EccCurve, ec.EllipticCurve]] = {
    EccCurve.NIST_P256: ec.SECP256R1(),
    EccCurve.NIST_P384: ec.SECP384R1(),
    EccCurve.NIST_P521: ec.SECP521R1(),
}


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A public area with its key ready for use and its name. As unproven as the bytes it came from."""

    public: Public
    key: PublicKey
    name: bytes


def public_key(public: Public) -> PublicKey:
    """The key of a public area.

    Proves that the numbers are a usable key (an ECC point lies on its curve), not whose key it is.

    Raises:
        MalformedInputError: they are not.
    """
    if public.rsa is not None:
        return _rsa_key(public.rsa)
    assert public.ecc is not None  # noqa: S101 - parse_public makes nothing else; tells mypy so
    return _ecc_key(public.ecc)


def _rsa_key(params: RsaParams) -> rsa.RSAPublicKey:
    try:
        return rsa.RSAPublicNumbers(params.exponent, params.modulus).public_key()
    except ValueError as error:
        raise MalformedInputError("TPM2B_PUBLIC_KEY_RSA", 0, str(error)) from error


def _ecc_key(params: EccParams) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicNumbers(params.x, params.y, CURVES[params.curve]).public_key()
    except ValueError as error:
        detail = f"the point is not on {params.curve.label}"
        raise MalformedInputError("TPMS_ECC_POINT", 0, detail) from error


@lru_cache(maxsize=4096)
def load_key(tpm2b: bytes) -> LoadedKey:
    """`parse_public` and `public_key` in one, remembered: a steady attester's key is made once.

    A function of the bytes alone, so remembering it changes no answer. An entry takes 2.7 KB and saves 12 us, so the
    bound is 11 MB; of a larger fleet each attestation costs that much more, while all keys of 100,000 machines would
    take 270 MB. Raises as `parse_public` and `public_key` do; errors are not remembered.
    """
    public = parse_public(tpm2b)
    return LoadedKey(public, public_key(public), public.name)


def spki_der(public: Public) -> bytes:
    """SubjectPublicKeyInfo of the key, DER: what a certificate of it contains. Raises as `public_key`."""
    return public_key(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public: Public) -> bytes:
    """SHA-256 of `spki_der`: names the key whatever template or certificate it comes with."""
    return hashlib.sha256(spki_der(public)).digest()
