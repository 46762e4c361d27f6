"""When memory is looked through for garbage that refers to itself: not in the middle of an attestation."""

from __future__ import annotations

import gc
from typing import Final

EVERY: Final = 3600.0
"""Seconds between two looks at everything that has been made since the start."""
_YOUNG: Final = 5_000
_MIDDLE: Final = 20
_NEVER: Final = 1_000_000_000


def settle() -> None:
    """After the start: what is here now stays, and is not looked through again.

    A full collection would hold up the loop for 0.1 s then, and one of what has come since for several milliseconds,
    many times a minute. It is left to `sweep`; young objects are collected as they come, in about a millisecond.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


async def sweep() -> None:
    """Collect all that has come since the start. Takes some 10 ms for 100,000 objects."""
    gc.collect()
