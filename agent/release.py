"""The agent's end of a secret's release: the ephemeral key it asks with, and opening the answer.

Counterpart of the verifier's `crypto/release.py`. The only module that needs the `cryptography` package, which comes
with tpm2-pytss: loaded when a secret is asked for, and not before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from agent.errors import AgentError, Exit

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from agent.wire.secrets import ReleaseReply

ASKED: Final = b"vtpm-attest secret asked v1\0"
ANSWERED: Final = b"vtpm-attest secret answered v1\0"
_KEY_SIZE: Final = 32
_TAG_SIZE: Final = 16
_NONCE: Final = bytes(12)


class SealedError(AgentError):
    """What came as a secret does not open: changed on its way, or the answer to something else."""

    code = "secret-sealed"
    exit_code = Exit.UNTRUSTED


class CryptoMissingError(AgentError):
    """The `cryptography` package is not installed."""

    code = "crypto-library-missing"
    exit_code = Exit.CONFIG


class Asking(Struct, frozen=True):
    """One attempt to get a secret: its name, and a key that nobody else has and that is not kept."""

    name: str
    private: ec.EllipticCurvePrivateKey
    reply_key: bytes
    """Its public half, an uncompressed point of P-256."""

    def over(self, nonce: bytes) -> bytes:
        """What to quote, so that the AK says what is asked for and to whom it shall be answered."""
        return hashlib.sha256(ASKED + nonce + self.reply_key + self.name.encode()).digest()


def begin(name: str) -> Asking:
    """With a fresh key.

    Raises:
        CryptoMissingError: there is nothing to make one with.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - not before it is needed
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415
    except ImportError as error:
        raise CryptoMissingError(
            f"the cryptography package cannot be loaded: {error}",
            "install the agent with its TPM extra: `pip install 'vtpm-attest-agent[tpm]'` "
            "(Debian: apt install python3-cryptography)",
        ) from error
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Asking(name, private, point)


def opened(asking: Asking, quoted: bytes, reply: ReleaseReply, half: bytes) -> bytearray:
    """The secret, in a buffer that the caller can clear.

    Args:
        asking: what was asked for.
        quoted: what the quote was over.
        reply: what came.
        half: what the TPM gave out of the credential in it.

    Raises:
        SealedError: it is not the answer to this.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `begin`
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.modes import GCM  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    verdict = reply.attestation.verdict
    numbers = verdict.sequence.to_bytes(8) + reply.revision.to_bytes(8)
    context = hashlib.sha256(
        ANSWERED + quoted + reply.verifier_key + numbers + verdict.attester_id.encode()
    ).digest()
    size = len(reply.ciphertext) - _TAG_SIZE
    room = bytearray(size + AES.block_size // 8)
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), reply.verifier_key)
        shared = asking.private.exchange(ec.ECDH(), point)
        key = HKDF(algorithm=SHA256(), length=_KEY_SIZE, salt=None, info=context).derive(half + shared)
        decryptor = Cipher(AES(key), GCM(_NONCE, reply.ciphertext[size:])).decryptor()
        decryptor.authenticate_additional_data(context)
        decryptor.update_into(reply.ciphertext[:size], room)
        decryptor.finalize()
    except (ValueError, InvalidTag) as error:
        clear(room)
        raise SealedError(
            f"what came as secret {asking.name!r} cannot be opened: it was changed, or is the answer to something else",
            "ask again; if it stays so, something between this machine and the verifier changes answers",
        ) from error
    del room[size:]
    return room


def clear(secret: bytearray) -> None:
    """Overwrite it: other copies that the interpreter made are not reached."""
    secret[:] = bytes(len(secret))
