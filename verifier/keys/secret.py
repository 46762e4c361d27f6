"""The service secret, and the keys derived from it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from verifier.keys.files import locked, read_secret, write_file

_SIZE: Final = 32
_NONCE_INFO: Final = b"vtpm-attest nonce key v1"


def nonce_key(state_dir: Path) -> bytes:
    """32-byte key of the nonces, derived with HKDF (RFC 5869) from the service secret, made at first use.

    Replicas that share `service.secret` accept each other's nonces. Whoever reads the database cannot make
    one, because the secret is not in it.
    """
    path = state_dir / "service.secret"
    with locked(state_dir):
        if not path.exists():
            write_file(path, secrets.token_bytes(_SIZE))
        secret = read_secret(path, _SIZE)
    return HKDF(algorithm=SHA256(), length=_SIZE, salt=None, info=_NONCE_INFO).derive(secret)
