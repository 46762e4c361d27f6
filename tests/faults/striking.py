"""A real program that is struck at its n-th write: killed before it or in the middle of it, or told that the disk is full.

A small C library under the program (`striking.c`) counts what it writes to files and connections, synchronises, renames and
removes; a page of memory shared with the test says where to strike. The program knows nothing of it.
"""

from __future__ import annotations

import enum
import mmap
import struct
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

SOURCE: Final = Path(__file__).with_name("striking.c")
_ORDER: Final = struct.Struct("<qqq")


class Strike(enum.IntEnum):
    """As in striking.c."""

    NOTHING = 0
    KILL = 1
    """SIGKILL instead of the write; of the program and of the process that writes to SQLite for it."""
    TEAR = 2
    """The same when half of it is written."""
    FULL = 3
    """ENOSPC for this write to a file and all further ones, until told otherwise."""
    BROKEN = 4
    """EIO, once."""
    ALONE = 5
    """SIGKILL of the process that writes to SQLite, instead of one of its writes; the program lives."""


class Striker:
    """Tells the programs that were started with `environment` what shall happen to them."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "strike"
        self._path.write_bytes(bytes(_ORDER.size))
        with self._path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _ORDER.size)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the program."""
        return {"LD_PRELOAD": str(library()), "VTPM_TEST_STRIKE": str(self._path)}

    def arm(self, what: Strike, after: int) -> None:
        """Strike once so many writes have passed."""
        self._page[:] = _ORDER.pack(Strike.NOTHING, after, 0)
        self._page[:8] = struct.pack("<q", what)

    def disarm(self) -> int:
        """Let everything pass from now on; how many writes there were since the order."""
        self._page[:8] = bytes(8)
        _, _, passed = _ORDER.unpack(self._page[:])
        return int(passed)


@cache
def library(source: Path = SOURCE) -> Path:
    """Built once for each process of tests."""
    built = Path(mkdtemp(prefix="vtpm-strike-")) / f"{source.stem}.so"
    command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a library for tests could not be built: {done.stderr}"
    return built
