"""TPM2B_PUBLIC (TPM 2.0 Library Specification, Part 2, section 12.2): what a key is and may do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from verifier.errors import UnsupportedError
from verifier.tcg import algorithms as alg
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.reader import Reader

STRUCTURE: Final = "TPM2B_PUBLIC"
_MAX_DIGEST: Final = 64
_RSA_KEY_BITS: Final = (2048, 3072, 4096)
_AES_KEY_BITS: Final = (128, 192, 256)
_DEFAULT_EXPONENT: Final = 65537
_MIN_EXPONENT: Final = 65537

_TPM_ALG_ECDH: Final = 0x0019
_RSA_SCHEMES: Final = frozenset({alg.TPM_ALG_RSASSA, alg.TPM_ALG_RSAPSS, alg.TPM_ALG_OAEP})
_ECC_SCHEMES: Final = frozenset({alg.TPM_ALG_ECDSA, _TPM_ALG_ECDH})
_KDF_SCHEMES: Final = frozenset({0x0007, 0x0020, 0x0021, 0x0022})
"""TPM_ALG_MGF1, KDF1_SP800_56A, KDF2, KDF1_SP800_108."""


class ObjectAttributes(enum.IntFlag):
    """TPMA_OBJECT (Part 2, section 8.3). Bits not named here are kept as they came."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    FIRMWARE_LIMITED = 1 << 8
    SVN_LIMITED = 1 << 9
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_LABELS: Final = {
    int(ObjectAttributes.RESTRICTED): "restricted",
    int(ObjectAttributes.FIXED_TPM): "fixedTPM",
    int(ObjectAttributes.FIXED_PARENT): "fixedParent",
    int(ObjectAttributes.DECRYPT): "decrypt",
    int(ObjectAttributes.SIGN): "sign",
    int(ObjectAttributes.SENSITIVE_DATA_ORIGIN): "sensitiveDataOrigin",
}
"""As Part 2 writes them, in the order in which they are missed."""
_BOUND_TO_TPM: Final = (
    ObjectAttributes.RESTRICTED | ObjectAttributes.FIXED_TPM | ObjectAttributes.FIXED_PARENT
)
_OF_AK: Final = _BOUND_TO_TPM | ObjectAttributes.SIGN | ObjectAttributes.SENSITIVE_DATA_ORIGIN
_OF_EK: Final = _BOUND_TO_TPM | ObjectAttributes.DECRYPT


class EccCurve(enum.Enum):
    """TPM_ECC_CURVE (Part 2, section 6.4): its id, coordinate size in bytes and name."""

    NIST_P256 = (0x0003, 32, "P-256")
    NIST_P384 = (0x0004, 48, "P-384")
    NIST_P521 = (0x0005, 66, "P-521")

    def __init__(self, tpm_id: int, size: int, label: str) -> None:
        self.tpm_id = tpm_id
        self.size = size
        self.label = label


_CURVE_BY_ID: Final = {curve.tpm_id: curve for curve in EccCurve}


@dataclass(frozen=True, slots=True)
class SymmetricDef:
    """TPMT_SYM_DEF_OBJECT (Part 2, section 11.1.7): the cipher that a storage key protects its children with.

    `algorithm` and `mode` are TPM_ALG_IDs, `key_bits` counts bits.
    """

    algorithm: int
    key_bits: int
    mode: int


@dataclass(frozen=True, slots=True)
class KeyScheme:
    """The scheme a key is tied to: a TPM_ALG_ID and its hash (None for RSAES, which has none)."""

    algorithm: int
    hash_alg: HashAlg | None


@dataclass(frozen=True, slots=True)
class RsaParams:
    """TPMS_RSA_PARMS and its unique field. `exponent` is 65537 where the TPM says 0 for its default."""

    symmetric: SymmetricDef | None
    scheme: KeyScheme | None
    key_bits: int
    exponent: int
    modulus: int


