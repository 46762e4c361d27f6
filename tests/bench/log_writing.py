"""What the transparency log adds: a leaf where a verdict is written, its place in the tree afterwards."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from tests.bench.measure import Result, against
from tests.contract import records
from verifier.store import recording
from verifier.store.judgements import Judgements
from verifier.store.leaves import LogBatch
from verifier.transparency import tiles
from verifier.transparency.entries import verdict_entry
from verifier.transparency.errors import TileError

_TOGETHER: Final = 64
"""Verdicts in a transaction."""
_LEAVES: Final = 1_024
_SIZE: Final = 1_000_000


def leaves() -> list[Result]:
    """On the way of every verdict, against nothing but the hash."""
    made = recording.prepare(records.recording("att-1"), Judgements())
    rows = [
        {**made.verdict, "sequence": number, "evidence": made.evidence} for number in range(1, _TOGETHER + 1)
    ]
    entries = [b"\x00" + verdict_entry(row) for row in rows]

    def batch() -> None:
        log = LogBatch(1)
        for row in rows:
            log.add_verdict(row)
        log.row()

    def bare() -> None:
        for entry in entries:
            hashlib.sha256(entry).digest()

    return [
        against(f"log: leaves of {_TOGETHER} verdicts", batch, bare, "their SHA-256", ratio=6),
        _growth(),
    ]


def _growth() -> Result:
    """Beside it, in a task of its own: two hashes for each leaf are the least."""
    new = os.urandom(32 * _LEAVES)
    held: dict[tuple[int, int], bytes] = {}
    for level, whole, width in tiles.widths(_SIZE):
        if width:
            held[level, whole] = os.urandom(32 * width)

    def read(level: int, number: int) -> bytes:
        if (level, number) not in held:
            raise TileError("no such tile")
        return held[level, number]

    nodes = [os.urandom(65) for _ in range(_LEAVES)]

    def bare() -> None:
        for node in nodes:
            hashlib.sha256(node).digest()

    return against(
        f"log: {_LEAVES} leaves put into a tree of {_SIZE:,}",
        lambda: tiles.append(_SIZE, new, read),
        bare,
        "a hash for each",
        ratio=4,
    )


BENCHES: Final = {"log-writing": leaves}
