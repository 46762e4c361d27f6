"""Runtime policies of Keylime (JSON, version 1) as a runtime set and the `runtime` part of a policy.

What they say and we cannot is listed, one sentence each: nothing is left out silently.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from verifier.policy.runtime.breadth import Breadth, breadth
from verifier.policy.runtime.entry import KIND_OF, Entry, Kind, Source, logged_path
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import REGEX, Patterns
from verifier.policy.runtime.runtime_set import Head, RuntimeSet, assemble
from verifier.refusals import REFUSALS
from verifier.tcg.algorithms import HashAlg

MAX_POLICY: Final = 1024 * 1024 * 1024
_VERSION: Final = 1
_BOOT_AGGREGATE: Final = "boot_aggregate"
_ALG_BY_DIGITS: Final = {
    2 * alg.size: alg for alg in (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
}
_KEY_ID: Final = 4
_ANY: Final = "*"
_ORIGIN: Final = "imported from a runtime policy of Keylime"


class _Meta(msgspec.Struct, frozen=True):
    version: int


class _Ima(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ignored_keyrings: list[str] = []
    log_hash_alg: str = "sha1"  # of template digests, which are recomputed here
    dm_policy: Any = None


class _Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    meta: _Meta
    digests: dict[str, list[str]]
    excludes: list[str] = []
    keyrings: dict[str, list[str]] = {}
    ima: _Ima = msgspec.field(default_factory=_Ima)
    ima_buf: dict[str, list[str]] = {}
    verification_keys: str = ""
    release: int = 0
    rules: Any = None


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a policy.

    Attributes:
        runtime_set: its digests, keyrings and buffers.
        part: the rest, as `runtime` of a policy has it; without `sets`.
        losses: what it says and this does not, one sentence each.
        notes: what is the same, said otherwise.
    """

    runtime_set: RuntimeSet
    part: Mapping[str, Any]
    losses: tuple[str, ...]
    notes: tuple[str, ...]


def read_keylime(data: bytes, head: Head) -> Imported:
    """Read a runtime policy, signed (DSSE) or not; signatures are not checked.

    Raises `RuntimeSetError` for what is no such policy, or has another version.
    """
    policy, notes = _decode(data)
    if policy.meta.version != _VERSION:
        raise RuntimeSetError(
            f"version {policy.meta.version} of Keylime's format is not known, 1 is", where="meta"
        )
    return _Import(policy, head, notes).result()


def _decode(data: bytes) -> tuple[_Policy, list[str]]:
    if len(data) > MAX_POLICY:
        raise RuntimeSetError(f"a policy of {len(data)} bytes is larger than {MAX_POLICY}")
    notes: list[str] = []
    try:
        if b'"payloadType"' in data[:4096] or b'"payloadType"' in data[-4096:]:
            data = base64.b64decode(msgspec.json.decode(data, type=_Envelope).payload, validate=True)
            notes.append("it is signed; the signature was not checked")
        return msgspec.json.decode(data, type=_Policy), notes
    except (msgspec.DecodeError, binascii.Error, UnicodeError, RecursionError, ValueError) as error:
        raise RuntimeSetError(f"no runtime policy of Keylime: {error}") from error


