"""Keys of the transparency log: Ed25519, kept as files, made at the first start, rotated with overlap.

`keys.json` lists them with the name of the log, which never changes: it is part of every checkpoint. While keys change,
the old one goes on signing beside the new one until its time is over, so that whoever holds either public key can go on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from verifier.errors import VerifierFault
from verifier.keys.files import locked, stamp_of, write_file
from verifier.transparency.errors import NoteError
from verifier.transparency.notes import KeySigner, Signer, VerifierKey

_INDEX: Final = "keys.json"
_log: Final = structlog.get_logger("vtpm_attest.keys")


class LogKeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the log.

    Attributes:
        key: public, as `NAME+KEYID+BASE64`.
        retire_at: until when it signs beside the newer one; None: it is the newest.
    """

    key: str
    created_at: datetime
    retire_at: datetime | None = None


class FileLogKeys:
    """`verifier.ports_log.LogKeys` over a folder; makes the first key, of a log called `origin`, where there is none.

    A rotation is noticed by the change of the index.
    """

    def __init__(self, directory: Path, origin: str, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        if not (directory / _INDEX).exists():
            with locked(directory):
                if not (directory / _INDEX).exists():
                    _add_key(directory, origin, (), now())
        self._stamp = 0
        self._keys: tuple[tuple[LogKeyEntry, KeySigner], ...] = ()
        self._refresh()

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self._keys[0][1].key.name

    def signers(self) -> tuple[Signer, ...]:
        """The newest key first."""
        self._refresh()
        now = self._now()
        return tuple(key for entry, key in self._keys if entry.retire_at is None or entry.retire_at > now)

    def trusted(self) -> tuple[VerifierKey, ...]:
        """The public parts of those."""
        return tuple(signer.key for signer in self.signers())

    def _refresh(self) -> None:
        stamp = stamp_of(self._directory / _INDEX)
        if stamp == self._stamp:
            return
        try:
            self._keys = tuple(
                (entry, _load(self._directory, entry)) for entry in read_index(self._directory)
            )
        except VerifierFault as error:
            if not self._keys:
                raise
            # Half-written or gone: whoever restores it is not waited for with what can be signed as well.
            _log.error("log-keys.damaged", problem=str(error), effect="the keys that were read before go on")
        self._stamp = stamp


def rotate(directory: Path, overlap: timedelta, now: datetime) -> tuple[LogKeyEntry, tuple[LogKeyEntry, ...]]:
    """Make a new key; the present one signs beside it for `overlap`. Returns the new one and those that go.

    Raises:
        VerifierFault: there is no key yet: the first start of the service makes it, and names the log.
    """
    with locked(directory):
        entries = read_index(directory)
        kept = [entry for entry in entries if entry.retire_at is None or entry.retire_at > now]
        for gone in [entry for entry in entries if entry not in kept]:
            _path(directory, VerifierKey.parse(gone.key)).unlink(missing_ok=True)
        ends = now + overlap
        retiring = tuple(
            msgspec.structs.replace(one, retire_at=min(one.retire_at or ends, ends)) for one in kept
        )
        origin = VerifierKey.parse(entries[0].key).name
        return _add_key(directory, origin, retiring, now), retiring


def read_index(directory: Path) -> tuple[LogKeyEntry, ...]:
    """The keys, the newest first; never none.

    Raises:
        VerifierFault: there is no index, or it cannot be read.
    """
    path = directory / _INDEX
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=tuple[LogKeyEntry, ...])
        for entry in entries:
            VerifierKey.parse(entry.key)
    except OSError as error:
        raise VerifierFault(f"cannot read the keys of the log, {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, NoteError) as error:
        raise VerifierFault(f"{path} is damaged: {error}") from error
    if not entries:
        raise VerifierFault(f"{path} is damaged: it has no key")
    return entries


def _add_key(directory: Path, origin: str, others: tuple[LogKeyEntry, ...], now: datetime) -> LogKeyEntry:
    private = Ed25519PrivateKey.generate()
    key = KeySigner(origin, private).key
    entry = LogKeyEntry(key=key.encode(), created_at=now)
    write_file(
        _path(directory, key), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    write_file(directory / _INDEX, msgspec.json.format(msgspec.json.encode([entry, *others])))
    return entry


def _load(directory: Path, entry: LogKeyEntry) -> KeySigner:
    public = VerifierKey.parse(entry.key)
    path = _path(directory, public)
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise VerifierFault(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise VerifierFault(f"{path} is not a private key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise VerifierFault(f"{path} is not an Ed25519 key")
    signer = KeySigner(public.name, private)
    if signer.key != public:
        raise VerifierFault(f"{path} is another key than {directory / _INDEX} lists")
    return signer


def _path(directory: Path, key: VerifierKey) -> Path:
    return directory / f"log-{key.key_id.hex()}.pem"
