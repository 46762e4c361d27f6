"""What the service needs of the store to keep the transparency log, and of the keys that sign it. A part of `verifier.ports`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from verifier.transparency.notes import Signer, VerifierKey
from verifier.transparency.tiles import Tile, TileReader


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """What the database says the log is. Nothing of it is believed before its signature and tiles are checked."""

    size: int
    checkpoint: str | None
    """The newest signed note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What the log becomes."""

    size: int
    root: bytes
    checkpoint: str
    tiles: Sequence[Tile]


Grow = Callable[[StoredHead, bytes, TileReader], Growth | None]
"""From what is stored and the hashes of new leaves, one after the other; None: nothing is to be changed.

Called in the transaction, which may begin again: it must touch nothing else. Raises `LogDamagedError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """What came of a look at what waits. `more`: there is more that waits already."""

    leaves: int
    size: int
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFigures:
    """How the log stands. The times are None where there is nothing."""

    waiting: int
    """Leaves that are not in the tree yet."""
    oldest_waiting: datetime | None
    size: int
    checkpoint_at: datetime | None
    witnesses: int
    """That cosigned the newest checkpoint that was cosigned at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint that was signed."""

    size: int
    root: bytes
    at: datetime
    note: str
    """With what its witnesses signed below it."""
    witnesses: tuple[str, ...] = ()
    """Names of their keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLeaf:
    """A row of the database as the entry that it is in the log."""

    entry: bytes
    index: int | None
    """None while it waits."""


class LogStore(Protocol):
    """The transparency log in the database."""

    async def extend_log(self, grow: Grow, now: datetime, pause: timedelta) -> Extended:
        """Put leaves that wait into the tree, of committed transactions, in one order for all replicas, one at a time.

        Not many at once; none within `pause` of the last time, whoever that was.
        """

    async def sign_log(self, grow: Grow, now: datetime) -> bool:
        """As `extend_log` with no leaves: for a first checkpoint, or another key. Whether anything was signed."""

    async def log_figures(self) -> LogFigures:
        """How it stands."""

    async def log_checkpoint(
        self, *, size: int | None = None, cosigned: bool = False
    ) -> StoredCheckpoint | None:
        """The newest one, that of this size, or the newest one that was cosigned."""

    async def log_tiles(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Hashes of tiles by level and number, without those that are not there."""

    async def leaf_of_verdict(self, tenant: str, attester_id: str, sequence: int | None) -> StoredLeaf | None:
        """Of the latest verdict where there is no sequence. None: no such verdict, or from before there was a log."""

    async def leaf_of_audit(self, tenant: str, sequence: int) -> StoredLeaf | None:
        """None: no such entry, or from before there was a log."""


class LogRecords(Protocol):
    """The part of `Store` that changes what is beside the tree."""

    async def add_cosignature(self, size: int, witness: str, line: str, now: datetime) -> None:
        """Keep a witness' signature line of the checkpoint of this size, in place of an older one."""

    async def purge_log(self, before: datetime, now: datetime) -> int:
        """Drop leaves of verdicts that are gone with their history, and thin out old checkpoints; how many leaves went."""


class LogKeys(Protocol):
    """The keys of the log, as they are now."""

    @property
    def origin(self) -> str:
        """Name of the log."""

    def signers(self) -> tuple[Signer, ...]:
        """Who signs: one key, or the new and the old one while they change."""

    def trusted(self) -> tuple[VerifierKey, ...]:
        """Whose signature under the stored checkpoint is believed."""
