"""Microsoft cabinet files ([MS-CAB]), read through `cabarchive` after their sizes were checked."""

from __future__ import annotations

import importlib
import itertools
import struct
from collections.abc import Iterator
from typing import Any, Final

from verifier.errors import MalformedInputError

MAGIC: Final = b"MSCF"
MAX_MEMBERS: Final = 20_000
_HEADER: Final = struct.Struct("<4s4xI4xI4x2sHHHHH")
"""signature, cbCabinet, coffFiles, version, cFolders, cFiles, flags, setID, iCabinet."""
_RESERVE: Final = struct.Struct("<HBB")
_FOLDER: Final = struct.Struct("<IHH")
_FILE: Final = struct.Struct("<IIHHHH")
_DATA: Final = struct.Struct("<IHH")
_RESERVE_PRESENT: Final = 0x0004


def read_members(source: str, data: bytes, limit: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a cabinet, folders written with `/`.

    Args:
        source: name for error messages.
        data: the cabinet.
        limit: bytes that all folders, and all files, may expand to.

    Raises:
        MalformedInputError: damaged, too large when expanded, compressed in a way `cabarchive` does not read
            (LZX, Quantum), or `cabarchive` is not installed.
    """
    _check_sizes(source, data, limit)
    library = _library(source)
    try:
        members = {str(name): bytes(member.buf or b"") for name, member in library.CabArchive(data).items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise MalformedInputError(source, 0, f"the cabinet cannot be read: {error!r}") from error
    except (library.CorruptionError, library.NotSupportedError) as error:
        detail = f"the cabinet cannot be read ({error}); unpack it with cabextract and import the folder"
        raise MalformedInputError(source, 0, detail) from error
    for name, content in members.items():
        yield name.replace("\\", "/"), content


def _library(source: str) -> Any:  # noqa: ANN401 - a module that may not be there when types are checked
    try:
        return importlib.import_module("cabarchive")
    except ModuleNotFoundError:
        detail = "reading a cabinet needs the package cabarchive; or unpack it with cabextract and import the folder"
        raise MalformedInputError(source, 0, detail) from None


def _check_sizes(source: str, data: bytes, limit: int) -> None:
    """Add up what folders and files expand to, from their tables. The library trusts these tables blindly."""
    try:
        _, _, files_at, _, folders, files, flags, _, _ = _HEADER.unpack_from(data)
        offset, folder_extra, block_extra = _HEADER.size, 0, 0
        if flags & _RESERVE_PRESENT:
            header_extra, folder_extra, block_extra = _RESERVE.unpack_from(data, offset)
            offset += _RESERVE.size + header_extra
        if files > MAX_MEMBERS:
            raise MalformedInputError(source, 0, f"more than {MAX_MEMBERS} files")
        blocks = _block_sizes(data, (offset, _FOLDER.size + folder_extra, folders), block_extra)
        too_large = _exceeds(blocks, limit) or _exceeds(_file_sizes(data, files_at, files), limit)
    except (struct.error, ValueError) as error:
        raise MalformedInputError(source, 0, f"the cabinet's tables are damaged: {error}") from error
    if too_large:
        raise MalformedInputError(source, 0, f"the cabinet expands to more than {limit} bytes")


def _exceeds(sizes: Iterator[int], limit: int) -> bool:
    return any(total > limit for total in itertools.accumulate(sizes))


def _block_sizes(data: bytes, folders: tuple[int, int, int], block_extra: int) -> Iterator[int]:
    """Sizes that the data blocks of all folders expand to; `folders` is where, how far apart, how many."""
    offset, step, count = folders
    left = len(data) // _DATA.size
    for at in range(offset, offset + step * count, step):
        start, blocks, _ = _FOLDER.unpack_from(data, at)
        left -= blocks
        if left < 0:  # folders that share blocks: a small file could keep this busy for hours
            raise ValueError("more data blocks than there is room for")
        for _ in range(blocks):
            _, packed, unpacked = _DATA.unpack_from(data, start)
            start += _DATA.size + block_extra + packed
            yield unpacked


def _file_sizes(data: bytes, offset: int, files: int) -> Iterator[int]:
    for _ in range(files):
        yield _FILE.unpack_from(data, offset)[0]
        offset = data.index(b"\x00", offset + _FILE.size) + 1
