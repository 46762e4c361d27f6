"""ES256 signing keys for EARs: kept as files, rotated with overlap, published as a JWK Set.

`keys.json` lists the keys; the newest one that is not retired signs. A running service notices a rotation by
the index file's change time and needs no restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from verifier.errors import VerifierFault
from verifier.keys.files import locked, stamp_of, write_file
from verifier.keys.jose import SigningKey, software_key, thumbprint

_INDEX: Final = "keys.json"
_log: Final = structlog.get_logger("vtpm_attest.keys")


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the index. `retire_at` is when it leaves the JWK Set; None while it signs."""

    kid: str
    created_at: datetime
    retire_at: datetime | None = None


class _KeptKey:
    """One key of the index, loaded."""

    def __init__(self, entry: KeyEntry, private: ec.EllipticCurvePrivateKey) -> None:
        self.entry = entry
        self.key = software_key(private)


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
        self._keys: tuple[_KeptKey, ...] = ()
        self._refresh()

    async def sign_jwt(self, claims: Mapping[str, object]) -> str:
        """Compact JWS over `claims`."""
        return self._active().jwt(claims)

    async def sign_cwt(self, claims: Mapping[object, object]) -> bytes:
        """Tagged COSE_Sign1 over `claims`."""
        return self._active().cwt(claims)

    def _active(self) -> SigningKey:
        self._refresh()
        for kept in self._keys:
            if kept.entry.retire_at is None:
                return kept.key
        raise VerifierFault(f"no active signing key in {self._directory}")

    def jwks(self) -> Mapping[str, object]:
        """Public keys a relying party may still meet (RFC 7517); never a private part."""
        self._refresh()
        now = self._now()
        live = [
            kept.key.jwk for kept in self._keys if kept.entry.retire_at is None or kept.entry.retire_at > now
        ]
        return {"keys": live}

    def forget(self) -> None:
        """Read the index anew, whatever its change time is said to be: a network file system may be late with that."""
        self._stamp = 0

    def _refresh(self) -> None:
        stamp = stamp_of(self._directory / _INDEX)
        if stamp == self._stamp:
            return
        try:
            self._keys = _read_keys(self._directory)
        except VerifierFault as error:
            if not self._keys:
                raise
            # Half-written or gone: whoever restores it is not waited for with what can be signed as well.
            _log.error("keys.damaged", problem=str(error), effect="the keys that were read before go on")
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


def _read_keys(directory: Path) -> tuple[_KeptKey, ...]:
    try:
        return tuple(_KeptKey(entry, _load_key(directory, entry.kid)) for entry in _read_index(directory))
    except OSError as error:
        raise VerifierFault(f"cannot read signing keys: {error}") from error


def _read_index(directory: Path) -> tuple[KeyEntry, ...]:
    try:
        return msgspec.json.decode((directory / _INDEX).read_bytes(), type=tuple[KeyEntry, ...])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
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
