"""What an audit is held against, and what it found. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.notes import VerifierKey

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST: Final = 1_000
"""Findings kept; more are counted. Those with the lowest index are kept."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an auditor brings along.

    Attributes:
        keys: of the log.
        witnesses: of those whose cosignatures count.
        kept: the checkpoint kept from before, already believed.
    """

    keys: Sequence[VerifierKey]
    witnesses: Sequence[VerifierKey] = ()
    kept: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Tampering:
    """A row that is not what the log says.

    Attributes:
        table: where it is, or was.
        key: which row, in words of its columns.
        problem: what differs.
        index: of its leaf, where that is known: the order in which things happened.
        at: when it was written, in microseconds since 1970 UTC, as far as the database tells.
    """

    table: str
    key: str
    problem: str
    index: int | None = None
    at: int | None = None


@dataclass(slots=True)
class Findings:
    """Tampered rows, in bounds."""

    count: int = 0
    _kept: list[Tampering] = field(default_factory=list)

    def add(self, one: Tampering) -> None:
        """Keep it, if it is among the first."""
        self.count += 1
        self._kept.append(one)
        if len(self._kept) > 2 * MOST:
            self._kept = self.first(MOST)

    def first(self, most: int) -> list[Tampering]:
        """In the order of the log; rows whose place is not known come last."""
        return sorted(self._kept, key=_order)[:most]

    def __iter__(self) -> Iterator[Tampering]:
        return iter(self.first(MOST))


def _order(one: Tampering) -> tuple[bool, int, str, str]:
    return one.index is None, one.index or 0, one.table, one.key


@dataclass(frozen=True, slots=True)
class State:
    """A signed state of the log that the audit was held against."""

    origin: str
    size: int
    root: bytes
    keys: tuple[str, ...]
    """Names and ids of the keys that signed it."""
    witnesses: tuple[tuple[str, int], ...] = ()
    """Who cosigned it, and when (seconds since 1970 UTC)."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit.

    Attributes:
        state: None where no checkpoint in the database was signed with a key that is trusted: then nothing is proven.
        verdicts: rows of `attestation` that were held against the log.
        decisions: rows of `audit` that were.
        waiting: rows whose leaves are not in the tree yet; nobody has signed them.
        unlogged: rows without a leaf, older than the log: nothing is proven of them.
        not_kept: leaves whose rows are older than the history that is kept.
        kept_since: from when on each leaf has to have its row, in microseconds since 1970 UTC.
        kept_checkpoint: size of the checkpoint kept from before that the log was held against.
        findings: what was tampered with.
    """

    state: State | None
    verdicts: int
    decisions: int
    waiting: int
    unlogged: int
    not_kept: int
    kept_since: int | None
    kept_checkpoint: int | None
    findings: Findings


def moment(at: int | None) -> datetime | None:
    """A stored time; None where there is none, or one that no calendar has."""
    try:
        return None if at is None else _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return None
