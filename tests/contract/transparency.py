"""A transparency log in a store, what a service does with it, and what it has to be."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from sqlalchemy import select

from tests.contract.records import NOW
from verifier.keys.log_keys import FileLogKeys
from verifier.service.events import LocalEvents
from verifier.service.log_proofs import LogProofs
from verifier.service.log_sequencer import LogSequencer
from verifier.service.recorder import Recorder
from verifier.store.schema import attestation, audit
from verifier.store.schema_log import log_batch
from verifier.transparency import checkpoint, merkle
from verifier.transparency.entries import audit_entry, verdict_entry

ORIGIN = "verifier.example/log"


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self):
        return self.at


class Log:
    """A log in one store, and what a service does with it."""

    def __init__(self, store, folder, clock=None, witnesses=()) -> None:
        self.store = store
        self.clock = clock or Clock()
        self.folder = folder
        self.keys = FileLogKeys(folder, ORIGIN, self.clock.now)
        recorder = Recorder(store, LocalEvents())
        self.proofs = LogProofs(store, recorder, self.clock, witnesses)
        self.sequencer = LogSequencer(
            store=store,
            keys=self.keys,
            recorder=recorder,
            clock=self.clock,
            pause=timedelta(0),
            required=True,
        )

    async def extend(self) -> int:
        return await self.sequencer.extend()

    async def opened(self, **which):
        found = await self.proofs.checkpoint(**which)
        return checkpoint.opened(found.note, self.keys.trusted()).checkpoint

    async def do(self, *statements) -> None:
        """What somebody with access to the database does."""
        await self.store._backend.write(
            lambda connection: [connection.execute(statement) for statement in statements] and None
        )

    async def rows(self, query):
        return await self.store._backend.write(
            lambda connection: [dict(row) for row in connection.execute(query).mappings()]
        )


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:middle]) + naive_root(leaves[middle:])).digest()


async def indexed_rows(log):
    """Leaf of every row by its index; two rows with one index are an error."""
    first = {one["id"]: one["first_index"] for one in await log.rows(select(log_batch))}
    leaves: dict[int, bytes] = {}
    for table, entry in ((attestation, verdict_entry), (audit, audit_entry)):
        for row in await log.rows(select(table)):
            index = first[row["log_batch"]] + row["log_place"]
            assert index not in leaves
            leaves[index] = merkle.leaf_hash(entry(row))
    return leaves


async def the_tree_is_made_of_the_rows(log) -> int:
    leaves = await indexed_rows(log)
    assert sorted(leaves) == list(range(len(leaves))), "indices have no gaps"
    signed = await log.opened()
    assert signed.size == len(leaves)
    assert signed.root == naive_root([leaves[index] for index in range(len(leaves))])
    assert (await log.store.log_figures()).waiting == 0
    return signed.size
