"""A `TokenSigner` over a key that an operator chose: a PEM file, or a key in a PKCS#11 token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, unreadable
from verifier.keys.jose import SigningKey, jwk, p256, software_key
from verifier.keys.pem import read_p256
from verifier.keys.pkcs11 import SCHEME, open_key
from verifier.refusals import REFUSALS


class FixedSigner:
    """Signs with one key and publishes further ones beside it: those of before, or those to come.

    Rotation is the operator's: name the next key among the published ones, wait until relying parties have read
    the key set again, make it the signing key, and leave the old one published for as long as its EARs are good.
    """

    def __init__(self, key: SigningKey, published: Sequence[Mapping[str, str]], *, blocks: bool) -> None:
        self._key = key
        self._jwks = {"keys": [key.jwk, *(one for one in published if one["kid"] != key.kid)]}
        self._blocks = blocks

    async def sign_jwt(self, claims: Mapping[str, object]) -> str:
        """Compact JWS over `claims`."""
        return await asyncio.to_thread(self._key.jwt, claims) if self._blocks else self._key.jwt(claims)

    async def sign_cwt(self, claims: Mapping[object, object]) -> bytes:
        """Tagged COSE_Sign1 over `claims`."""
        return await asyncio.to_thread(self._key.cwt, claims) if self._blocks else self._key.cwt(claims)

    def jwks(self) -> Mapping[str, object]:
        """The signing key and the published ones."""
        return self._jwks


def open_fixed(key: str, published: Sequence[Path]) -> FixedSigner:
    """The signer for `ear.key`: a PEM file with a P-256 private key, or a `pkcs11:` URI.

    Raises:
        VerifierFault: a key cannot be used.
    """
    others = [jwk(_public(path)) for path in published]
    if key.partition(":")[0].lower() == SCHEME:
        return FixedSigner(open_key(key), others, blocks=True)
    return FixedSigner(software_key(_private(Path(key))), others, blocks=False)


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        return read_p256(path)
    except VerifierFault as error:
        raise VerifierFault(f"ear.key: {error}") from error


def _public(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        return p256(load_pem_public_key(path.read_bytes()), path)
    except OSError as error:
        raise VerifierFault(f"ear.published_keys: {unreadable(path, error)}") from error
    except REFUSALS as error:
        raise VerifierFault(f"ear.published_keys: {path} is not a PEM public key; {RESTORE}") from error
