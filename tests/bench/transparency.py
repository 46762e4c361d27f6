"""The transparency log: what a leaf costs, what a proof costs, and how fast a database is held against its log."""

from __future__ import annotations

import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import create_engine, insert

from tests.bench.measure import Result, against, within
from tests.contract.doctoring import KEY, sequence
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Trust
from verifier.store import blobs, upgrade, values
from verifier.store.leaves import LogBatch
from verifier.store.log_batches import id_at
from verifier.store.schema import attestation, judgement, latest
from verifier.store.schema_log import log_batch
from verifier.transparency import checkpoint, merkle, tiles
from verifier.transparency.bundle import Bundle
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.entries import verdict_entry

LEAF_US: Final = 5.0
LEAVES: Final = 100_000
ROWS: Final = 60_000
GUESTS: Final = 500
TOGETHER: Final = 16
ROWS_PER_SECOND: Final = 20_000
MEMORY_MB: Final = 120
"""However many rows: the pages of the database and of the file of hashes that the process keeps."""
_NOW: Final = values.micros(datetime(2026, 3, 1, tzinfo=UTC))
_SAID: Final = b'{"findings":[],"vector":{"hardware":2}}'


def _verdict(number: int) -> dict[str, object]:
    return {
        "attester_id": f"att-k4zdsmjqgizdgmbrgayt{number % GUESTS:04}",
        "sequence": number // GUESTS + 1,
        "tenant": "default",
        "tier": 0,
        "judged_at": _NOW + number,
        "valid_until": _NOW + number + 900_000_000,
        "policy_id": "strict",
        "policy_revision": "ab" * 32,
        "evidence_sha256": hashlib.sha256(number.to_bytes(8)).digest(),
        "clock": 123_456_789,
        "reset_count": 3,
        "restart_count": 0,
        "safe": True,
        "boot_id": "2b1c9b1e-7c1c-4b39-a3f0-7f4a3a9c0d11",
        "judgement": hashlib.sha256(_SAID).digest(),
        "rejudged_at": None,
        "evidence": '{"boot-log":"' + "ab" * 32 + '","quote":"' + "cd" * 32 + '"}',
    }


def leaf() -> list[Result]:
    row = _verdict(7)
    entry = verdict_entry(row)
    return [
        within(
            "log: leaf of a verdict",
            lambda: merkle.leaf_hash(verdict_entry(row)),
            budget_us=LEAF_US,
            bare=lambda: hashlib.sha256(entry).digest(),
            bare_name=f"SHA-256 of {len(entry)} bytes",
        )
    ]


class _Tree:
    """Tiles in memory."""

    def __init__(self) -> None:
        grown = tiles.append(0, os.urandom(32 * LEAVES), self.read)
        self.tiles = {(each.level, each.number): each.hashes for each in grown.tiles}
        self.root = grown.root

    def read(self, level: int, number: int) -> bytes:
        return self.tiles[level, number]


def proofs() -> list[Result]:
    tree, more = _Tree(), os.urandom(32 * 1_000)
    index = LEAVES // 3
    proof = tiles.inclusion(index, LEAVES, tree.read)
    wanted = tree.read(0, index >> 8)[32 * (index % 256) : 32 * (index % 256 + 1)]
    old = tiles.consistency(index, LEAVES, tree.read)
    old_root = tiles.root(index, tree.read)
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    note = checkpoint.sign(Checkpoint(KEY.key.name, LEAVES, tree.root), [KEY])
    entry = verdict_entry(_verdict(7))
    small = checkpoint.sign(Checkpoint(KEY.key.name, 1, merkle.leaf_hash(entry)), [KEY])
    bundle = Bundle(entry, 0, (), small).encode()
    text, public = note.partition("\n\n")[0].encode(), private.public_key()
    signature = private.sign(text)

    def nodes(count: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                hashlib.sha256(b"\x01" + wanted + wanted).digest()

        return run

    return [
        against(
            "log: append 1,000 leaves",
            lambda: tiles.append(LEAVES, more, tree.read),
            nodes(1_000),
            "1,000 SHA-256 of a node",
            ratio=2.5,
        ),
        against(
            f"log: check the proof of one of {LEAVES:,} leaves",
            lambda: merkle.verify_inclusion(wanted, index, LEAVES, proof, tree.root),
            nodes(len(proof)),
            f"{len(proof)} SHA-256 of a node",
            ratio=3.0,
        ),
        against(
            f"log: check that {LEAVES:,} leaves grew out of {index:,}",
            lambda: merkle.verify_consistency(index, old_root, LEAVES, tree.root, old),
            nodes(2 * len(old)),
            f"{2 * len(old)} SHA-256 of a node",
            ratio=3.0,
        ),
        against(
            "log: check a proof bundle, signature and all",
            lambda: Bundle.parse(bundle).proven([KEY.key]),
            lambda: public.verify(signature, text),
            "Ed25519 verify",
            ratio=2.0,
        ),
    ]


def _database(folder: str) -> str:
    """Verdicts in batches as the store writes them, all in the log."""
    url = f"sqlite:///{folder}/verifier.db"
    upgrade(url)
    newest = {}
    with create_engine(url).begin() as connection:
        packed = blobs.pack(hashlib.sha256(_SAID).digest(), _SAID)
        connection.execute(
            insert(judgement).values(
                digest=packed.digest,
                codec=packed.codec,
                size=packed.size,
                content=packed.content,
                last_used_at=0,
            )
        )
        for first in range(0, ROWS, TOGETHER):
            batch = LogBatch(id_at(_NOW + first))
            rows = [_verdict(number) for number in range(first, first + TOGETHER)]
            for row in rows:
                batch.add_verdict(row)
                newest[row["attester_id"]] = row
            connection.execute(insert(attestation), rows)
            connection.execute(insert(log_batch), batch.row())
        for row in newest.values():
            shown = {name: value for name, value in row.items() if name in latest.c}
            connection.execute(insert(latest).values(**shown, lifecycle="enrolled"))
        sequence(connection)
    return url


def database() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        url = _database(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        report = audit_database(url, Trust((KEY.key,)))
        cost = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert report.findings.count == 0, list(report.findings)[:3]
        assert report.verdicts == ROWS
        bare = _read_only(Path(folder) / "verifier.db")
    rate = ROWS / cost
    return [
        Result(
            f"log: hold a database of {ROWS:,} verdicts against it",
            rate,
            "rows/s",
            f"to read and hash its rows {ROWS / bare:,.0f} rows/s",
            cost / bare,
            f">= {ROWS_PER_SECOND:,} rows/s",
            rate >= ROWS_PER_SECOND,
        ),
        Result(
            f"log: memory for that of {ROWS:,} verdicts",
            grown,
            "MB",
            "",
            None,
            f"<= {MEMORY_MB} MB",
            grown <= MEMORY_MB,
        ),
    ]


def _read_only(path: Path) -> float:
    """CPU seconds for the rows alone, with the driver alone, and a hash of each."""
    import sqlite3

    connection = sqlite3.connect(path)
    start = time.process_time()
    for row in connection.execute("SELECT * FROM attestation"):
        hashlib.sha256(repr(row).encode()).digest()
    return time.process_time() - start


BENCHES = {"log-leaf": leaf, "log-proofs": proofs, "log-database": database}
