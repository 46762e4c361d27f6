"""TPM2_MakeCredential in software: a secret that only one TPM, holding two named keys, can read.

TPM 2.0 Library Specification, Part 1, section 24 (credential protection), annexes B.10.4 (RSA) and C.6.4 (ECC).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from verifier.crypto.kdf import available, kdfa, kdfe
from verifier.crypto.keys import CURVES, public_key
from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import TPM_ALG_CFB, HashAlg
from verifier.tcg.credential import IdObject, marshal_ecc_point, sized
from verifier.tcg.public import EccCurve, EccParams, Public, RsaParams, SymmetricDef

_LABEL: Final = b"IDENTITY"
_BLOCK: Final = 16

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class MadeCredential:
    """What to send to the attester: both structures with their size prefixes, big-endian."""

    credential_blob: bytes
    """TPM2B_ID_OBJECT."""
    encrypted_secret: bytes
    """TPM2B_ENCRYPTED_SECRET."""


def make_credential(ek: Public, ak_name: bytes, secret: bytes, random: Random) -> MadeCredential:
    """Encrypt `secret` so that TPM2_ActivateCredential gives it out only beside an object named `ak_name`.

    Whoever returns the secret proves to have a TPM (if `ek` is the key of one) in which an object of this
    name is loaded. It does not prove that the object signed anything, nor that its attributes are good: the
    caller judges those from the public area that hashes to the name.

    Args:
        ek: storage key of the TPM; its attributes are not judged here.
        ak_name: name of the object, nameAlg included.
        secret: at most as long as the digest of the EK's nameAlg (a longer one no TPM takes).
        random: gives the asked number of bytes; the only source of randomness, called in a fixed order.

    Raises:
        UnsupportedError: an EK whose cipher is not AES-CFB, or whose nameAlg is not available.
        MalformedInputError: an ECC EK that is no point of its curve.
        ValueError: the secret is empty or too long.
    """
    name_alg = ek.name_alg
    available(name_alg)
    if not 0 < len(secret) <= name_alg.size:
        raise ValueError(f"a secret of {len(secret)} bytes; the EK takes 1 to {name_alg.size}")
    cipher = _storage_cipher(ek)
    seed, encrypted_secret = _share_seed(ek, random)
    key = kdfa(name_alg, seed, b"STORAGE", ak_name, cipher.key_bits)
    # A zero IV is the specification's: the key is never used a second time.
    encryptor = Cipher(AES(key), CFB(bytes(_BLOCK))).encryptor()
    encrypted_identity = encryptor.update(sized(secret)) + encryptor.finalize()
    hmac_key = kdfa(name_alg, seed, b"INTEGRITY", b"", name_alg.size * 8)
    integrity = hmac.digest(hmac_key, encrypted_identity + ak_name, name_alg.label)
    return MadeCredential(IdObject(integrity, encrypted_identity).marshal(), sized(encrypted_secret))


def _storage_cipher(ek: Public) -> SymmetricDef:
    cipher = ek.symmetric
    if cipher is None or cipher.mode != TPM_ALG_CFB:
        raise UnsupportedError("the EK's symmetric cipher is not AES in CFB mode", structure="TPMT_PUBLIC")
    return cipher


def _share_seed(ek: Public, random: Random) -> tuple[bytes, bytes]:
    """A fresh seed and the content of the TPM2B_ENCRYPTED_SECRET that carries it."""
    if ek.rsa is not None:
        seed = random(ek.name_alg.size)
        return seed, rsa_oaep(ek.rsa, ek.name_alg, seed, random(ek.name_alg.size))
    assert ek.ecc is not None  # noqa: S101 - parse_public makes nothing else; tells mypy so
    return _ecdh_seed(ek, ek.ecc, random)


def _ecdh_seed(ek: Public, params: EccParams, random: Random) -> tuple[bytes, bytes]:
    static = public_key(ek)
    assert isinstance(static, ec.EllipticCurvePublicKey)  # noqa: S101 - an EccParams makes nothing else
    size = params.curve.size
    ephemeral = ephemeral_key(params.curve, random)
    point = ephemeral.public_key().public_numbers()
    x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
    z = ephemeral.exchange(ec.ECDH(), static)
    seed = kdfe(ek.name_alg, z, _LABEL, x, params.x.to_bytes(size, "big"))
    return seed, marshal_ecc_point(x, y)


def ephemeral_key(curve: EccCurve, random: Random) -> ec.EllipticCurvePrivateKey:
    """A private key from `random` with 64 extra bits, which leave no bias to speak of (FIPS 186-5, A.2.1)."""
    group = CURVES[curve]
    wide = int.from_bytes(random(curve.size + 8), "big")
    return ec.derive_private_key(wide % (group.group_order - 1) + 1, group)


def rsa_oaep(key: RsaParams, hash_alg: HashAlg, message: bytes, seed: bytes) -> bytes:
    """RSAES-OAEP (RFC 8017, section 7.1.1) with label "IDENTITY" and a zero byte, and MGF1 of the same hash.

    Written out because the library's takes its randomness from the system; the result is as pure as `seed`.
    No secret exponent is involved, and the base is masked with fresh randomness that is used once.

    Args:
        key: the recipient's.
        hash_alg: of label and mask.
        message: at most key size - 2 * digest size - 2 bytes.
        seed: as many random bytes as `hash_alg` has.

    Returns:
        The ciphertext, as long as the modulus.
    """
    size = key.key_bits // 8
    room = size - 2 * hash_alg.size - 2
    if len(seed) != hash_alg.size or len(message) > room:
        raise ValueError(
            f"OAEP with a seed of {len(seed)} and a message of {len(message)} bytes, room for {room}"
        )
    block = hash_alg.digest(_LABEL + b"\0") + bytes(room - len(message)) + b"\1" + message
    masked_block = _xor(block, _mgf1(hash_alg, seed, len(block)))
    masked_seed = _xor(seed, _mgf1(hash_alg, masked_block, hash_alg.size))
    padded = int.from_bytes(masked_seed + masked_block, "big")
    return pow(padded, key.exponent, key.modulus).to_bytes(size, "big")


def _mgf1(hash_alg: HashAlg, seed: bytes, size: int) -> bytes:
    blocks = range(-(-size // hash_alg.size))
    return b"".join([hash_alg.digest(seed + counter.to_bytes(4, "big")) for counter in blocks])[:size]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
