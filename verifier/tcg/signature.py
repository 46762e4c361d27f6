"""TPMT_SIGNATURE (TPM 2.0 Library Specification, Part 2, section 11.3)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import HASH_BY_ID, TPM_ALG_ECDSA, TPM_ALG_RSAPSS, TPM_ALG_RSASSA, HashAlg
from verifier.tcg.reader import Reader

STRUCTURE: Final = "TPMT_SIGNATURE"
_MAX_RSA: Final = 512
_MAX_ECC_PARAMETER: Final = 66
# The layouts nearly every quote has: RSA-2048, and ECDSA with two numbers of 32 bytes.
_RSA_2048: Final = struct.Struct(">HHH256s")
_ECDSA_256: Final = struct.Struct(">HHH32sH32s")


class RsaScheme(enum.Enum):
    """RSA signing schemes, by TPM_ALG_ID."""

    RSASSA = TPM_ALG_RSASSA
    RSAPSS = TPM_ALG_RSAPSS


_RSA_SCHEMES: Final = {scheme.value: scheme for scheme in RsaScheme}


class RsaSignature(Struct, frozen=True):
    """TPMS_SIGNATURE_RSASSA or TPMS_SIGNATURE_RSAPSS; `signature` is a big-endian number."""

    scheme: RsaScheme
    hash_alg: HashAlg
    signature: bytes


class EcdsaSignature(Struct, frozen=True):
    """TPMS_SIGNATURE_ECDSA; the numbers are as sent, of any value."""

    hash_alg: HashAlg
    r: int
    s: int


def parse_signature(tpmt: bytes) -> RsaSignature | EcdsaSignature:
    """Parse a TPMT_SIGNATURE; no trailing bytes. Proves nothing: verify it with the key it should be of.

    Args:
        tpmt: the structure, big-endian, without a size prefix.

    Raises:
        MalformedInputError: not such a structure.
        UnsupportedError: neither RSASSA, RSAPSS nor ECDSA, or an unknown hash algorithm.
    """
    ordinary = _ORDINARY.get(len(tpmt))
    signature = None if ordinary is None else ordinary(tpmt)
    return signature or _parse_any(tpmt)


def _parse_rsa_2048(tpmt: bytes) -> RsaSignature | None:
    """One unpacking for the layout above; None hands over to the reader, which knows where a fault is."""
    algorithm, hash_id, size, signature = _RSA_2048.unpack(tpmt)
    scheme = _RSA_SCHEMES.get(algorithm)
    hash_alg = HASH_BY_ID.get(hash_id)
    if scheme is None or hash_alg is None or size != len(signature):
        return None
    return RsaSignature(scheme, hash_alg, signature)


def _parse_ecdsa_256(tpmt: bytes) -> EcdsaSignature | None:
    """Likewise."""
    algorithm, hash_id, size_r, r, size_s, s = _ECDSA_256.unpack(tpmt)
    hash_alg = HASH_BY_ID.get(hash_id)
    if algorithm != TPM_ALG_ECDSA or hash_alg is None or size_r != len(r) or size_s != len(s):
        return None
    return EcdsaSignature(hash_alg, int.from_bytes(r, "big"), int.from_bytes(s, "big"))


_ORDINARY: Final[dict[int, Callable[[bytes], RsaSignature | EcdsaSignature | None]]] = {
    _RSA_2048.size: _parse_rsa_2048,
    _ECDSA_256.size: _parse_ecdsa_256,
}


def _parse_any(tpmt: bytes) -> RsaSignature | EcdsaSignature:
    reader = Reader(tpmt, STRUCTURE)
    algorithm = reader.u16("sigAlg")
    scheme = _RSA_SCHEMES.get(algorithm)
    if scheme is None and algorithm != TPM_ALG_ECDSA:
        detail = f"signature algorithm 0x{algorithm:04x} is not supported"
        raise UnsupportedError(detail, structure=STRUCTURE, offset=0)
    hash_alg = HASH_BY_ID.get(hash_id := reader.u16("hash"))
    if hash_alg is None:
        raise UnsupportedError(
            f"hash algorithm 0x{hash_id:04x} is not supported", structure=STRUCTURE, offset=2
        )
    if scheme is None:
        r = int.from_bytes(reader.sized_u16("signatureR", limit=_MAX_ECC_PARAMETER), "big")
        s = int.from_bytes(reader.sized_u16("signatureS", limit=_MAX_ECC_PARAMETER), "big")
        reader.finish()
        return EcdsaSignature(hash_alg, r, s)
    signature = reader.sized_u16("sig", limit=_MAX_RSA)
    reader.finish()
    return RsaSignature(scheme, hash_alg, signature)
