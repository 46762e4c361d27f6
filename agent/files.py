"""How files of the agent's own are opened, on each system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Means nothing on Windows: there the folder's access list protects what is in it."""

if sys.platform == "win32":
    import msvcrt

    _FLAGS: Final = os.O_BINARY | os.O_NOINHERIT

    def lock(descriptor: int) -> None:
        """Wait until no other process holds the file's first byte; it is let go of when the file is closed."""
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError:  # after ten tries, one a second
                continue
            return

    def lock_shared_now(descriptor: int) -> bool:  # noqa: ARG001 - as elsewhere
        """True: who reads there has nobody to agree with."""
        return True

    def leave_no_core() -> None:
        """Nothing: memory dumps are a setting of the machine there."""

    def sync_directory(directory: Path) -> None:
        """Nothing: folders cannot be opened there, and a rename is durable by itself."""

else:
    import fcntl
    import resource

    _FLAGS: Final = os.O_CLOEXEC

    def lock(descriptor: int) -> None:
        """Wait until no other process holds the file; it is let go of when the file is closed."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def lock_shared_now(descriptor: int) -> bool:
        """Whether a reader's lock on the file was to be had at once."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def leave_no_core() -> None:
        """A fault of this process writes none of its memory down."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def sync_directory(directory: Path) -> None:
        """Make a rename in it survive a crash."""
        descriptor = os.open(directory, os.O_RDONLY | _FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def program_data(environ: Mapping[str, str]) -> Path:
    """Where settings and state are on Windows."""
    return Path(environ.get("ProgramData", "C:/ProgramData")) / "vtpm-attest"


def open_private(path: Path, flags: int) -> int:
    """A descriptor to a file that, if it is made now, only its owner can read; bytes pass as they are."""
    return os.open(path, flags | _FLAGS, PRIVATE)
