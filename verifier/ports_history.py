"""What the service needs of the store to keep history for a time and no longer. A part of `verifier.ports`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPurge:
    """What went, counted as the database counts it: of a partition that goes as a whole, rows are an estimate."""

    rows: int = 0
    partitions: int = 0
    size: int = 0
    """Bytes that the operating system has back: those of dropped partitions."""
    judgements: int = 0

    def __add__(self, other: HistoryPurge) -> HistoryPurge:
        return HistoryPurge(
            rows=self.rows + other.rows,
            partitions=self.partitions + other.partitions,
            size=self.size + other.size,
            judgements=self.judgements + other.judgements,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table or one partition of it."""

    name: str
    partition_of: str | None
    rows: int
    """Estimated, where the database keeps an estimate."""
    size: int
    """Bytes with indexes and what is stored out of line."""
    begins: datetime | None = None
    """Of a partition by time: from when its rows are; None: no bound."""
    ends: datetime | None = None


class HistoryStore(Protocol):
    """The part of `Store` that keeps history in bounds. Latest verdicts stay, with their evidence, whatever their age."""

    async def prepare_history(self, now: datetime) -> int:
        """Make room for the verdicts of the next weeks where the database needs that; how many partitions were made.

        Any number of replicas may call it at once.
        """

    async def purge_history(self, before: datetime) -> HistoryPurge:
        """Drop verdicts judged before this, in short transactions, or as whole partitions that end before it."""

    async def ahead_of_database(self, now: datetime) -> timedelta:
        """By how much this time is later than the database's own; zero where that has no clock of its own."""

    async def history_begins(self) -> datetime | None:
        """When the oldest verdict was judged that is kept beside latest ones, or the beginning of its partition."""

    async def storage(self) -> tuple[StoredTable, ...]:
        """Every table and partition, the largest first."""
