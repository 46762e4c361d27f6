"""Keys of the transparency log: Ed25519, kept as files, made at the first start, rotated with overlap.

`keys.json` lists them with the name of the log, which never changes: it is part of every checkpoint. While keys change,
the old one goes on signing beside the new one until its time is over, so that whoever holds either public key can go on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, locked, removed_on_failure, unreadable, write_file
from verifier.keys.pem import read_key, write_key
from verifier.keys.watched import INDEX, WatchedKeys, left_behind, tell_adopted, tell_made
from verifier.transparency.errors import NoteError
from verifier.transparency.notes import KeySigner, Signer, VerifierKey


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
        self._now = now
        if not (directory / INDEX).exists():
            with locked(directory):
                if not (directory / INDEX).exists() and not _adopted(directory, origin, now()):
                    _write_index(directory, (_make_key(directory, origin, now()),))
                    tell_made(directory)
        self._keys = WatchedKeys(directory, _read_keys)

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self._keys.now()[0][1].key.name

    def signers(self) -> tuple[Signer, ...]:
        """The newest key first."""
        now = self._now()
        return tuple(
            key for entry, key in self._keys.now() if entry.retire_at is None or entry.retire_at > now
        )

    def trusted(self) -> tuple[VerifierKey, ...]:
        """The public parts of those."""
        return tuple(signer.key for signer in self.signers())


Rotated: TypeAlias = tuple[LogKeyEntry, tuple[LogKeyEntry, ...]]
"""The new key, and those that go."""


def rotate(
    directory: Path, overlap: timedelta, now: datetime, record: Callable[[Rotated], None] = lambda _: None
) -> Rotated:
    """Make a new key; the present one signs beside it for `overlap`.

    `record` is called before the new key signs anything; whatever it raises leaves the old one alone.

    Raises:
        VerifierFault: there is no key yet: the first start of the service makes it, and names the log.
    """
    with locked(directory):
        entries = read_index(directory)
        kept = [entry for entry in entries if entry.retire_at is None or entry.retire_at > now]
        ends = now + overlap
        retiring = tuple(
            msgspec.structs.replace(one, retire_at=min(one.retire_at or ends, ends)) for one in kept
        )
        origin = VerifierKey.parse(entries[0].key).name
        added = _make_key(directory, origin, now)
        with removed_on_failure(_path(directory, VerifierKey.parse(added.key))):
            record((added, retiring))
        _write_index(directory, (added, *retiring))
        for gone in [entry for entry in entries if entry not in kept]:  # the index names them no longer
            _path(directory, VerifierKey.parse(gone.key)).unlink(missing_ok=True)
        return added, retiring


def read_index(directory: Path) -> tuple[LogKeyEntry, ...]:
    """The keys, the newest first; never none.

    Raises:
        VerifierFault: there is no index, or it cannot be read.
    """
    path = directory / INDEX
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=tuple[LogKeyEntry, ...])
        for entry in entries:
            VerifierKey.parse(entry.key)
    except OSError as error:
        raise unreadable(path, error) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError, NoteError) as error:
        raise VerifierFault(f"{path} is damaged: {error}; {RESTORE}") from error
    if not entries:
        raise VerifierFault(f"{path} is damaged: it has no key; {RESTORE}")
    return entries


def _adopted(directory: Path, origin: str, now: datetime) -> bool:
    """Whether there was a key without an index: it is listed from now on."""
    left = left_behind(directory, "log-*.pem")
    if left is None:
        return False
    key = KeySigner(origin, _private(left)).key
    if left != _path(directory, key):  # its file is named after key and log
        raise VerifierFault(
            f"{left} is the key of a log of another name than {origin!r}; {RESTORE} with {INDEX}"
        )
    _write_index(directory, (LogKeyEntry(key=key.encode(), created_at=now),))
    tell_adopted(directory, left)
    return True


def _make_key(directory: Path, origin: str, now: datetime) -> LogKeyEntry:
    private = Ed25519PrivateKey.generate()
    key = KeySigner(origin, private).key
    entry = LogKeyEntry(key=key.encode(), created_at=now)
    write_key(_path(directory, key), private)
    return entry


def _write_index(directory: Path, entries: tuple[LogKeyEntry, ...]) -> None:
    write_file(directory / INDEX, msgspec.json.format(msgspec.json.encode(entries)))


def _read_keys(directory: Path) -> tuple[tuple[LogKeyEntry, KeySigner], ...]:
    return tuple((entry, _load(directory, entry)) for entry in read_index(directory))


def _load(directory: Path, entry: LogKeyEntry) -> KeySigner:
    public = VerifierKey.parse(entry.key)
    path = _path(directory, public)
    signer = KeySigner(public.name, _private(path))
    if signer.key != public:
        raise VerifierFault(f"{path} is another key than {directory / INDEX} lists; {RESTORE}")
    return signer


def _private(path: Path) -> Ed25519PrivateKey:
    key = read_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise VerifierFault(f"{path} is not an Ed25519 key; {RESTORE}")
    return key


def _path(directory: Path, key: VerifierKey) -> Path:
    return directory / f"log-{key.key_id.hex()}.pem"
