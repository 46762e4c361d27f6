"""Keys that endorse nothing, whoever certified them."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests import pki
from tests.simulator.keys import private_key
from verifier.crypto.ek import TrustAnchors, validate_ek
from verifier.crypto.weak_keys import has_roca_fingerprint, weakness
from verifier.errors import RefusedError
from verifier.reasons import Reason

_PUBLISHED_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
"""Primes at which the published detectors of CVE-2017-15361 look."""


def is_prime(n: int) -> bool:
    return all(pow(base, n - 1, n) == 1 for base in (2, 3, 5, 7, 11))


def faulty_prime(bits: int, exponent: int) -> int:
    """k*M + (65537^a mod M), M the product of the first 126 primes: as the faulty library makes one for 2048 bits."""
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    product = math.prod(primes)
    assert len(primes) == 126
    residue = pow(65537, exponent, product)
    first = (3 << (bits - 2)) // product
    return next(n for k in itertools.count(first) if is_prime(n := k * product + residue))


@functools.cache
def faulty_modulus() -> int:
    return faulty_prime(1024, 3) * faulty_prime(1024, 5000)


def public(modulus: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def test_roca_key_is_recognised_and_refused():
    modulus = faulty_modulus()
    assert has_roca_fingerprint(modulus)
    root = pki.Ca.root()
    with pytest.raises(RefusedError, match="CVE-2017-15361") as caught:
        validate_ek(
            root.ek(public(modulus)), anchors=TrustAnchors.from_der([root.der]), ek_public=None, now=pki.NOW
        )
    assert caught.value.reason is Reason.EK_CERTIFICATE_PROFILE


def test_sound_keys_are_not_taken_for_roca():
    for n in range(3):
        assert not has_roca_fingerprint(
            private_key("rsa2048", f"pki sound {n}").public_key().public_numbers().n
        )


@pytest.mark.parametrize("prime", _PUBLISHED_PRIMES)
def test_each_prime_alone_clears_a_key(prime):
    """A modulus that fits at every prime but one is not of the faulty generator."""
    modulus = faulty_modulus()
    powers = {pow(65537, exponent, prime) for exponent in range(prime)}
    product = math.prod(
        n for n in range(2, 168) if all(n % d for d in range(2, math.isqrt(n) + 1)) and n != prime
    )
    cleared = next(
        modulus + n * product for n in itertools.count(1) if (modulus + n * product) % prime not in powers
    )
    assert not has_roca_fingerprint(cleared)


def test_small_rsa():
    modulus = private_key("rsa1024", "pki small").public_key().public_numbers().n
    assert "1024 bits" in weakness(public(modulus))
    strong = private_key("rsa2048", "pki sound 0").public_key().public_numbers().n
    assert weakness(public(strong)) is None
    assert "2047 bits" in weakness(public(strong >> 1 | 1))


def test_a_small_exponent_is_no_weakness_of_an_encryption_key_with_padding():
    strong = private_key("rsa2048", "pki sound 0").public_key().public_numbers().n
    assert weakness(public(strong, 3)) is None


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.BrainpoolP256R1()])
def test_usual_curves(curve):
    assert weakness(ec.generate_private_key(curve).public_key()) is None


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP256K1()])
def test_other_curves(curve):
    assert curve.name in weakness(ec.generate_private_key(curve).public_key())
