"""Compressed request bodies: whatever they expand to, no more than the limit is held."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import zstandard

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from verifier.errors import EvidenceError
from verifier.web.bodies import expand

RAISES = (EvidenceError,)
RUNS = 600
LIMIT = 256 * 1024
MEMORY = Bound(40, 3 * LIMIT)
ENCODINGS = ("gzip", "zstd")


def seeds() -> Iterator[bytes]:
    contents = [b"", b'{"attester_id":"att-1"}', bytes(LIMIT), bytes(LIMIT + 1), bytes(range(256)) * 40]
    yield from choices(
        {
            0: [gzip.compress(content, mtime=0) for content in contents],
            1: [zstandard.compress(content) for content in contents],
        }
    )


def target(data: bytes) -> None:
    encoding = ENCODINGS[data[0] % 2 if data else 0]
    body = expand(data[1:], encoding, LIMIT)
    assert len(body) <= LIMIT
