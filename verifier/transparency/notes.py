"""Signed notes: C2SP signed-note (c2sp.org/signed-note). Text, and signatures of keys that have a name.

A verifier key is written `NAME+KEYID+BASE64`, as Go's note package and every witness write it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from verifier.transparency.errors import NoteError, UnsignedError

MAX_NOTE: Final = 256 * 1024
MAX_SIGNATURES: Final = 100
_KEY_ID: Final = 4
_PUBLIC: Final = 32
_PRIVATE: Final = "PRIVATE+KEY+"
_DASH: Final = "\u2014"
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")
_NAME: Final = re.compile(r"[^\s+]+")
_HEX: Final = re.compile(r"[0-9a-f]{8}")


class Algorithm(enum.IntEnum):
    """Signature types that are verified here, by their assigned byte."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04
    """Of a witness, with a time: c2sp.org/tlog-cosignature."""


_ALGORITHMS: Final = {bytes([each]): each for each in Algorithm}


@dataclass(frozen=True)
class VerifierKey:
    """A public key and the name it signs under.

    Attributes:
        public: 32 bytes, as in RFC 8032.
    """

    name: str
    algorithm: Algorithm
    public: bytes

    def __post_init__(self) -> None:
        _checked_name(self.name)
        if len(self.public) != _PUBLIC:
            raise NoteError(f"an Ed25519 key has {_PUBLIC} bytes, this one {len(self.public)}")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read `NAME+KEYID+BASE64`.

        Raises:
            NoteError: not of this form, of another algorithm, or with an id that is not that of the key.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        if not _HEX.fullmatch(key_id):
            raise NoteError(
                f"{text[:80]!r} is no verifier key: NAME+KEYID+BASE64, with the id as 8 hex digits"
            )
        data = _decoded(encoded, "the key")
        if data[:1] not in _ALGORITHMS:
            raise NoteError(
                f"the key of {name!r} is of an algorithm that is not known here; 1 and 4 are Ed25519"
            )
        key = cls(name, _ALGORITHMS[data[:1]], data[1:])
        if key.key_id.hex() != key_id:
            raise NoteError(
                f"the key of {name!r} has the id {key.key_id.hex()}, not {key_id}: one was mistyped"
            )
        return key

    def encode(self) -> str:
        """`NAME+KEYID+BASE64`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self._typed).decode()}"

    @property
    def key_id(self) -> bytes:
        """The four bytes that signatures name it by; no proof of anything."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed).digest()[:_KEY_ID]

    @property
    def _typed(self) -> bytes:
        return bytes([self.algorithm]) + self.public

    @cached_property
    def _loaded(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.public)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over exactly these bytes."""
        try:
            self._loaded.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """A private key, wherever it is kept."""

    @property
    def key(self) -> VerifierKey:
        """Its public part."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature over `message`, 64 bytes."""


class KeySigner:
    """A private key in memory."""

    def __init__(
        self, name: str, private: Ed25519PrivateKey, algorithm: Algorithm = Algorithm.ED25519
    ) -> None:
        self.key: Final = VerifierKey(name, algorithm, private.public_key().public_bytes_raw())
        self._private = private

    @classmethod
    def parse(cls, text: str, algorithm: Algorithm = Algorithm.ED25519) -> KeySigner:
        """Read `PRIVATE+KEY+NAME+KEYID+BASE64`, to sign by `algorithm`: the form is the same for logs and witnesses.

        Raises:
            NoteError: not of this form; the text is not told.
        """
        if not text.startswith(_PRIVATE):
            raise NoteError("no private key of a log or witness: PRIVATE+KEY+NAME+KEYID+BASE64")
        name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _decoded(encoded, f"the private key of {name[:80]!r}")
        if data[:1] not in _ALGORITHMS or len(data) != 1 + _PUBLIC:
            raise NoteError(f"the private key of {name[:80]!r} is not one of Ed25519")
        private = Ed25519PrivateKey.from_private_bytes(data[1:])
        if cls(name, private, _ALGORITHMS[data[:1]]).key.key_id.hex() != key_id:
            raise NoteError(
                f"the private key of {name[:80]!r} has another id than it says: something was mistyped"
            )
        return cls(name, private, algorithm)

    def encode(self) -> str:
        """`PRIVATE+KEY+NAME+KEYID+BASE64`, for a file that nobody else reads."""
        typed = bytes([self.key.algorithm]) + self._private.private_bytes_raw()
        return f"{_PRIVATE}{self.key.name}+{self.key.key_id.hex()}+{base64.b64encode(typed).decode()}"

    def sign(self, message: bytes) -> bytes:
        """See the protocol; the same message has the same signature."""
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class Signature:
    """A line under a note. Nothing of it is believed yet."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """As it stands under the note, with its newline."""
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Read a line without its newline.

        Raises:
            NoteError: no signature line.
        """
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != _DASH or not _NAME.fullmatch(name):
            raise NoteError(f"{line[:80]!r} is no signature line: an em dash, a key's name, base64")
        data = _decoded(encoded, f"the signature of {name!r}")
        if len(data) <= _KEY_ID:
            raise NoteError(f"the signature of {name!r} has {len(data)} bytes: nothing behind the key's id")
        return cls(name, data[:_KEY_ID], data[_KEY_ID:])