@dataclass(frozen=True, slots=True)
class EccParams:
    """TPMS_ECC_PARMS and its unique field. The point is not yet known to be on the curve."""

    symmetric: SymmetricDef | None
    scheme: KeyScheme | None
    curve: EccCurve
    kdf: KeyScheme | None
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Public:
    """TPMT_PUBLIC of an asymmetric key. Proves nothing of where the private key is.

    The attributes are what the sender says; only a TPM that was made to use the *name* (activation of a
    credential by a proven EK) vouches for them.

    Attributes:
        type_alg: TPM_ALG_RSA or TPM_ALG_ECC.
        name_alg: hash of the name.
        attributes: TPMA_OBJECT.
        auth_policy: policy digest, may be empty.
        rsa: parameters and modulus of an RSA key, else None.
        ecc: parameters and point of an ECC key, else None.
        area: the marshalled TPMT_PUBLIC, as it came.
    """

    type_alg: int
    name_alg: HashAlg
    attributes: ObjectAttributes
    auth_policy: bytes
    rsa: RsaParams | None
    ecc: EccParams | None
    area: bytes

    @property
    def name(self) -> bytes:
        """The object's name: nameAlg, big-endian, and the digest of the area (Part 1, section 16)."""
        return self.name_alg.tpm_id.to_bytes(2, "big") + self.name_alg.digest(self.area)

    @property
    def scheme(self) -> KeyScheme | None:
        """The scheme the key is tied to, or None for a key that may use any."""
        return self.rsa.scheme if self.rsa else self.ecc.scheme if self.ecc else None

    @property
    def symmetric(self) -> SymmetricDef | None:
        """The cipher of a storage key, or None."""
        return self.rsa.symmetric if self.rsa else self.ecc.symmetric if self.ecc else None


def parse_public(tpm2b: bytes) -> Public:
    """Parse a TPM2B_PUBLIC of an RSA or ECC key, size prefix included; no trailing bytes.

    Args:
        tpm2b: the structure, big-endian.

    Raises:
        MalformedInputError: not such a structure, or a number that no TPM key has. Offsets count from the
            size prefix.
        UnsupportedError: a type, curve, key size, cipher, scheme or hash this verifier does not judge.
    """
    reader = Reader(tpm2b, STRUCTURE)
    size = reader.u16("size")
    if size != reader.remaining:
        raise reader.error(f"size {size}, but {reader.remaining} bytes follow", offset=0)
    type_alg = reader.u16("type")
    if type_alg not in (alg.TPM_ALG_RSA, alg.TPM_ALG_ECC):
        raise UnsupportedError(
            f"object type 0x{type_alg:04x} is not supported", structure=STRUCTURE, offset=2
        )
    name_alg = _read_hash(reader, "nameAlg")
    attributes = ObjectAttributes(reader.u32("objectAttributes"))
    auth_policy = reader.sized_u16("authPolicy", limit=_MAX_DIGEST)
    rsa = _read_rsa(reader) if type_alg == alg.TPM_ALG_RSA else None
    ecc = _read_ecc(reader) if type_alg == alg.TPM_ALG_ECC else None
    reader.finish()
    return Public(type_alg, name_alg, attributes, auth_policy, rsa, ecc, tpm2b[2:])


def ak_attribute_problems(public: Public) -> tuple[str, ...]:
    """Why this key must not be an attestation key; empty when it may be.

    Empty proves that a TPM which really holds an object of this *name* signs nothing with it but structures
    of its own making. It does not prove that a TPM holds it: that takes credential activation.
    """
    problems = _attribute_problems(public, required=_OF_AK, forbidden=ObjectAttributes.DECRYPT)
    if public.name_alg is HashAlg.SHA1:
        # Activation proves the name alone. Two areas of one SHA-1 name can be made: an external key to be
        # loaded into a real TPM, and this one with the attributes it could never be loaded with.
        problems.append("its name is a SHA-1 digest, for which collisions can be made")
    if public.scheme is None:
        problems.append("it has no signing scheme, which every restricted signing key has")
    return tuple(problems)


def ek_attribute_problems(public: Public) -> tuple[str, ...]:
    """Why this key must not be an endorsement key; empty when it may be (TCG EK Credential Profile).

    Empty does not prove that it is one: that takes its certificate, an inventory or an operator.
    """
    return tuple(_attribute_problems(public, required=_OF_EK, forbidden=ObjectAttributes.SIGN))


