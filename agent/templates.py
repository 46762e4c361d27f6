"""Key templates and public areas as bytes: EK templates, AK templates, EK policies, and reading a public area.

Pure: bytes in, bytes out, no TPM. Numbers are big-endian as in the TPM 2.0 Library Specification, Part 2.
EK templates and policies are those of the TCG EK Credential Profile for TPM Family 2.0, version 2.5, annex B
(low range: B.3; high range: B.4; policies: B.6). The policy digests are computed here rather than quoted, and
a test holds them against the profile's constants.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from typing import Final

from msgspec import Struct

ALG_RSA: Final = 0x0001
ALG_AES: Final = 0x0006
ALG_NULL: Final = 0x0010
ALG_RSASSA: Final = 0x0014
ALG_ECDSA: Final = 0x0018
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043
CURVES: Final = {0x0003: 256, 0x0004: 384, 0x0005: 521}
"""TPM_ECC_CURVE to bits, NIST prime curves."""
HASHES: Final = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
"""TPM_ALG_ID to the name used for banks on the wire and by `hashlib`."""
HASH_IDS: Final = {name: alg for alg, name in HASHES.items()}

_CC_POLICY_SECRET: Final = 0x00000151
_CC_POLICY_OR: Final = 0x00000171
_RH_ENDORSEMENT: Final = 0x4000000B


class Attribute(enum.IntFlag):
    """TPMA_OBJECT bits used here."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


_OURS: Final = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN
_EK_LOW: Final = _OURS | Attribute.ADMIN_WITH_POLICY | Attribute.RESTRICTED | Attribute.DECRYPT
_EK_HIGH: Final = _EK_LOW | Attribute.USER_WITH_AUTH
# noDA: an AK has no secret to guess, and a TPM in lockout must still be able to attest.
_AK: Final = _OURS | Attribute.USER_WITH_AUTH | Attribute.NO_DA | Attribute.RESTRICTED | Attribute.SIGN

# Digest of PolicyAuthorizeNV over the profile's policy index (0x01c07f01..03): the second branch of the high
# range's policy. It depends on that index's public area and is quoted from EK Credential Profile 2.5, B.6.3.
_POLICY_NV: Final = {
    "sha256": "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde",
    "sha384": "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165",
    "sha512": (
        "589ee1e146544716e8deafe6db247b01b81e9f9c7dd16b814aa159138749105f"
        "ba5388dd1dea702f35240c184933121e2c61b8f50d3ef91393a49a38c3f73fc8"
    ),
}


class TemplateError(ValueError):
    """Bytes that are not a public area this agent can use."""


