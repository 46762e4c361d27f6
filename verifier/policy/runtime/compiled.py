"""A runtime policy ready to be asked: its sets, shared with every other policy that names them, and its patterns."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from verifier.policy.runtime.buckets import DigestContainer
from verifier.policy.runtime.entry import KERNEL_HASHES, KIND_OF, DigestKind, Entry, Kind
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import Lookup, RuntimeOptions, SignatureUse, SigningKey, Verdict
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.section import NamedSet, RuntimeSection
from verifier.policy.runtime.text import written
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType

_FILE_KINDS: Final = {DigestType.FILE: Kind.FILE, DigestType.VERITY: Kind.VERITY}
_MOST_EXPECTED: Final = 8
_SMALL: Final = 250_000
"""Up to here the digests of whole entries are a plain set: 110 bytes each, and three times as fast."""
_NUMBER: Final = re.compile(r"(\d+)")
_UNKNOWN: Final = Lookup(Verdict.UNKNOWN_PATH)


class CompiledReference:
    """Implements `verifier.policy.runtime.reference.RuntimeReference`.

    Proven of the sets: nothing but that they are the ones the section names, by digest.
    """

    def __init__(self, section: RuntimeSection, sets: Mapping[str, RuntimeSet], bank: HashAlg) -> None:
        """Put a reference together.

        Args:
            section: of the policy.
            sets: runtime sets by their SHA-256, all that the section names.
            bank: PCR bank that will be quoted: what it needs is made ready now, and not when a list is judged.

        Raises:
            RuntimeSetError: a set is missing, or has another name than the policy says.
        """
        self.revision = section.revision
        self.options: RuntimeOptions = section.options
        self._sets = [_named(each, sets) for each in section.sets]
        self._staged = [_named(each, sets) for each in section.staged]
        self._excludes = Patterns(chain.from_iterable(each.paths.texts for each in section.excludes))
        self._ignored = section.ignored_keyrings
        self._keys: dict[bytes, tuple[SigningKey, ...]] = {}
        for key in section.keys:
            self._keys[key.key_id] = (*self._keys.get(key.key_id, ()), key)
        self._accepted: dict[HashAlg, Container[bytes]] = {}
        self.accepted(bank)

    def accepted(self, algorithm: HashAlg) -> Container[bytes]:
        """See the protocol: digests of `d-ng | n-ng` (`d-ngv2 | n-ng` for fs-verity), little-endian."""
        if self.options.signatures is SignatureUse.REQUIRED or algorithm.new is None:
            return frozenset()
        found = self._accepted.get(algorithm)
        if found is None:
            found = self._accepted[algorithm] = _whole_entries(self._sets, algorithm)
        return found

    def file(self, path: str, algorithm: str, digest: bytes, digest_type: DigestType) -> Lookup:
        """See the protocol."""
        raw = path.encode("utf-8", "surrogateescape")
        kind = _kind(_FILE_KINDS[digest_type], algorithm, digest)
        found = _UNKNOWN if kind is None else self._exact(kind, digest, raw)
        if found.verdict is not Verdict.UNKNOWN_PATH:
            return found
        pattern = self._excludes.which(raw)
        if pattern is not None:
            return Lookup(Verdict.EXCLUDED, source=f"exclude {pattern}")
        return found if kind is None else self._otherwise(kind, digest, raw)

    def buffer(self, name: str, algorithm: str, digest: bytes) -> Lookup:
        """See the protocol."""
        if name in self._ignored:
            return Lookup(Verdict.EXCLUDED, source=f"keyring {name} is not judged")
        raw = name.encode("utf-8", "surrogateescape").replace(b" ", b"_")
        kind = _kind(Kind.BUFFER, algorithm, digest)
        if kind is None:
            return _UNKNOWN
        found = self._exact(kind, digest, raw)
        return self._otherwise(kind, digest, raw) if found.verdict is Verdict.UNKNOWN_PATH else found

    def keys(self, key_id: bytes) -> tuple[SigningKey, ...]:
        """See the protocol."""
        return self._keys.get(key_id, ())

    def _exact(self, kind: DigestKind, digest: bytes, path: bytes) -> Lookup:
        for sets, verdict in ((self._sets, Verdict.KNOWN), (self._staged, Verdict.KNOWN_STAGED)):
            for each in sets:
                table = each.tables.get(kind)
                row = -1 if table is None else table.find(digest, path)
                if table is not None and row >= 0:
                    sources = each.sources_of(table, row)
                    return Lookup(verdict, source=_source([source.text for source in sources], each))
        return _UNKNOWN

    def _otherwise(self, kind: DigestKind, digest: bytes, path: bytes) -> Lookup:
        """What else the sets have of a path and a digest that do not go together."""
        entries = [entry for each in (*self._sets, *self._staged) for entry in each.at_path(path)]
        same = sorted(
            {(entry.digest, _version(entry)) for entry in entries if entry.kind is kind},
            key=lambda pair: (_natural(pair[1]), pair[0]),
            reverse=True,
        )
        known_as = self._known_as(kind, digest)
        if not same:
            return Lookup(Verdict.UNKNOWN_PATH, digest_known_as=known_as)
        label = kind.alg.label
        expected = tuple(dict.fromkeys((label, each) for each, _ in same))[:_MOST_EXPECTED]
        texts = sorted({source.text for entry in entries for source in entry.sources})
        return Lookup(
            Verdict.WRONG_DIGEST, expected, source=", ".join(texts[:2]) or None, digest_known_as=known_as
        )

    def _known_as(self, kind: DigestKind, digest: bytes) -> str | None:
        for each in (*self._sets, *self._staged):
            table = each.tables.get(kind)
            for row in () if table is None else table.with_digest(digest):
                return written(table.path(row)).decode() if table is not None else None
        return None


def _named(wanted: NamedSet, sets: Mapping[str, RuntimeSet]) -> RuntimeSet:
    found = sets.get(wanted.sha256)
    if found is None:
        raise RuntimeSetError(f"{wanted.name} {wanted.sha256} is not at hand".strip())
    if wanted.name and found.head.name != wanted.name:
        raise RuntimeSetError(f"{wanted.sha256} is {found.head.name!r}, the policy calls it {wanted.name!r}")
    return found


def _kind(kind: Kind, algorithm: str, digest: bytes) -> DigestKind | None:
    alg = KERNEL_HASHES.get(algorithm)
    return None if alg is None or len(digest) != alg.size else KIND_OF[kind, alg]


def _source(texts: Sequence[str], each: RuntimeSet) -> str:
    return f"{', '.join(texts[:2])} in {each.head.name}" if texts else each.head.name


def _version(entry: Entry) -> str:
    return max((source.version for source in entry.sources), key=_natural, default="")


def _natural(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(version)]


def _whole_entries(sets: Iterable[RuntimeSet], algorithm: HashAlg) -> Container[bytes]:
    """Digests of the template data of every file in the sets."""
    new = algorithm.new
    if new is None:
        return frozenset()
    found = bytearray()
    for each in sets:
        for kind, table in each.tables.items():
            if kind.kind is Kind.BUFFER:
                continue
            start = _field_start(kind)
            for row in range(len(table)):
                path = table.path(row)
                data = b"%b%b%b%b\0" % (start, table.digest(row), (len(path) + 1).to_bytes(4, "little"), path)
                found += new(data).digest()
    size = algorithm.size
    if len(found) > _SMALL * size:
        return DigestContainer(bytes(found), size)
    return frozenset(bytes(found[at : at + size]) for at in range(0, len(found), size))


def _field_start(kind: DigestKind) -> bytes:
    """Length and beginning of field d-ng (`sha256:` and NUL), or of d-ngv2 (`verity:sha256:` and NUL)."""
    name = next(name for name, alg in KERNEL_HASHES.items() if alg is kind.alg).replace("_", "-")
    prefix = f"{'verity:' if kind.kind is Kind.VERITY else ''}{name}:".encode() + b"\0"
    return (len(prefix) + kind.alg.size).to_bytes(4, "little") + prefix
