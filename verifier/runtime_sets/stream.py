"""Bytes that come once, front to back, with an offset for every complaint and an end to how many there may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifier.runtime_sets.errors import ArchiveError
from verifier.runtime_sets.making import CHUNK

MAX_STRUCTURE: Final = 16 * 1024 * 1024
"""No header, name or table of an honest archive is larger; file contents are read in chunks."""


class ByteStream:
    """A reader that knows where it is.

    Attributes:
        structure: what is read, for errors.
        offset: of the next byte.
    """

    def __init__(self, read: Callable[[int], bytes], structure: str, *, limit: int) -> None:
        """`read(n)` gives at most n bytes, and none at the end. More than `limit` bytes are an error."""
        self.structure = structure
        self.offset = 0
        self._read = read
        self._limit = limit
        self._held = b""

    def error(self, detail: str, *, offset: int | None = None) -> ArchiveError:
        """An error at `offset`, or here."""
        return ArchiveError(self.structure, self.offset if offset is None else offset, detail)

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end only, or where none are asked for."""
        if not count:
            return b""
        if self._held:
            data, self._held = self._held[:count], self._held[count:]
        else:
            data = self._read(count)
        self.offset += len(data)
        if self.offset > self._limit:
            raise self.error(
                f"more than {self._limit} bytes; raise the limit if this is meant to be so large"
            )
        return data

    def peek(self, count: int) -> bytes:
        """The next bytes, up to `count`, which stay."""
        while len(self._held) < count:
            data = self._read(count - len(self._held))
            if not data:
                break
            self._held += data
        return self._held[:count]

    def give_back(self, data: bytes) -> None:
        """Undo reading `data`, which were the last bytes read."""
        self._held = data + self._held
        self.offset -= len(data)

    def upto(self, count: int) -> bytes:
        """`count` bytes, fewer at the end only."""
        if not 0 <= count <= MAX_STRUCTURE:
            raise self.error(f"a structure of {count} bytes; at most {MAX_STRUCTURE} are read")
        data = self.read(count)
        while len(data) < count:
            more = self.read(count - len(data))
            if not more:
                break
            data += more
        return data

    def exactly(self, count: int, what: str) -> bytes:
        """`count` bytes; raises `ArchiveError` where there are fewer."""
        start = self.offset
        data = self.upto(count)
        if len(data) < count:
            raise self.error(
                f"{what} is cut off: {count} bytes were announced, {len(data)} are there", offset=start
            )
        return data

    def skip(self, count: int, what: str) -> None:
        """Pass over `count` bytes."""
        content = self.part(count, what)
        while content.read(CHUNK):
            pass

    def part(self, count: int, what: str) -> Part:
        """The next `count` bytes as a reader of their own; read it to its end before going on here."""
        return Part(self, count, what)


class Part:
    """A member of an archive; `read` gives none at its end, and raises where the archive ends before."""

    __slots__ = ("_left", "_start", "_stream", "_what")

    def __init__(self, stream: ByteStream, count: int, what: str) -> None:
        self._stream = stream
        self._left = count
        self._what = what
        self._start = stream.offset

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
        if not self._left:
            return b""
        data = self._stream.read(min(count, self._left))
        if not data:
            raise self._stream.error(
                f"{self._what} is cut off, {self._left} bytes are missing", offset=self._start
            )
        self._left -= len(data)
        return data