class PublicArea(Struct, frozen=True):
    """What the agent needs to know of a TPMT_PUBLIC. Nothing here is checked for trust: that is the verifier's.

    Attributes:
        kind: TPM_ALG_RSA or TPM_ALG_ECC.
        name_alg: `hashlib` name of the name algorithm.
        attributes: TPMA_OBJECT.
        auth_policy: policy digest, empty if none.
        key: RSA modulus, or the two coordinates, big-endian without leading zeros.
    """

    kind: int
    name_alg: str
    attributes: int
    auth_policy: bytes
    key: tuple[bytes, ...]


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _hash(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def policy_secret_digest(name_alg: str) -> bytes:
    """PolicySecret(TPM_RH_ENDORSEMENT): the whole policy of low-range EKs, one branch of high-range ones."""
    zero = bytes(hashlib.new(name_alg).digest_size)
    return _hash(name_alg, _hash(name_alg, zero + struct.pack(">II", _CC_POLICY_SECRET, _RH_ENDORSEMENT)))


def policy_or_branches(name_alg: str) -> tuple[bytes, bytes]:
    """The branches of a high-range EK's PolicyOR, in the profile's order."""
    return policy_secret_digest(name_alg), bytes.fromhex(_POLICY_NV[name_alg])


def policy_or_digest(name_alg: str) -> bytes:
    """AuthPolicy of a high-range EK."""
    branches = policy_or_branches(name_alg)
    zero = bytes(len(branches[0]))
    return _hash(name_alg, zero + struct.pack(">I", _CC_POLICY_OR) + b"".join(branches))


def activation_branches(area: PublicArea) -> tuple[bytes, ...]:
    """What must follow PolicySecret to authorise an EK: () for nothing, or the branches of a PolicyOR.

    Raises:
        TemplateError: the EK has a policy of its own, which only its maker can satisfy.
    """
    if area.auth_policy == policy_secret_digest(area.name_alg):
        return ()
    if area.name_alg in _POLICY_NV and area.auth_policy == policy_or_digest(area.name_alg):
        return policy_or_branches(area.name_alg)
    raise TemplateError(
        f"EK policy {area.auth_policy.hex() or 'empty'} is none of the EK Credential Profile's"
    )


def _public(kind: int, name_alg: str, rules: tuple[int, bytes], parameters: bytes, unique: bytes) -> bytes:
    """A TPM2B_PUBLIC; `rules` are its attributes and policy digest."""
    attributes, policy = rules
    area = struct.pack(">HHI", kind, HASH_IDS[name_alg], attributes) + _sized(policy) + parameters + unique
    return _sized(area)


def _aes(bits: int) -> bytes:
    return struct.pack(">HHH", ALG_AES, bits, ALG_CFB)


def _rsa_ek(bits: int, name_alg: str, aes: int, *, low: bool) -> bytes:
    parameters = _aes(aes) + struct.pack(">HHI", ALG_NULL, bits, 0)
    unique = _sized(bytes(bits // 8)) if low else _sized(b"")
    return _public(ALG_RSA, name_alg, _ek_rules(name_alg, low=low), parameters, unique)


def _ecc_ek(curve: int, name_alg: str, aes: int, *, low: bool) -> bytes:
    parameters = _aes(aes) + struct.pack(">HHH", ALG_NULL, curve, ALG_NULL)
    coordinate = _sized(bytes(CURVES[curve] // 8)) if low else _sized(b"")
    return _public(ALG_ECC, name_alg, _ek_rules(name_alg, low=low), parameters, coordinate * 2)


def _ek_rules(name_alg: str, *, low: bool) -> tuple[int, bytes]:
    if low:
        return _EK_LOW, policy_secret_digest(name_alg)
    return _EK_HIGH, policy_or_digest(name_alg)


class EkSlot(Struct, frozen=True):
    """One EK of the profile: where its certificate lies in NV and how the key is made again.

    `template` is a TPM2B_PUBLIC, None where this agent can only pass the certificate on.
    """

    name: str
    certificate_index: int
    template_index: int
    nonce_index: int | None
    template: bytes | None


def _low(name: str, index: int, template: bytes) -> EkSlot:
    return EkSlot(name, index, index + 2, index + 1, template)


def _high(name: str, index: int, template: bytes | None) -> EkSlot:
    return EkSlot(name, index, index + 1, None, template)


EK_SLOTS: Final = (
    # In order of preference. Elliptic curves first: made in milliseconds where RSA takes up to seconds (CreatePrimary
    # searches the primes again), and every verifier that can judge the one can judge the other.
    _low("ecc-p256", 0x01C0000A, _ecc_ek(0x0003, "sha256", 128, low=True)),
    _high("ecc-p256-high", 0x01C00014, _ecc_ek(0x0003, "sha256", 128, low=False)),
    _high("ecc-p384-high", 0x01C00016, _ecc_ek(0x0004, "sha384", 256, low=False)),
    _high("ecc-p521-high", 0x01C00018, _ecc_ek(0x0005, "sha512", 256, low=False)),
    _low("rsa-2048", 0x01C00002, _rsa_ek(2048, "sha256", 128, low=True)),
    _high("rsa-2048-high", 0x01C00012, _rsa_ek(2048, "sha256", 128, low=False)),
    _high("rsa-3072-high", 0x01C0001C, _rsa_ek(3072, "sha384", 256, low=False)),
    _high("rsa-4096-high", 0x01C0001E, _rsa_ek(4096, "sha384", 256, low=False)),
    _high("sm2-p256-high", 0x01C0001A, None),
)
EK_CHAIN_RANGE: Final = range(0x01C00100, 0x01C00200)


class AkKind(enum.StrEnum):
    """Kinds of AK the agent can make."""

    ECC_P256 = "ecc-p256"
    RSA_2048 = "rsa-2048"


def ak_template(kind: AkKind, generation: int) -> bytes:
    """Template of the AK: a restricted signing primary, ECDSA P-256 or RSASSA 2048, both with SHA-256.

    `generation` goes into `unique`, so that a new number makes a new key and the same number the same key, on the
    same TPM, for ever: nothing secret needs storing (TPM 2.0 Part 1, section 26, primary key derivation).
    """
    seed = hashlib.sha256(b"vtpm-attest AK v1" + struct.pack(">I", generation)).digest()
    if kind is AkKind.ECC_P256:
        parameters = struct.pack(">HHHHH", ALG_NULL, ALG_ECDSA, HASH_IDS["sha256"], 0x0003, ALG_NULL)
        return _public(ALG_ECC, "sha256", (_AK, b""), parameters, _sized(seed) + _sized(bytes(32)))
    parameters = struct.pack(">HHHHI", ALG_NULL, ALG_RSASSA, HASH_IDS["sha256"], 2048, 0)
    return _public(ALG_RSA, "sha256", (_AK, b""), parameters, _sized(seed))


def name_of(public: bytes) -> bytes:
    """Name of an object: nameAlg and the digest of its public area (TPM 2.0 Part 1, section 16)."""
    area = parse_public(public)
    return struct.pack(">H", HASH_IDS[area.name_alg]) + _hash(area.name_alg, public[2:])


def normalised(template: bytes) -> bytes:
    """A template found in NV, as TPM2B_PUBLIC: the profile stores a TPMT_PUBLIC, some makers a TPM2B_PUBLIC."""
    if len(template) > 2 and int.from_bytes(template[:2]) == len(template) - 2:  # noqa: PLR2004 - a size field
        parse_public(template)
        return template
    public = _sized(template)
    parse_public(public)
    return public


def with_nonce(template: bytes, nonce: bytes) -> bytes:
    """A low-range template whose `unique` begins with the EK nonce, zero-padded (EK Credential Profile, B.3)."""
    area = parse_public(template)
    size = len(area.key[0])
    if len(nonce) > size:
        raise TemplateError(f"EK nonce of {len(nonce)} bytes does not fit {size}")
    first = _sized(nonce + bytes(size - len(nonce)))
    tail = first if area.kind == ALG_RSA else first + _sized(bytes(size))
    return template[: len(template) - len(tail)] + tail


class _Cursor:
    """Bounds-checked reading of a public area made by this machine's own TPM."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, count: int) -> bytes:
        end = self._offset + count
        if end > len(self._data):
            raise TemplateError(f"public area ends at byte {len(self._data)}, {end} needed")
        piece = self._data[self._offset : end]
        self._offset = end
        return piece

    def u16(self) -> int:
        return int.from_bytes(self.take(2))

    def sized(self) -> bytes:
        return self.take(self.u16())

    def scheme(self) -> None:
        """A TPMT scheme: its algorithm and, but for NULL, a hash."""
        if self.u16() != ALG_NULL:
            self.u16()

    def finish(self) -> None:
        if self._offset != len(self._data):
            raise TemplateError(f"{len(self._data) - self._offset} bytes follow the public area")


def parse_public(public: bytes) -> PublicArea:
    """Read a TPM2B_PUBLIC holding an RSA or ECC key; coordinates and modulus are returned as they stand.

    Raises:
        TemplateError: anything else.
    """
    outer = _Cursor(public)
    body = outer.sized()
    outer.finish()
    cursor = _Cursor(body)
    kind, name_alg = cursor.u16(), cursor.u16()
    if name_alg not in HASHES or kind not in {ALG_RSA, ALG_ECC}:
        raise TemplateError(f"type {kind:#06x} with name algorithm {name_alg:#06x} is not an RSA or ECC key")
    attributes = int.from_bytes(cursor.take(4))
    policy = cursor.sized()
    if cursor.u16() != ALG_NULL:
        cursor.take(4)  # key bits and mode
    cursor.scheme()
    if kind == ALG_RSA:
        cursor.take(6)  # key bits and exponent
        key: tuple[bytes, ...] = (cursor.sized(),)
    else:
        cursor.u16()  # curve
        cursor.scheme()  # key derivation
        key = (cursor.sized(), cursor.sized())
    cursor.finish()
    return PublicArea(kind, HASHES[name_alg], attributes, policy, key)
