"""Drops what is old as a running verifier does, in a process of its own that may be struck. `python -m tests.faults.purger URL`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from tests.contract.records import NOW
from verifier.store import open_store

DAY = timedelta(days=1)
KEPT = 90 * DAY


async def purge(url: str) -> None:
    """All of `verifier.service.retention`, whatever time it is."""
    store = await open_store(url, migrate=False)
    try:
        await store.purge_history(NOW - KEPT)
        await store.purge_log(NOW - KEPT, NOW)
        await store.purge_evidence(NOW - KEPT)
        await store.purge_events(NOW - KEPT)
        await store.purge_expired(NOW)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(purge(sys.argv[1]))
