"""Keys that must not endorse anything, whoever certified them."""

from __future__ import annotations

import functools
import math
from typing import Final, assert_never

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from verifier.crypto.keys import PublicKey

MIN_RSA_BITS: Final = 2048
_CURVES: Final = frozenset(
    {"secp256r1", "secp384r1", "secp521r1", "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"}
)

_ROCA_GENERATOR: Final = 65537
_ROCA_LARGEST_PRIME: Final = 167
"""The primes up to it divide the primorial of every key size the faulty library made (512 to 4096 bits)."""


def weakness(key: PublicKey) -> str | None:
    """Why this key must not be trusted, or None.

    None does not prove that the key is strong: only that it is large enough, on a usual curve, and not from
    the key generator of CVE-2017-15361 (ROCA).
    """
    match key:
        case RSAPublicKey():
            return _rsa_weakness(key)
        case EllipticCurvePublicKey():
            if key.curve.name in _CURVES:
                return None
            return f"a key on curve {key.curve.name}, which is too weak or unusual"
        case _:
            assert_never(key)


def _rsa_weakness(key: RSAPublicKey) -> str | None:
    if key.key_size < MIN_RSA_BITS:
        return f"an RSA key of {key.key_size} bits; at least {MIN_RSA_BITS} are required"
    if has_roca_fingerprint(key.public_numbers().n):
        return "a key of the generator of CVE-2017-15361 (ROCA), whose private part can be computed"
    return None


@functools.cache
def _roca_residues() -> tuple[int, tuple[tuple[int, frozenset[int]], ...]]:
    """Product of the primes, and for each the residues that powers of the generator can have."""
    primes = [n for n in range(2, _ROCA_LARGEST_PRIME + 1) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    table = []
    for prime in primes:
        powers = frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime))
        if len(powers) < prime - 1:
            table.append((prime, powers))
    return math.prod(prime for prime, _ in table), tuple(table)


def has_roca_fingerprint(modulus: int) -> bool:
    """True when every residue of the modulus is a power of 65537.

    The faulty library makes primes k*M + (65537^a mod M), M a primorial, so their product has this form
    (Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, section 2). About one sound modulus in
    2^27 has it too.
    """
    product, table = _roca_residues()
    rest = modulus % product
    return all(rest % prime in powers for prime, powers in table)
