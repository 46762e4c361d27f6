"""The service secret, and the keys derived from it."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, locked, read_secret, write_file

_SIZE: Final = 32
_NONCE_INFO: Final = b"vtpm-attest nonce key v1"
_SESSION_INFO: Final = b"vtpm-attest session key v1"
_WEBHOOK_INFO: Final = b"vtpm-attest webhook key v1"
_RATCHET_INFO: Final = b"vtpm-attest ratchet key v1"
_SECRETS_INFO: Final = b"vtpm-attest secrets key v1"
_MADE_LATER: Final = Path("ak-ca", "root.pem")
"""Every start makes it, after the secret."""


def nonce_key(state_dir: Path) -> bytes:
    """32-byte key of the nonces, derived with HKDF (RFC 5869) from the service secret, made at first use.

    Replicas that share `service.secret` accept each other's nonces. Whoever reads the database cannot make
    one, because the secret is not in it.
    """
    return _derived(state_dir, _NONCE_INFO)


def ratchet_key(state_dir: Path) -> bytes:
    """32-byte key of the values handed out for ratchets, derived as `nonce_key` is.

    Losing the secret loses no ratchet: the value handed out last is known by its effect, which is stored.
    """
    return _derived(state_dir, _RATCHET_INFO)


def session_key(state_dir: Path) -> bytes:
    """32-byte key of dashboard sessions, derived as `nonce_key` is."""
    return _derived(state_dir, _SESSION_INFO)


def secrets_key(state_dir: Path) -> bytes:
    """32-byte key by which secrets for machines are encrypted in the database, derived as `nonce_key` is.

    Losing the service secret loses every secret that was encrypted with it.
    """
    return _derived(state_dir, _SECRETS_INFO)


def webhook_secrets(state_dir: Path) -> Callable[[str], bytes]:
    """The 32-byte signing secret of a webhook by its id, which is random and never given twice.

    Nothing of it is in the database: who reads that can sign nothing. Losing the service secret makes every
    webhook worthless; they have to be made anew.
    """
    key = _derived(state_dir, _WEBHOOK_INFO)
    return lambda webhook_id: hmac.digest(key, webhook_id.encode(), "sha256")


def _derived(state_dir: Path, info: bytes) -> bytes:
    path = state_dir / "service.secret"
    with locked(state_dir):
        if not path.exists():
            _make(path)
        secret = read_secret(path, _SIZE)
    return HKDF(algorithm=SHA256(), length=_SIZE, salt=None, info=info).derive(secret)


def _make(path: Path) -> None:
    if (path.parent / _MADE_LATER).exists():
        raise VerifierFault(
            f"{path} is gone, and this is no first start; {RESTORE}, or, if there is none, put 32 new random bytes there"
            " (head -c 32 /dev/urandom): webhooks and secrets for machines then have to be made anew"
        )
    write_file(path, secrets.token_bytes(_SIZE))
