"""ES256 signing keys for EARs: kept as files, rotated with overlap, published as a JWK Set.

`keys.json` lists the keys; the newest one that is not retired signs. A running service notices a rotation by
the index file's change time and needs no restart.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from verifier.errors import VerifierFault
from verifier.keys.files import locked, write_file

_INDEX: Final = "keys.json"
_COORDINATE: Final = 32


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the index. `retire_at` is when it leaves the JWK Set; None while it signs."""

    kid: str
    created_at: datetime
    retire_at: datetime | None = None


class _SigningKey:
    """One loaded key with its precomputed protected header and JWK."""

    def __init__(self, entry: KeyEntry, private: ec.EllipticCurvePrivateKey) -> None:
        self.entry = entry
        self._private = private
        header = {"alg": "ES256", "kid": entry.kid, "typ": "eat+jwt"}
        self._header = _b64(msgspec.json.encode(header))
        self.jwk = {
            **_thumbprint_members(private.public_key()),
            "kid": entry.kid,
            "alg": "ES256",
            "use": "sig",
        }

    def sign(self, payload: bytes) -> str:
        signing_input = f"{self._header}.{_b64(payload)}"
        r, s = decode_dss_signature(self._private.sign(signing_input.encode(), ec.ECDSA(SHA256())))
        # RFC 7518, section 3.4: R || S, each as 32 bytes big-endian.
        return f"{signing_input}.{_b64(r.to_bytes(_COORDINATE, 'big') + s.to_bytes(_COORDINATE, 'big'))}"


class FileSigner:
    """The `TokenSigner` over a folder of P-256 keys; makes the first key when there is none."""

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        if not (directory / _INDEX).exists():
            with locked(directory):
                if not (directory / _INDEX).exists():
                    _add_key(directory, (), now())
        self._stamp = 0
        self._keys: tuple[_SigningKey, ...] = ()
        self._refresh()

    def sign(self, claims: Mapping[str, object]) -> str:
        """Compact JWS (RFC 7515) over `claims`, ES256, with `kid` = RFC 7638 thumbprint."""
        self._refresh()
        for key in self._keys:
            if key.entry.retire_at is None:
                return key.sign(msgspec.json.encode(claims))
        raise VerifierFault(f"no active signing key in {self._directory}")

    def jwks(self) -> Mapping[str, object]:
        """Public keys a relying party may still meet (RFC 7517); never a private part."""
        self._refresh()
        now = self._now()
        live = [key.jwk for key in self._keys if key.entry.retire_at is None or key.entry.retire_at > now]
        return {"keys": live}

    def _refresh(self) -> None:
        index = self._directory / _INDEX
        try:
            stamp = index.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            entries = _read_index(self._directory)
            self._keys = tuple(_SigningKey(entry, _load_key(self._directory, entry.kid)) for entry in entries)
        except OSError as error:
            raise VerifierFault(f"cannot read signing keys: {error}") from error
        self._stamp = stamp


def rotate(directory: Path, overlap: timedelta, now: datetime) -> tuple[KeyEntry, tuple[KeyEntry, ...]]:
    """Make a new signing key; the old ones stay published for `overlap`. Returns the new and the retiring keys.

    `overlap` should be at least the longest validity of a verdict, or EARs in circulation stop verifying.
    """
    with locked(directory):
        entries = _read_index(directory) if (directory / _INDEX).exists() else ()
        kept = tuple(_retire(entry, now + overlap) for entry in entries if not _expired(entry, now))
        for entry in entries:
            if _expired(entry, now):
                _key_path(directory, entry.kid).unlink(missing_ok=True)
        return _add_key(directory, kept, now), kept


def _expired(entry: KeyEntry, now: datetime) -> bool:
    return entry.retire_at is not None and entry.retire_at <= now


def _retire(entry: KeyEntry, at: datetime) -> KeyEntry:
    return entry if entry.retire_at is not None else msgspec.structs.replace(entry, retire_at=at)


def _add_key(directory: Path, others: tuple[KeyEntry, ...], now: datetime) -> KeyEntry:
    private = ec.generate_private_key(ec.SECP256R1())
    entry = KeyEntry(kid=thumbprint(private.public_key()), created_at=now)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(_key_path(directory, entry.kid), pem)
    write_file(directory / _INDEX, msgspec.json.format(msgspec.json.encode([entry, *others])))
    return entry


def _read_index(directory: Path) -> tuple[KeyEntry, ...]:
    try:
        return msgspec.json.decode((directory / _INDEX).read_bytes(), type=tuple[KeyEntry, ...])
    except msgspec.MsgspecError as error:
        raise VerifierFault(f"{directory / _INDEX} is damaged: {error}") from error


def _load_key(directory: Path, kid: str) -> ec.EllipticCurvePrivateKey:
    path = _key_path(directory, kid)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise VerifierFault(f"{path} is not a private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerifierFault(f"{path} is not a P-256 key")
    return key


def _key_path(directory: Path, kid: str) -> Path:
    return directory / f"ear-{kid}.pem"


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """JWK thumbprint (RFC 7638): SHA-256 of the required members in lexical order, base64url."""
    return _b64(hashlib.sha256(msgspec.json.encode(_thumbprint_members(key))).digest())


def _thumbprint_members(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": _b64(numbers.x.to_bytes(_COORDINATE, "big")),
        "y": _b64(numbers.y.to_bytes(_COORDINATE, "big")),
    }


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
