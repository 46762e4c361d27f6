"""Small runtime sets for tests."""

from __future__ import annotations

import hashlib

from verifier.policy.runtime.entry import KIND_OF, Entry, Kind, Source
from verifier.policy.runtime.runtime_set import Head, RuntimeSet, assemble
from verifier.policy.runtime.writing import write_runtime_set
from verifier.tcg.algorithms import HashAlg

SHA256 = KIND_OF[Kind.FILE, HashAlg.SHA256]
BASH = Source("deb", "bash", "5.2.15-2+b7", "amd64")
COREUTILS = Source("deb", "coreutils", "9.1-1", "amd64")


def entry(path: str | bytes, content: bytes, *sources: Source, kind=SHA256) -> Entry:
    raw = path.encode() if isinstance(path, str) else path
    return Entry(raw, kind, kind.alg.digest(content), sources)


def a_set(*entries: Entry, name: str = "test") -> RuntimeSet:
    return assemble(Head(name=name), entries)


def text_of(runtime_set: RuntimeSet) -> bytes:
    return b"".join(write_runtime_set(runtime_set))


def many(count: int) -> RuntimeSet:
    """`count` files of `count / 200` packages, with paths as long as a distribution's are."""
    return a_set(
        *(
            Entry(
                b"/usr/lib/python3/dist-packages/package%d/some_directory/file_%06d.py" % (i // 200, i),
                SHA256,
                hashlib.sha256(b"%d" % i).digest(),
                (Source("deb", f"package{i // 200}", "1.0", "amd64"),),
            )
            for i in range(count)
        )
    )
