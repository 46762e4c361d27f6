"""How far a source has got with reading its machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """`done` of `total` machines whose details had to be read were read."""

    source: str
    done: int
    total: int


ProgressCallback: TypeAlias = Callable[[SyncProgress], None]
"""Called on the event loop; must be quick."""


def ignore_progress(_: SyncProgress) -> None:
    """Nobody wants to know."""
