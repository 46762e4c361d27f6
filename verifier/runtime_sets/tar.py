"""tar archives through `tarfile`, with the limits it lacks: it reads forward only, and never a huge header."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, cast

from verifier.runtime_sets.making import CHUNK
from verifier.runtime_sets.stream import MAX_STRUCTURE, ByteStream

_DAMAGE: Final = (
    tarfile.TarError,
    ValueError,
    OverflowError,
    EOFError,
    IndexError,
    RecursionError,
    OSError,
)
"""What `tarfile` raises over damaged archives."""
_KEPT: Final = 512
"""tarfile steps back one byte where a member was read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One member.

    Attributes:
        offset: of its header.
        name: as it stands there.
        target: of a link, symbolic or hard.
        data: offset and size of its content in the archive (of a sparse file: as it is packed).
        read: content of a regular file, in chunks.
    """

    offset: int
    data: tuple[int, int]
    name: bytes
    kind: bytes
    target: bytes
    read: Callable[[int], bytes]

    @property
    def is_regular(self) -> bool:
        """A file with content."""
        return self.kind in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE}

    @property
    def is_symlink(self) -> bool:
        """`target` is where it points to."""
        return self.kind == tarfile.SYMTYPE

    @property
    def is_hardlink(self) -> bool:
        """Another name of the member `target`."""
        return self.kind == tarfile.LNKTYPE

    @property
    def is_directory(self) -> bool:
        """A folder."""
        return self.kind == tarfile.DIRTYPE


def tar_members(stream: ByteStream, *, most: int) -> Iterator[TarMember]:
    """Every member, in order; read its content before the next is asked for.

    Raises `ArchiveError` where it is no archive, is cut off, or has more than `most` members.
    """
    source = _Forward(stream)
    count = 0
    try:
        archive = tarfile.open(fileobj=cast("io.BufferedIOBase", source), mode="r:", errors="surrogateescape")  # noqa: SIM115 - nothing to close
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # it keeps every member otherwise
            if count >= most:
                raise stream.error(f"more than {most} members", offset=info.offset)
            count += 1
            yield TarMember(
                offset=info.offset,
                data=(info.offset_data, info.size),
                name=_raw(info.name),
                kind=info.type,
                target=_raw(info.linkname),
                read=_content(archive, info, stream),
            )
        while stream.read(CHUNK):  # padding; a compressed archive ends with its checksum
            pass
    except _DAMAGE as error:
        raise stream.error(f"no tar archive, or a damaged one: {error}") from error


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo, stream: ByteStream) -> Callable[[int], bytes]:
    if not info.isreg():
        return lambda _count: b""
    content: io.BufferedReader | None = None

    def read(count: int) -> bytes:
        nonlocal content
        try:
            if content is None:
                content = cast("io.BufferedReader", archive.extractfile(info))
            return content.read(count)
        except _DAMAGE as error:
            raise stream.error(f"{info.name[:200]!r} cannot be read: {error}", offset=info.offset) from error

    return read


class _Forward:
    """A file for `tarfile` that goes forward, and back over the last few bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._tail = b""
        self._back = 0

    def tell(self) -> int:
        """Where it is."""
        return self._stream.offset - self._back

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Forward, or back within what is kept."""
        if whence != io.SEEK_SET:
            raise tarfile.ReadError("only absolute positions")
        if position < self._stream.offset:
            self._back = self._stream.offset - position
            if self._back > len(self._tail):
                raise tarfile.ReadError(f"a member that lies before byte {position}")
            return position
        self._back = 0
        while self._stream.offset < position:
            if not self._take(min(CHUNK, position - self._stream.offset)):
                raise tarfile.ReadError("unexpected end of data")
        return position

    def read(self, count: int = -1) -> bytes:
        """`count` bytes, fewer at the end."""
        if not 0 <= count <= MAX_STRUCTURE:
            raise tarfile.ReadError(f"a header of {count} bytes")
        kept = self._tail[len(self._tail) - self._back :][:count] if self._back else b""
        self._back -= len(kept)
        while len(kept) < count:
            data = self._take(count - len(kept))
            if not data:
                break
            kept += data
        return kept

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._tail = (self._tail + data)[-_KEPT:]
        return data
