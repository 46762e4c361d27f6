"""A runtime reference in plain dictionaries: the smallest one that keeps the promises of `RuntimeReference`."""

from __future__ import annotations

import fnmatch
import hashlib
import struct
from collections.abc import Container
from dataclasses import dataclass, field

from verifier.policy.runtime.reference import (
    Handling,
    Lookup,
    RuntimeOptions,
    SignatureUse,
    SigningKey,
    Verdict,
)
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DigestType


@dataclass
class Known:
    """Paths with their SHA-256 digests, patterns of excludes, buffers and keys."""

    files: dict[str, list[bytes]] = field(default_factory=dict)
    staged: dict[str, list[bytes]] = field(default_factory=dict)
    excludes: tuple[str, ...] = ()
    buffers: dict[str, list[bytes]] = field(default_factory=dict)
    trusted: tuple[SigningKey, ...] = ()
    options: RuntimeOptions = RuntimeOptions()  # noqa: RUF009 - frozen
    revision: bytes = b"one"
    fast: bool = True
    asked: list[str] = field(default_factory=list)

    def knows(self, path: str, content: bytes | str) -> Known:
        raw = content.encode() if isinstance(content, str) else content
        self.files.setdefault(path, []).append(hashlib.sha256(raw).digest())
        return self

    def accepted(self, algorithm: HashAlg) -> Container[bytes]:
        if not self.fast or self.options.signatures is SignatureUse.REQUIRED:
            return frozenset()
        data = [
            struct.pack("<I", 40)
            + b"sha256:\0"
            + digest
            + struct.pack("<I", len(path) + 1)
            + path.encode()
            + b"\0"
            for path, digests in self.files.items()
            for digest in digests
        ]
        return frozenset(algorithm.digest(one) for one in data)

    def file(self, path: str, algorithm: str, digest: bytes, digest_type: DigestType) -> Lookup:
        self.asked.append(path)
        if algorithm == "sha256" and digest_type is DigestType.FILE:
            if digest in self.files.get(path, []):
                return Lookup(Verdict.KNOWN)
            if digest in self.staged.get(path, []):
                return Lookup(Verdict.KNOWN_STAGED)
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in self.excludes):
            return Lookup(Verdict.EXCLUDED)
        if path in self.files:
            expected = tuple(("sha256", one) for one in self.files[path])
            return Lookup(Verdict.WRONG_DIGEST, expected, source="coreutils 9.1-1 (debian-12)")
        moved = next((one for one, digests in self.files.items() if digest in digests), None)
        return Lookup(Verdict.UNKNOWN_PATH, digest_known_as=moved)

    def buffer(self, name: str, algorithm: str, digest: bytes) -> Lookup:
        del algorithm
        known = digest in self.buffers.get(name, [])
        return Lookup(Verdict.KNOWN if known else Verdict.UNKNOWN_PATH)

    def keys(self, key_id: bytes) -> tuple[SigningKey, ...]:
        return tuple(key for key in self.trusted if key.key_id == key_id)


DENY, WARN, ALLOW = Handling.DENY, Handling.WARN, Handling.ALLOW
