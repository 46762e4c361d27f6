"""Records without end and says, line by line, which nonces are stored; to be killed (test_faults.py)."""

from __future__ import annotations

import asyncio
import sys

from tests.contract.records import enrol, recording
from verifier.store import open_store

ATTESTERS = 4


async def main(url: str) -> None:
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

    await asyncio.gather(*map(write, range(2 * ATTESTERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
