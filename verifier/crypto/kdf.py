"""The TPM's key derivation functions (TPM 2.0 Library Specification, Part 1, section 11.4.10)."""

from __future__ import annotations

import hmac

from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import HashAlg


def kdfa(hash_alg: HashAlg, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa: SP 800-108 in counter mode with HMAC.

    Args:
        hash_alg: hash of the HMAC.
        key: secret.
        label: without its terminating zero.
        context: contextU and contextV, joined.
        bits: size of the result, a multiple of 8.

    Returns:
        `bits // 8` bytes.
    """
    tail = label + b"\0" + context + bits.to_bytes(4, "big")
    new = available(hash_alg)
    size = bits // 8
    result = b""
    counter = 1
    while len(result) < size:
        result += hmac.digest(key, counter.to_bytes(4, "big") + tail, new)
        counter += 1
    return result[:size]


def kdfe(hash_alg: HashAlg, z: bytes, use: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """KDFe: the concatenation KDF of SP 800-56A, for as many bits as `hash_alg` has.

    Args:
        hash_alg: hash.
        z: x coordinate of the shared point, as long as the curve's field.
        use: without its terminating zero.
        party_u: x coordinate of the ephemeral key.
        party_v: x coordinate of the static key.
    """
    available(hash_alg)
    return hash_alg.digest((1).to_bytes(4, "big") + z + use + b"\0" + party_u + party_v)


def available(hash_alg: HashAlg) -> str:
    """The `hashlib` name of `hash_alg`; raises `UnsupportedError` where this build lacks it."""
    if hash_alg.new is None:
        raise UnsupportedError(f"hash {hash_alg.label} is not available in this build")
    return hash_alg.label
