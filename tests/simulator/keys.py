"""Keys of the simulated TPM: made from a seed, described by a public area, able to sign and to decrypt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.simulator import marshal
from verifier.tcg.algorithms import HashAlg

GOOD_AK_ATTRIBUTES = 0x00050072
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign."""
GOOD_EK_ATTRIBUTES = 0x000300B2
"""fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt."""
EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""TPM2_PolicySecret(TPM_RH_ENDORSEMENT): the authPolicy of the L-1 and L-2 templates."""

CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
HASHES = {
    HashAlg.SHA1: hashes.SHA1(),
    HashAlg.SHA256: hashes.SHA256(),
    HashAlg.SHA384: hashes.SHA384(),
    HashAlg.SHA512: hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class AkProfile:
    """What an attestation key is like.

    `kind` is p256, p384, p521 or rsa2048 (any rsa<bits>); `scheme` None takes ecdsa or rsassa. `resident`
    False is a software key: it signs whatever it is told, and its attributes are whatever it claims.
    `hierarchy` owner makes the TPM obfuscate counters and firmware version, as the specification asks.
    """

    kind: str = "p256"
    scheme: str | None = None
    hash_alg: HashAlg = HashAlg.SHA256
    attributes: int = GOOD_AK_ATTRIBUTES
    name_alg: HashAlg = HashAlg.SHA256
    policy: bytes = b""
    resident: bool = True
    hierarchy: str = "endorsement"
    max_pss_salt: bool = False
    label: str = "ak"


ECC_AK = AkProfile()
RSA_AK = AkProfile(kind="rsa2048")


@dataclass(frozen=True, slots=True)
class EkProfile:
    """What an endorsement key is like; the default is template L-2 (P-256)."""

    kind: str = "p256"
    attributes: int = GOOD_EK_ATTRIBUTES
    name_alg: HashAlg = HashAlg.SHA256
    policy: bytes = EK_POLICY
    aes_bits: int | None = 128
    label: str = "ek"


ECC_EK = EkProfile()
RSA_EK = EkProfile(kind="rsa2048")


@lru_cache(maxsize=256)
def private_key(kind: str, seed: str):
    """The key of this kind and seed: ECC derived from it, RSA made once and kept for the process."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    curve = CURVES[kind]
    wide = int.from_bytes(hashlib.shake_256(f"{kind} {seed}".encode()).digest(80), "big")
    return ec.derive_private_key(wide % (curve.group_order - 1) + 1, curve)


def _public_area(kind, key, *, name_alg, attributes, policy, aes_bits, scheme) -> bytes:
    numbers = key.public_key().public_numbers()
    if kind.startswith("rsa"):
        return marshal.public_area(
            "rsa", name_alg, attributes, policy, marshal.rsa_parameters(aes_bits, scheme, numbers.n)
        )
    size = (key.curve.key_size + 7) // 8
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    parameters = marshal.ecc_parameters(aes_bits, scheme, kind, x, y)
    return marshal.public_area("ecc", name_alg, attributes, policy, parameters)


def _name(area: bytes, name_alg: HashAlg) -> bytes:
    return marshal.u16(name_alg.tpm_id) + name_alg.digest(area)


class AttestationKey:
    """A signing key with its public area."""

    def __init__(self, profile: AkProfile, seed: str) -> None:
        self.profile = profile
        self.private = private_key(profile.kind, f"{seed} {profile.label}")
        self.scheme = profile.scheme or ("rsassa" if profile.kind.startswith("rsa") else "ecdsa")
        self.area = _public_area(
            profile.kind,
            self.private,
            name_alg=profile.name_alg,
            attributes=profile.attributes,
            policy=profile.policy,
            aes_bits=None,
            scheme=marshal.scheme(self.scheme, profile.hash_alg),
        )
        self.public = marshal.tpm2b(self.area)
        self.name = _name(self.area, profile.name_alg)

    @property
    def qualified_name(self) -> bytes:
        handle = {"endorsement": 0x4000000B, "owner": 0x40000001}[self.profile.hierarchy]
        alg = self.profile.name_alg
        return marshal.u16(alg.tpm_id) + alg.digest(marshal.u32(handle) + self.name)

    def with_attributes(self, attributes: int) -> AttestationKey:
        """The same private key, claiming other attributes: no TPM holds such an object."""
        other = object.__new__(AttestationKey)
        other.__dict__.update(self.__dict__)
        other.profile = replace(self.profile, attributes=attributes, resident=False)
        other.area = self.area[:4] + marshal.u32(attributes) + self.area[8:]
        other.public = marshal.tpm2b(other.area)
        other.name = _name(other.area, self.profile.name_alg)
        return other

    def sign(self, message: bytes, *, scheme: str | None = None, hash_alg: HashAlg | None = None) -> bytes:
        """TPMT_SIGNATURE over `message`; a scheme or hash other than the key's own is a forger's work."""
        scheme = scheme or self.scheme
        hash_alg = hash_alg or self.profile.hash_alg
        head = marshal.u16(marshal.ALG_BY_SCHEME[scheme]) + marshal.u16(hash_alg.tpm_id)
        algorithm = HASHES[hash_alg]
        if scheme == "ecdsa":
            size = (self.private.curve.key_size + 7) // 8
            r, s = decode_dss_signature(
                self.private.sign(message, ec.ECDSA(algorithm, deterministic_signing=True))
            )
            return head + marshal.tpm2b(r.to_bytes(size, "big")) + marshal.tpm2b(s.to_bytes(size, "big"))
        salt = padding.PSS.MAX_LENGTH if self.profile.max_pss_salt else padding.PSS.DIGEST_LENGTH
        pad = padding.PKCS1v15() if scheme == "rsassa" else padding.PSS(padding.MGF1(algorithm), salt)
        return head + marshal.tpm2b(self.private.sign(message, pad, algorithm))


class EndorsementKey:
    """A storage key that opens what MakeCredential encrypts to it."""

    def __init__(self, profile: EkProfile, seed: str) -> None:
        self.profile = profile
        self.private = private_key(profile.kind, f"{seed} {profile.label}")
        self.area = _public_area(
            profile.kind,
            self.private,
            name_alg=profile.name_alg,
            attributes=profile.attributes,
            policy=profile.policy,
            aes_bits=profile.aes_bits,
            scheme=marshal.u16(marshal.ALG_NULL),
        )
        self.public = marshal.tpm2b(self.area)
        self.name = _name(self.area, profile.name_alg)
