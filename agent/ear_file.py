"""The EAR of the latest verdict, kept in a file for whoever in this machine shows it to relying parties."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.files import open_private

_MODE_BITS: Final = 0o777


class EarFile:
    """One line, replaced whole with each verdict. It is a bearer token: nobody but its owner reads a file that is made here.

    Where the file is there already, its owner, group and mode stay, so that a service's group may be let in.
    A file that cannot be written is a remark: attesting goes on without it.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say

    @property
    def wanted(self) -> bool:
        """Whether the verifier is asked for one."""
        return self._path is not None

    def keep(self, ear: str | None) -> None:
        """Write it down. An EAR that has ended says so itself, so an old one may stay where there is no new one."""
        if self._path is None or ear is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(descriptor, "w", newline="\n") as file:
                self._as_before(file.fileno())
                file.write(ear + "\n")
            temporary.replace(self._path)
        except OSError as error:
            self._say(f"the EAR cannot be kept at {self._path}: {error.strerror}")
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _as_before(self, descriptor: int) -> None:
        if self._path is None or sys.platform == "win32":
            return
        try:
            known = self._path.stat()
        except FileNotFoundError:
            return
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (known.st_uid, known.st_gid):  # a hardened service may not even ask
            os.fchown(descriptor, known.st_uid, known.st_gid)
        os.fchmod(descriptor, known.st_mode & _MODE_BITS)
