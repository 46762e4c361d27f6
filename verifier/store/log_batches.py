"""Leaves of the transparency log, gathered while a transaction is at work and written with it.

One row for all of them. They are in no order yet, and nobody waits for anybody: `verifier.store.log` gives them their
indices afterwards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, insert

from verifier.store.leaves import LogBatch
from verifier.store.schema_log import log_batch

_GATHERED: Final = "vtpm_attest.log_batch"
_RANDOM_BITS: Final = 12

T = TypeVar("T")


def new_id() -> int:
    """For one transaction. Two that are made within a microsecond are the same once in thousands of times."""
    return time.time_ns() // 1_000 << _RANDOM_BITS | random.getrandbits(_RANDOM_BITS)


def id_at(micros: int) -> int:
    """The lowest id of a batch that is made at this time."""
    return micros << _RANDOM_BITS


def made_at(batch_id: int) -> int:
    """When a batch was made, by the clock of its writer; microseconds since 1970."""
    return batch_id >> _RANDOM_BITS


def of(connection: Connection) -> LogBatch:
    """The batch of the caller's transaction, which `sealing` writes."""
    batch: LogBatch = connection.info.setdefault(_GATHERED, LogBatch(new_id()))
    return batch


def sealing(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """`work`, and then the batch of what it made leaves; forgotten where it fails, or is run again."""

    def run(connection: Connection) -> T:
        connection.info.pop(_GATHERED, None)
        result = work(connection)
        batch: LogBatch | None = connection.info.pop(_GATHERED, None)
        if batch is not None:
            connection.execute(insert(log_batch), batch.row())
        return result

    return run