def _attribute_problems(
    public: Public, *, required: ObjectAttributes, forbidden: ObjectAttributes
) -> list[str]:
    bits, needed, barred = int(public.attributes), int(required), int(forbidden)
    if bits & (needed | barred) == needed:  # asked at every attestation
        return []
    problems = [f"{label} is not set" for bit, label in _LABELS.items() if bit & needed and not bits & bit]
    if bits & barred:
        problems.append(f"{_LABELS[barred]} is set")
    return problems


def _read_hash(reader: Reader, what: str) -> HashAlg:
    start = reader.offset
    hash_alg = HASH_BY_ID.get(hash_id := reader.u16(what))
    if hash_alg is None:
        raise UnsupportedError(
            f"{what} 0x{hash_id:04x} is not supported", structure=reader.structure, offset=start
        )
    return hash_alg


def _read_symmetric(reader: Reader) -> SymmetricDef | None:
    start = reader.offset
    algorithm = reader.u16("symmetric algorithm")
    if algorithm == alg.TPM_ALG_NULL:
        return None
    if algorithm != alg.TPM_ALG_AES:
        raise UnsupportedError(
            f"symmetric algorithm 0x{algorithm:04x} is not supported", structure=STRUCTURE, offset=start
        )
    key_bits = reader.u16("symmetric keyBits")
    if key_bits not in _AES_KEY_BITS:
        raise UnsupportedError(
            f"AES with a key of {key_bits} bits is not supported", structure=STRUCTURE, offset=start + 2
        )
    return SymmetricDef(algorithm, key_bits, reader.u16("symmetric mode"))


def _read_scheme(
    reader: Reader, what: str, hashed: frozenset[int], bare: int | None = None
) -> KeyScheme | None:
    start = reader.offset
    algorithm = reader.u16(what)
    if algorithm == alg.TPM_ALG_NULL:
        return None
    if algorithm == bare:
        return KeyScheme(algorithm, None)
    if algorithm not in hashed:
        raise UnsupportedError(
            f"{what} 0x{algorithm:04x} is not supported", structure=STRUCTURE, offset=start
        )
    return KeyScheme(algorithm, _read_hash(reader, f"hash of {what}"))


def _read_rsa(reader: Reader) -> RsaParams:
    symmetric = _read_symmetric(reader)
    scheme = _read_scheme(reader, "scheme", _RSA_SCHEMES, bare=alg.TPM_ALG_RSAES)
    start = reader.offset
    key_bits = reader.u16("keyBits")
    if key_bits not in _RSA_KEY_BITS:
        raise UnsupportedError(
            f"an RSA key of {key_bits} bits is not supported", structure=STRUCTURE, offset=start
        )
    start = reader.offset
    exponent = reader.u32("exponent") or _DEFAULT_EXPONENT
    if exponent < _MIN_EXPONENT or exponent % 2 == 0:
        raise UnsupportedError(
            f"an RSA exponent of {exponent} is not supported", structure=STRUCTURE, offset=start
        )
    start = reader.offset
    modulus = int.from_bytes(reader.sized_u16("modulus", limit=key_bits // 8), "big")
    if modulus.bit_length() != key_bits or modulus % 2 == 0:
        raise reader.error(f"the modulus is no odd number of {key_bits} bits", offset=start)
    return RsaParams(symmetric, scheme, key_bits, exponent, modulus)


def _read_ecc(reader: Reader) -> EccParams:
    symmetric = _read_symmetric(reader)
    scheme = _read_scheme(reader, "scheme", _ECC_SCHEMES)
    start = reader.offset
    curve = _CURVE_BY_ID.get(curve_id := reader.u16("curveID"))
    if curve is None:
        raise UnsupportedError(f"curve 0x{curve_id:04x} is not supported", structure=STRUCTURE, offset=start)
    kdf = _read_scheme(reader, "kdf", _KDF_SCHEMES)
    x = int.from_bytes(reader.sized_u16("x", limit=curve.size), "big")
    y = int.from_bytes(reader.sized_u16("y", limit=curve.size), "big")
    return EccParams(symmetric, scheme, curve, kdf, x, y)
