"""Seeded mutations: the same inputs on every machine, for the share of fuzzing that `make test` has."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_WORDS = (
    b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
    b"\0\0\0\x80", b"\xf0\xff\xff\xff", b"\x01\0\0\0", b"null", b"[[[[", b"{}", b'""', b"-1", b"1e999", b"\xc3\x28",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\\u0000", b"\\ud800", b"%00", b"../", b"\r\n", b"\x1e", b"&a", b"*a", b"!!",
)  # fmt: skip
LONGEST = 24_000
"""Longer seeds are cut, so that a run is short; whole they are run as they are."""


def mutations(seeds: Sequence[bytes], count: int, seed: str) -> Iterator[bytes]:
    """`count` inputs near the seeds: bytes set, words put in, pieces cut, doubled, swapped between seeds."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds)[:LONGEST]) if seeds else bytearray()
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            _edit(data, seeds, chance)
        yield bytes(data)


def _edit(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    span = min(chance.choice((1, 1, 2, 4, 8, 32, 200)), len(data) - at)
    match chance.randrange(9):
        case 0 | 1 if at < len(data):
            data[at] = chance.randrange(256)
        case 2 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 3:
            word = chance.choice(_WORDS)
            data[at : at + len(word)] = word
        case 4:
            data[at:at] = chance.choice(_WORDS)
        case 5:
            del data[at : at + span]
        case 6:
            data[at:at] = bytes(data[at : at + span]) * chance.choice((1, 2, 16))
        case 7:
            other = chance.choice(seeds) if seeds else b""
            start = chance.randrange(len(other) + 1)
            data[at : at + span] = other[start : start + span]
        case _:
            del data[at:]
