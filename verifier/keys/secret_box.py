"""The keys by which secrets are encrypted at rest: files of the operator's, or one that follows from the service secret."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from verifier.errors import StoredDataDamaged, VerifierFault
from verifier.keys.files import read_secret
from verifier.keys.secret import secrets_key

_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_ID_LABEL: Final = b"vtpm-attest key id v1"
_ID_SIZE: Final = 8


class KeyRing:
    """The `SecretBox` over AES-256-GCM keys: the first encrypts, each opens what it encrypted.

    Nonces are random: one key may encrypt some 2^32 times (SP 800-38D, section 8.3), and operators put secrets by hand.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._key_id = _key_id(keys[0])

    @property
    def key_id(self) -> str:
        """Of the first."""
        return self._key_id

    def seal(self, content: bytes, about: bytes) -> bytes:
        """Nonce and ciphertext."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._keys[self._key_id].encrypt(nonce, content, about)

    def open(self, key_id: str, sealed: bytes, about: bytes) -> bytes:
        """What was sealed; raises `VerifierFault` without its key, `StoredDataDamaged` where it was changed."""
        key = self._keys.get(key_id)
        if key is None:
            raise VerifierFault(
                f"a secret is encrypted with key {key_id}, which is not among those of `secrets.keys`; add its file again"
            )
        try:
            return key.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], about)
        except (InvalidTag, ValueError) as error:
            raise StoredDataDamaged("a stored secret does not open with its key: it was changed") from error


def open_keys(files: Sequence[Path], state_dir: Path) -> KeyRing:
    """The keys of these files, and last the one that follows from the service secret; it is the only one without files.

    Nothing of them is in the database: whoever steals that reads no secret.

    Raises:
        VerifierFault: a file cannot be read, or does not hold exactly 32 bytes.
    """
    return KeyRing([*(_read(path) for path in files), secrets_key(state_dir)])


def _read(path: Path) -> bytes:
    try:
        return read_secret(path, _SIZE)
    except VerifierFault as error:
        raise VerifierFault(f"secrets.keys: {error}") from error


def _key_id(key: bytes) -> str:
    return hmac.digest(key, _ID_LABEL, "sha256")[:_ID_SIZE].hex()