@dataclass(frozen=True, slots=True)
class Note:
    """Text and the signatures under it. Nothing of it is believed before `signers`."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes | str) -> Note:
        """Read a note.

        Raises:
            NoteError: no note, or a larger one than any log writes.
        """
        text = _plain(data)
        head, separator, tail = text.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise NoteError(
                "no signed note: a text, an empty line, and signature lines that end with a newline"
            )
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise NoteError(f"a note with {len(lines)} signatures; {MAX_SIGNATURES} are read at most")
        return cls(head + "\n", tuple(map(Signature.parse, lines)))

    def encode(self) -> str:
        """As it is sent and stored."""
        return f"{self.text}\n{''.join(each.line() for each in self.signatures)}"

    def of(self, key: VerifierKey) -> Iterator[Signature]:
        """The signatures that say they are of this key."""
        for each in self.signatures:
            if each.name == key.name and each.key_id == key.key_id:
                yield each

    def signers(self, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
        """Which of the trusted keys have signed this text: at least one.

        Raises:
            UnsignedError: none has.
            NoteError: a signature that says it is of one of them is not.
        """
        trusted = tuple(keys)
        for key in trusted:
            if key.algorithm is not Algorithm.ED25519:
                raise NoteError(f"the key {key.encode()} is that of a witness, not of a log")
        found = tuple(key for key in trusted if self._signed_by(key))
        if not found:
            said = ", ".join(f"{each.name}+{each.key_id.hex()}" for each in self.signatures) or "nobody"
            asked = ", ".join(f"{key.name}+{key.key_id.hex()}" for key in trusted) or "no key"
            raise UnsignedError(f"not signed with {asked}; the signatures are of {said}")
        return found

    def _signed_by(self, key: VerifierKey) -> bool:
        signed = False
        for each in self.of(key):
            if not key.verify(each.value, self.text.encode()):
                raise NoteError(
                    f"the signature of {key.name}+{key.key_id.hex()} does not hold: the note was changed"
                )
            signed = True
        return signed


def signed(text: str, signers: Sequence[Signer]) -> Note:
    """A note over `text`, which ends with a newline."""
    if not text.endswith("\n"):
        raise NoteError("the text of a note ends with a newline")
    message = _plain(text).encode()
    signatures = (Signature(each.key.name, each.key.key_id, each.sign(message)) for each in signers)
    return Note(text, tuple(signatures))


def _plain(data: bytes | str) -> str:
    if len(data) > MAX_NOTE:
        raise NoteError(f"a note of {len(data)} bytes; {MAX_NOTE} are read at most")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        text.encode()
    except UnicodeError as error:
        raise NoteError(f"a note is UTF-8: {error}") from error
    control = _CONTROL.search(text)
    if control is not None:
        raise NoteError(f"a note has no control characters; at {control.start()} there is {control[0]!r}")
    return text


def _checked_name(name: str) -> None:
    if not _NAME.fullmatch(name) or _NO_TEXT.search(name):
        raise NoteError(f"{name[:80]!r} is no name of a key: not empty, without spaces and without +")


def _decoded(text: str, what: str) -> bytes:
    """Base64 in its only form: what has two forms could be changed without a signature noticing."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise NoteError(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise NoteError(f"{what} is base64 with bits that mean nothing")
    return data