@dataclass(slots=True)
class _Import:
    policy: _Policy
    head: Head
    notes: list[str]
    losses: list[str] = field(default_factory=list)

    def result(self) -> Imported:
        runtime_set = assemble(self.head, self._entries())
        part: dict[str, Any] = {}
        excludes = self._excludes()
        if excludes:
            part["excludes"] = [{"paths": excludes, "why": _ORIGIN}]
        self._keyrings(part)
        keys = self._keys()
        if keys:
            part["signatures"] = {"use": "accepted", "keys": keys}
        if self.policy.ima.dm_policy is not None:
            self.losses.append(
                "ima.dm_policy: rules of device-mapper devices are not carried; write the targets that may be"
                " loaded under `device_mapper`"
            )
        if self.policy.rules:
            self.losses.append("rules: not known here")
        return Imported(
            runtime_set=runtime_set, part=part, losses=tuple(self.losses), notes=tuple(self.notes)
        )

    def _entries(self) -> Iterator[Entry]:
        files = {path: digests for path, digests in self.policy.digests.items() if path != _BOOT_AGGREGATE}
        if len(files) != len(self.policy.digests):
            self.notes.append("boot_aggregate is left out: it is held against the quote, not against a list")
        yield from self._listed("digests", Kind.FILE, files)
        yield from self._listed("keyrings", Kind.BUFFER, self.policy.keyrings)
        yield from self._listed("ima-buf", Kind.BUFFER, self.policy.ima_buf)

    def _listed(self, key: str, kind: Kind, listed: Mapping[str, list[str]]) -> Iterator[Entry]:
        source = (Source("keylime", self.head.name),)
        for name, texts in listed.items():
            path = logged_path(name.encode("utf-8", "surrogateescape"))
            if not texts:
                self.losses.append(
                    f"{key}: {name[:200]!r} has no digest; there it is refused, here it is unknown"
                )
            for text in texts:
                digest = _digest(text)
                if digest is None:
                    self.losses.append(
                        f"{key}: {text[:140]!r} of {name[:200]!r} is no SHA-1, SHA-256, SHA-384 or SHA-512"
                    )
                else:
                    yield Entry(path, KIND_OF[kind, digest[0]], digest[1], source)

    def _excludes(self) -> list[str]:
        """Keylime's expressions are Python's, and need only match the beginning of a path."""
        kept: list[str] = []
        for text in dict.fromkeys(self.policy.excludes):
            pattern = f"{REGEX}(?:{text}).*"
            try:
                wide, example = breadth(Patterns([pattern]))
            except RuntimeSetError as error:
                self.losses.append(f"excludes: {text[:200]!r} cannot be matched here ({error.detail})")
                continue
            if wide is Breadth.EVERYTHING:
                self.losses.append(
                    f"excludes: {text[:200]!r} lets through {example}, as it does any name; no policy may say that"
                )
            else:
                kept.append(pattern)
        together, example = breadth(Patterns(kept))
        if together is Breadth.EVERYTHING:
            self.losses.append(f"excludes: all together let through {example}, as any name; none is carried")
            return []
        return kept

    def _keyrings(self, part: dict[str, Any]) -> None:
        ignored = sorted(set(self.policy.ima.ignored_keyrings))
        if _ANY in ignored:
            part["unknown_keys"] = "allow"
            self.notes.append("ima.ignored_keyrings is '*': keys on keyrings are allowed, whichever they are")
        elif ignored:
            part["ignored_keyrings"] = ignored
        if self.policy.keyrings:
            self.losses.append(
                "keyrings: keys that were measured and known could sign files from there on; name their certificates"
                " under `signatures.keys`, or trust all of a keyring with `signatures.learn_keyrings`"
            )

    def _keys(self) -> list[str]:
        """`verification-keys` is a keyring in JSON, in a string, sometimes twice."""
        text: Any = self.policy.verification_keys
        try:
            while isinstance(text, str) and text:
                text = msgspec.json.decode(text)
            if not text:
                return []
            return [
                self._key(base64.b64decode(public, validate=True), key_id)
                for public, key_id in zip(text["pubkeys"], text["keyids"], strict=True)
            ]
        except (*REFUSALS, msgspec.DecodeError, KeyError) as error:
            self.losses.append(f"verification-keys: cannot be read ({error})")
            return []

    def _key(self, der: bytes, key_id: int) -> str:
        key = load_der_public_key(der)
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise TypeError("a key that is neither RSA nor EC")
        own = x509.SubjectKeyIdentifier.from_public_key(key).digest[-_KEY_ID:]
        if int.from_bytes(own, "big") != key_id:
            self.losses.append(
                f"verification-keys: key {key_id:08x} has an id of its own, which a bare key cannot carry; give its"
                " certificate under `signatures.keys`"
            )
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _digest(text: str) -> tuple[HashAlg, bytes] | None:
    alg = _ALG_BY_DIGITS.get(len(text))
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    # `fromhex` passes over blanks, which would make a digest that is too short.
    return None if alg is None or len(digest) != alg.size else (alg, digest)
