"""A root filesystem that is mounted or unpacked somewhere: every regular file under its path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import Entry, Source
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.making import Digests, Making

_LIVE: Final = frozenset({b"/proc", b"/sys", b"/dev", b"/run", b"/tmp", b"/var/tmp"})
_NAMED: Final = 8


def rootfs_entries(root: Path, making: Making, *, source: str, everything: bool = False) -> Iterator[Entry]:
    """Entries of what is there now. A machine that runs from it can have been changed: make sets of images.

    Args:
        root: the folder that is `/`.
        making: how.
        source: name of the source of the entries.
        everything: `/proc`, `/sys`, `/dev`, `/run`, `/tmp` and `/var/tmp` too.

    Raises:
        MakingError: the root or a folder below cannot be read. Files that cannot are left out, with a note.
    """
    sources = (Source("rootfs", source),)
    unread: list[str] = []
    making.progress.start(str(root), None)
    for count, path in enumerate(_files(os.fsencode(root.absolute()), everything=everything)):
        if count >= making.limits.files:
            raise MakingError(f"more than {making.limits.files} files", where=str(root))
        real = os.fsencode(root.absolute()).rstrip(b"/") + path
        digests = _hashed(real, making, unread)
        if digests is not None:
            yield from making.entries(path, digests, sources)
    if unread:
        making.notes.append(
            f"{len(unread)} files could not be read and are left out: {', '.join(unread[:_NAMED])}"
        )


def _files(root: bytes, *, everything: bool) -> Iterator[bytes]:
    """Absolute paths of regular files below the root, links not followed, in order."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir((root.rstrip(b"/") + folder) or b"/") as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise MakingError(error.strerror or str(error), where=os.fsdecode(root + folder)) from error
        folders = []
        for entry in entries:
            path = folder + b"/" + entry.name
            if entry.is_dir(follow_symlinks=False):
                if everything or path not in _LIVE:
                    folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path
        waiting.extend(reversed(folders))


def _hashed(path: bytes, making: Making, unread: list[str]) -> Digests | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            digests = making.hash_of(lambda count: file.read(count) or b"")
            making.progress.advance(file.tell())
            return digests
    except OSError as error:
        unread.append(f"{os.fsdecode(path)} ({error.strerror})")
        return None
