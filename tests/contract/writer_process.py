"""Records without end and says, line by line, which nonces are stored; to be killed (test_faults.py).

With a folder for keys it extends the transparency log meanwhile (test_log_tree.py).
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.contract.records import enrol, recording
from tests.contract.transparency import Log
from verifier.store import open_store

ATTESTERS = 4


class Now:
    """The time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


async def main(url: str, keys: str | None = None) -> None:
    """Eight writers on four attesters."""
    store = await open_store(url)
    for number in range(ATTESTERS):
        await enrol(store, f"att-{number}")

    async def write(number: int) -> None:
        while True:
            item = recording(f"att-{number % ATTESTERS}")
            stored = await store.record(item)
            assert stored is not None
            print(item.nonce_hash.hex(), stored.attester_id, stored.sequence, flush=True)

    async def extend() -> None:
        log = None if keys is None else Log(store, Path(keys), Now())
        while log is not None:
            await log.extend()

    await asyncio.gather(extend(), *map(write, range(2 * ATTESTERS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
