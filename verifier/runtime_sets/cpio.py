"""cpio archives: `newc` and `crc` (cpio(5)), and what RPM makes of them for files of 4 GiB and more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from verifier.runtime_sets.stream import ByteStream, Part

MAGICS: Final = (b"070701", b"070702")
RPM_MAGIC: Final = b"07070X"
_TRAILER: Final = b"TRAILER!!!"
_HEADER: Final = 110
_MAGIC: Final = 6
_WIDTH: Final = 8
_ALIGNMENT: Final = 4
_MAX_NAME: Final = 4096 + 1
_TYPE: Final = 0o170000
_REGULAR: Final = 0o100000
_SYMLINK: Final = 0o120000
_DIRECTORY: Final = 0o040000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member; read `content` to its end before the next is asked for (what is left is passed over).

    Attributes:
        offset: of its header.
        name: as it stands there.
        inode: (device, inode) where other members may be links to it, else None.
        index: number of the file in an RPM's header, where the archive says no more than that.
    """

    offset: int
    name: bytes
    mode: int
    size: int
    inode: tuple[int, int, int] | None
    content: Part
    index: int | None = None

    @property
    def is_regular(self) -> bool:
        """A file with content."""
        return self.mode & _TYPE == _REGULAR

    @property
    def is_symlink(self) -> bool:
        """Its content is where it points to."""
        return self.mode & _TYPE == _SYMLINK

    @property
    def is_directory(self) -> bool:
        """A folder."""
        return self.mode & _TYPE == _DIRECTORY


def members(stream: ByteStream, *, most: int, sizes: tuple[int, ...] = ()) -> Iterator[Member]:
    """Every member before the trailer, which is read too.

    Args:
        stream: at the first header.
        most: how many there may be.
        sizes: of the files of an RPM, for archives that name files by their number.

    Raises:
        ArchiveError: no such archive, with the offset.
    """
    base = stream.offset
    for count in range(most + 1):
        stripped = stream.peek(_MAGIC) == RPM_MAGIC
        member = _rpm_member(stream, base, sizes) if stripped else _member(stream, base)
        if member.name == _TRAILER:
            return
        if count == most:
            raise stream.error(f"more than {most} members", offset=member.offset)
        yield member
        while member.content.read(1 << 18):
            pass
        _align(stream, base)


def _member(stream: ByteStream, base: int) -> Member:
    start = stream.offset
    header = stream.exactly(_HEADER, "a cpio header")
    if not header.startswith(MAGICS):
        raise stream.error(f"{header[:_MAGIC]!r} does not begin a cpio header (070701)", offset=start)
    try:
        fields = [int(header[at : at + _WIDTH], 16) for at in range(_MAGIC, _HEADER, _WIDTH)]
    except ValueError as error:
        raise stream.error("a field of the cpio header is no hex number", offset=start) from error
    inode, mode, _uid, _gid, links, _time, size, major, minor, _, _, length, _check = fields
    if not 1 < length <= _MAX_NAME:
        raise stream.error(f"a name of {length} bytes", offset=start)
    name = stream.exactly(length, "a cpio name")
    if name[-1:] != b"\0" or b"\0" in name[:-1]:
        raise stream.error("a name that does not end where it should", offset=start)
    _align(stream, base)
    linked = (major, minor, inode) if links > 1 and mode & _TYPE == _REGULAR else None
    content = stream.part(size, f"the content of {name[:200]!r}")
    return Member(offset=start, name=name[:-1], mode=mode, size=size, inode=linked, content=content)


def _rpm_member(stream: ByteStream, base: int, sizes: tuple[int, ...]) -> Member:
    """A header of magic and file number (rpm, lib/cpio.c, "stripped" cpio)."""
    start = stream.offset
    header = stream.exactly(_MAGIC + _WIDTH, "a stripped cpio header")
    try:
        index = int(header[_MAGIC:], 16)
        size = sizes[index]
    except (ValueError, IndexError) as error:
        raise stream.error("a stripped header that names no file of the package", offset=start) from error
    _align(stream, base)
    content = stream.part(size, f"the content of file {index}")
    return Member(offset=start, name=b"", mode=_REGULAR, size=size, inode=None, content=content, index=index)


def _align(stream: ByteStream, base: int) -> None:
    """Headers, names and contents end at multiples of four; at the very end of a file the padding may be missing."""
    stream.upto((base - stream.offset) % _ALIGNMENT)
