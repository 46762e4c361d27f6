"""Private files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from verifier.errors import VerifierFault

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
_OTHERS: Final = 0o007
RESTORE: Final = "put it back from a backup"


def ensure_directory(path: Path) -> None:
    """Create `path` with mode 0700; raises `VerifierFault` when that cannot be done."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise VerifierFault(f"cannot create {path}: {error.strerror}") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock file; other processes wait."""
    ensure_directory(directory)
    try:
        handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise VerifierFault(f"cannot write to {directory}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def stamp_of(path: Path) -> int:
    """Changes with the file; -1 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def write_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Replace `path` atomically and durably.

    Raises:
        VerifierFault: it cannot be done. Either nothing has changed, or the new content is there and a power failure may
            bring back the old.
    """
    try:
        _write(path, content, mode)
    except OSError as error:
        raise VerifierFault(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    # The new name too: without this a power failure may bring the old file back.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """A file that is of no use unless the block ends well."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def unreadable(path: Path, error: OSError) -> VerifierFault:
    """What to say of a file that is there, or should be, and is not to be read."""
    theirs = "give it to the user that the service runs as, with mode 0600"
    step = theirs if isinstance(error, PermissionError) else RESTORE
    return VerifierFault(f"cannot read {path}: {error.strerror}; {step}")


def exposed(state_dir: Path) -> tuple[Path, ...]:
    """Private files there that every user of the machine may read or write, as after a careless restore."""
    patterns = ("service.secret", "*/*.key", "keys/ear-*.pem", "log/log-*.pem")
    private = (path for pattern in patterns for path in sorted(state_dir.glob(pattern)))
    return tuple(path for path in private if path.stat().st_mode & _OTHERS)


def read_secret(path: Path, size: int) -> bytes:
    """A raw secret of exactly `size` bytes; raises `VerifierFault` when it cannot be read, or has another length."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) != size:
        raise VerifierFault(f"{path} has {len(content)} bytes, not {size}; {RESTORE}")
    return content
