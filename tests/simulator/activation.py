"""TPM2_ActivateCredential with the EK's private key, by the library's own KDFs and OAEP."""

from __future__ import annotations

import hmac
import struct

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from tests.simulator.keys import HASHES, EndorsementKey


class TpmRefusal(Exception):  # noqa: N818 - it is the TPM's answer, not a fault
    """The TPM answers with this response code."""


def activate(
    ek: EndorsementKey, object_name: bytes, credential_blob: bytes, encrypted_secret: bytes
) -> bytes:
    """The secret of the credential, or `TpmRefusal` where it was not made for this EK and name."""
    name_alg = ek.profile.name_alg
    seed = _seed(ek, _unsized(encrypted_secret))
    blob = _unsized(credential_blob)
    (size,) = struct.unpack_from(">H", blob)
    integrity, identity = blob[2 : 2 + size], blob[2 + size :]
    hmac_key = _kdfa(name_alg, seed, b"INTEGRITY", b"", name_alg.size)
    if not hmac.compare_digest(integrity, hmac.digest(hmac_key, identity + object_name, name_alg.label)):
        raise TpmRefusal("TPM_RC_INTEGRITY")
    key = _kdfa(name_alg, seed, b"STORAGE", object_name, ek.profile.aes_bits // 8)
    decryptor = Cipher(AES(key), CFB(bytes(16))).decryptor()
    return _unsized(decryptor.update(identity) + decryptor.finalize())


def _unsized(tpm2b: bytes) -> bytes:
    if len(tpm2b) < 2 or struct.unpack_from(">H", tpm2b)[0] != len(tpm2b) - 2:
        raise TpmRefusal("TPM_RC_SIZE")
    return tpm2b[2:]


def _seed(ek: EndorsementKey, secret: bytes) -> bytes:
    algorithm = HASHES[ek.profile.name_alg]
    if ek.profile.kind.startswith("rsa"):
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, b"IDENTITY\0")
        try:
            return ek.private.decrypt(secret, oaep)
        except ValueError as error:
            raise TpmRefusal("TPM_RC_VALUE") from error
    curve = ek.private.curve
    size = (curve.key_size + 7) // 8
    x, y = secret[2 : 2 + size], secret[4 + size :]
    try:
        point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
        z = ek.private.exchange(ec.ECDH(), point.public_key())
    except ValueError as error:
        raise TpmRefusal("TPM_RC_ECC_POINT") from error
    own = ek.private.public_key().public_numbers().x.to_bytes(size, "big")
    info = b"IDENTITY\0" + x + own
    return ConcatKDFHash(algorithm, ek.profile.name_alg.size, info).derive(z)


def _kdfa(hash_alg, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    kdf = KBKDFHMAC(
        algorithm=HASHES[hash_alg],
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    )
    return kdf.derive(key)
