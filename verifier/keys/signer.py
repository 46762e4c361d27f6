"""ES256 signing keys for EARs: kept as files, rotated with overlap, published as a JWK Set.

`keys.json` lists the keys; the newest one that is not retired signs. A running service notices a rotation by
the index file's change time and needs no restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, locked, removed_on_failure, unreadable, write_file
from verifier.keys.jose import SigningKey, software_key, thumbprint
from verifier.keys.pem import read_p256, write_key
from verifier.keys.watched import INDEX, WatchedKeys, left_behind, tell_adopted, tell_made


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
        if not (directory / INDEX).exists():
            with locked(directory):
                if not _entries(directory, now()):
                    _write_index(directory, (_make_key(directory, now()),))
                    tell_made(directory)
        self._keys = WatchedKeys(directory, _read_keys)

    async def sign_jwt(self, claims: Mapping[str, object]) -> str:
        """Compact JWS over `claims`."""
        return self._active().jwt(claims)

    async def sign_cwt(self, claims: Mapping[object, object]) -> bytes:
        """Tagged COSE_Sign1 over `claims`."""
        return self._active().cwt(claims)

    def _active(self) -> SigningKey:
        for kept in self._keys.now():
            if kept.entry.retire_at is None:
                return kept.key
        raise VerifierFault(f"no active signing key in {self._directory}")

    def jwks(self) -> Mapping[str, object]:
        """Public keys a relying party may still meet (RFC 7517); never a private part."""
        now = self._now()
        return {"keys": [kept.key.jwk for kept in self._keys.now() if not _expired(kept.entry, now)]}

    def forget(self) -> None:
        """Read the index anew, whatever its change time is said to be: a network file system may be late with that."""
        self._keys.forget()


Rotated: TypeAlias = tuple[KeyEntry, tuple[KeyEntry, ...]]
"""The new key, and those that stay published for a while."""


def rotate(
    directory: Path, overlap: timedelta, now: datetime, record: Callable[[Rotated], None] = lambda _: None
) -> Rotated:
    """Make a new signing key; the old ones stay published for `overlap`.

    `record` is called before the new key signs anything; whatever it raises leaves the old one in place.

    `overlap` should be at least the longest validity of a verdict, or EARs in circulation stop verifying.
    """
    with locked(directory):
        entries = _entries(directory, now)
        kept = tuple(_retire(entry, now + overlap) for entry in entries if not _expired(entry, now))
        added = _make_key(directory, now)
        with removed_on_failure(_key_path(directory, added.kid)):
            record((added, kept))
        _write_index(directory, (added, *kept))
        for entry in entries:  # once the index names them no longer
            if _expired(entry, now):
                _key_path(directory, entry.kid).unlink(missing_ok=True)
        return added, kept


def _expired(entry: KeyEntry, now: datetime) -> bool:
    return entry.retire_at is not None and entry.retire_at <= now


def _retire(entry: KeyEntry, at: datetime) -> KeyEntry:
    return entry if entry.retire_at is not None else msgspec.structs.replace(entry, retire_at=at)


def _entries(directory: Path, now: datetime) -> tuple[KeyEntry, ...]:
    """What the index lists; none before the first start. The index is written where only that is missing."""
    if (directory / INDEX).exists():
        return _read_index(directory)
    left = left_behind(directory, "ear-*.pem")
    if left is None:
        return ()
    kid = thumbprint(read_p256(left).public_key())
    if left != _key_path(directory, kid):
        raise VerifierFault(f"{left} is another key than its name says; {RESTORE}")
    entry = KeyEntry(kid=kid, created_at=now)
    _write_index(directory, (entry,))
    tell_adopted(directory, left)
    return (entry,)


def _make_key(directory: Path, now: datetime) -> KeyEntry:
    private = ec.generate_private_key(ec.SECP256R1())
    entry = KeyEntry(kid=thumbprint(private.public_key()), created_at=now)
    write_key(_key_path(directory, entry.kid), private)
    return entry


def _write_index(directory: Path, entries: tuple[KeyEntry, ...]) -> None:
    write_file(directory / INDEX, msgspec.json.format(msgspec.json.encode(entries)))


def _read_keys(directory: Path) -> tuple[_KeptKey, ...]:
    entries = _read_index(directory)
    return tuple(_KeptKey(entry, read_p256(_key_path(directory, entry.kid))) for entry in entries)


def _read_index(directory: Path) -> tuple[KeyEntry, ...]:
    path = directory / INDEX
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[KeyEntry, ...])
    except OSError as error:
        raise unreadable(path, error) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise VerifierFault(f"{path} is damaged: {error}; {RESTORE}") from error


def _key_path(directory: Path, kid: str) -> Path:
    return directory / f"ear-{kid}.pem"
