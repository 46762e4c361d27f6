"""Files on disk: opened, measured and reported; runtime sets read and written, compressed or not."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import zstandard

from verifier.policy.runtime.reading import MAX_TEXT, read_runtime_set
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.writing import write_runtime_set
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.making import CHUNK, Making, Progress, Silent
from verifier.runtime_sets.stream import ByteStream

ZSTD_SUFFIX: Final = ".zst"
_LEVEL: Final = 10


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file or a pipe to read; raises `MakingError` naming it."""
    try:
        with path.open("rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise MakingError("is a folder", where=str(path))
            yield file
    except OSError as error:
        raise MakingError(error.strerror or str(error), where=str(path)) from error


@contextmanager
def streamed(path: Path, progress: Progress, *, limit: int) -> Iterator[ByteStream]:
    """A file as a stream that reports what is read of it."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        progress.start(path.name, size or None)
        yield ByteStream(_counted(file.read, progress), str(path), limit=limit)


def archive_stream(path: Path, making: Making) -> AbstractContextManager[ByteStream]:
    """A file as a stream under the limits of the making."""
    return streamed(path, making.progress, limit=making.limits.size)


def _counted(read: Callable[[int], bytes], progress: Progress) -> Callable[[int], bytes]:
    def counted(count: int) -> bytes:
        data = read(count)
        progress.advance(len(data))
        return data

    return counted


def load_set(path: Path, *, digest: str | None = None, progress: Progress | None = None) -> RuntimeSet:
    """A runtime set from a file, compressed or not.

    Raises `RuntimeSetError` or `ArchiveError` for what is none, `MakingError` for a file that cannot be read.
    """
    with streamed(path, progress or Silent(), limit=MAX_TEXT) as stream:
        text = expanded_whole(stream, limit=MAX_TEXT)
        return read_runtime_set(iter(lambda: text.read(CHUNK), b""), digest=digest)


def save_set(path: Path, runtime_set: RuntimeSet) -> None:
    """Write a set whole or not at all; compressed where the name ends in `.zst`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                _write(file, runtime_set, compress=path.suffix == ZSTD_SUFFIX)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise MakingError(error.strerror or str(error), where=str(path)) from error


def _write(file: IO[bytes], runtime_set: RuntimeSet, *, compress: bool) -> None:
    if not compress:
        file.writelines(write_runtime_set(runtime_set))
        return
    with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as writer:
        for chunk in write_runtime_set(runtime_set):
            writer.write(chunk)
