"""When memory is looked through for garbage that refers to itself, and when what is free goes back to the system.

Neither happens in the middle of an attestation.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any, Final

EVERY: Final = 3600.0
"""Seconds between two looks at everything that has been made since the start."""
TRIM_EVERY: Final = 10.0
"""Seconds between two returns of free memory."""
_M_MMAP_THRESHOLD: Final = -3
_MAPPED: Final = 128 * 1024
"""Bytes from which memory is the system's own and goes back as soon as it is free, as before the first such was freed:
every TLS connection has a buffer of 256 KiB that it seldom touches, and would be given one that others have filled."""
_YOUNG: Final = 50_000
_MIDDLE: Final = 20
_NEVER: Final = 1_000_000_000


def settle() -> None:
    """After the start: what is here now stays, and is not looked through again.

    A full collection would hold up the loop for 0.1 s then, and one of what has come since for several milliseconds,
    many times a minute. It is left to `sweep`; young objects are collected as they come, in a few milliseconds, once there are more of them than busy requests hold.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


def keep_little() -> None:
    """Before the first thread and the first connection: have the C library take no memory it does not need for long.

    Does nothing where the library is not GNU's.
    """
    library = _library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED)


async def trim() -> None:
    """Give free memory back. Takes some milliseconds where there is much of it, else some microseconds."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> Any:  # noqa: ANN401 - whatever functions it has
    found = ctypes.CDLL(None)
    return found if hasattr(found, "malloc_trim") and hasattr(found, "mallopt") else None


async def sweep() -> None:
    """Collect all that has come since the start. Takes some 10 ms for 100,000 objects."""
    gc.collect()
