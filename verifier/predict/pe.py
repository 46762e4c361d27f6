"""PE/COFF images: sections, and the Authenticode digest that firmware extends into PCR 4.

Microsoft, "PE Format" and "Windows Authenticode Portable Executable Signature Format" (2008), as edk2 reads them
(Tcg2Dxe, MeasureBootPeCoff.c). All integers are little-endian; offsets in errors are file offsets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg.algorithms import HashAlg

STRUCTURE: Final = "PE image"
MAX_SECTIONS: Final = 512
"""Windows stops at 96; a unified kernel image with many device trees has a few hundred."""
MAX_ZEROS: Final = 1024 * 1024
"""Bytes a section may be larger in memory than in the file; beyond that it is no payload."""
MAX_STRING_TABLE: Final = 1024 * 1024

Chunk = bytes | memoryview
"""Contents are hashed piece by piece: an image may be as large as the machine's memory allows."""

_LFANEW: Final = 0x3C
_COFF: Final = struct.Struct("<HHIIIHH")
_SECTION: Final = struct.Struct("<8sIIII")
_SECTION_SIZE: Final = 40
_SYMBOL_SIZE: Final = 18
_PE32: Final = 0x10B
_PE32_PLUS: Final = 0x20B
_SIZE_OF_HEADERS: Final = 60
_CHECKSUM: Final = 64
_COUNT_OF_DIRECTORIES: Final = {_PE32: 92, _PE32_PLUS: 108}
_DIRECTORY_SIZE: Final = 8
_CERTIFICATE_DIRECTORY: Final = 4
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_RANGE: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Section:
    """One entry of the section table. Long names (`/4`) are resolved through the COFF string table."""

    name: str
    virtual_address: int
    virtual_size: int
    raw_offset: int
    raw_size: int


@dataclass(frozen=True, slots=True)
class PeImage:
    """A parsed image whose every range lies inside the file. Proves nothing about who made or signed it.

    Attributes:
        data: the whole file.
        machine: COFF machine, for example 0x8664.
        header_size: SizeOfHeaders.
        checksum: offset of the CheckSum field.
        directory_entry: offset of the Certificate Table's data directory entry; None where there is none.
        certificates: offset and size of the attribute certificate table; size 0 where the image is unsigned.
        sections: in the order of the section table.
    """

    data: bytes
    machine: int
    header_size: int
    checksum: int
    directory_entry: int | None
    certificates: tuple[int, int]
    sections: tuple[Section, ...]

    def section(self, name: str) -> Section | None:
        """The only section of this name; None where there is none.

        Raises:
            UnsupportedError: there are several, and loaders differ in which of them they take.
        """
        found = [section for section in self.sections if section.name == name]
        if len(found) > 1:
            raise UnsupportedError(f"{len(found)} sections are called {name}", structure=STRUCTURE)
        return found[0] if found else None

    def content(self, section: Section) -> tuple[Chunk, ...]:
        """What the section holds in memory: VirtualSize bytes, zeros where the file has fewer.

        Raises:
            UnsupportedError: more than `MAX_ZEROS` zeros.
        """
        stored = min(section.raw_size, section.virtual_size)
        zeros = section.virtual_size - stored
        if zeros > MAX_ZEROS:
            raise UnsupportedError(
                f"section {section.name} has {zeros} bytes that are not in the file",
                structure=STRUCTURE,
                offset=section.raw_offset,
            )
        view = memoryview(self.data)[section.raw_offset : section.raw_offset + stored]
        return (view, bytes(zeros)) if zeros else (view,)


def parse_pe(data: bytes) -> PeImage:
    """Parse the headers and the section table of a PE32 or PE32+ image.

    Raises:
        MalformedInputError: not such an image, or a range outside the file; the offset is that of the field.
    """
    if data[:2] != b"MZ":
        raise _error(0, "the file does not begin with MZ")
    start = _u32(data, _LFANEW, "e_lfanew")
    if data[start : start + 4] != b"PE\0\0":
        raise _error(_LFANEW, f"no PE signature at offset {start}")
    coff = start + 4
    _need(data, coff, _COFF.size, "the COFF header")
    machine, count, _, symbols, symbol_count, optional_size, _ = _COFF.unpack_from(data, coff)
    if count > MAX_SECTIONS:
        raise _error(coff + 2, f"{count} sections, at most {MAX_SECTIONS} are read")
    optional = coff + _COFF.size
    table = optional + optional_size
    end_of_table = table + count * _SECTION_SIZE
    directory_entry = _certificate_entry(data, optional, table)
    header_size = _u32(data, optional + _SIZE_OF_HEADERS, "SizeOfHeaders")
    if not end_of_table <= header_size <= len(data):
        raise _error(
            optional + _SIZE_OF_HEADERS,
            f"SizeOfHeaders is {header_size}; the section table ends at {end_of_table}, the file at {len(data)}",
        )
    names = _string_table(data, symbols, symbol_count)
    sections = tuple(_section(data, table + index * _SECTION_SIZE, names) for index in range(count))
    _refuse_overlap(data, header_size, sections, coff)
    return PeImage(
        data=data,
        machine=machine,
        header_size=header_size,
        checksum=optional + _CHECKSUM,
        directory_entry=directory_entry,
        certificates=_certificate_range(data, directory_entry),
        sections=sections,
    )


def authenticode_digest(image: PeImage, alg: HashAlg) -> bytes:
    """The digest that firmware extends for this image, and that its signature covers.

    Hashed: the headers without CheckSum and without the Certificate Table's directory entry, every section in the
    order of file offsets, then whatever follows but for as many bytes as the certificate table has. Nothing is
    padded: edk2 measures an unsigned file of odd length as it is, whereas signing tools first pad it to eight
    bytes, so that its digest changes with the first signature.

    Raises:
        UnsupportedError: this build lacks the algorithm, or firmware refuses such a file.
    """
    return hash_chunks(_covered(image), alg)


def hash_chunks(chunks: Iterable[Chunk], alg: HashAlg) -> bytes:
    """Digest of the concatenated chunks. Raises `UnsupportedError` where this build lacks `alg`."""
    if alg.new is None:
        raise UnsupportedError(f"this build has no {alg.label}")
    state = alg.new()
    for chunk in chunks:
        state.update(chunk)
    digest: bytes = state.digest()
    return digest


def _covered(image: PeImage) -> Iterator[Chunk]:
    view = memoryview(image.data)
    yield view[: image.checksum]
    after_checksum = image.checksum + 4
    if image.directory_entry is None:
        yield view[after_checksum : image.header_size]
    else:
        yield view[after_checksum : image.directory_entry]
        yield view[image.directory_entry + _DIRECTORY_SIZE : image.header_size]
    hashed = image.header_size
    for section in sorted(image.sections, key=lambda each: each.raw_offset):
        if section.raw_size:
            yield view[section.raw_offset : section.raw_offset + section.raw_size]
            hashed += section.raw_size
    end = len(image.data) - image.certificates[1]
    if hashed > end and len(image.data) > hashed:
        raise UnsupportedError(
            "the certificate table overlaps the sections", structure=STRUCTURE, offset=image.certificates[0]
        )
    if hashed < end:
        yield view[hashed:end]


def _certificate_entry(data: bytes, optional: int, end: int) -> int | None:
    """Offset of the directory entry of the attribute certificates."""
    _need(data, optional, 2, "the optional header")
    (magic,) = _U16.unpack_from(data, optional)
    counted = _COUNT_OF_DIRECTORIES.get(magic)
    if counted is None:
        raise _error(optional, f"optional header magic 0x{magic:04x}")
    directories = optional + counted + 4
    count = _u32(data, optional + counted, "NumberOfRvaAndSizes")
    if count > (end - directories) // _DIRECTORY_SIZE:
        raise _error(optional + counted, f"{count} data directories do not fit the optional header")
    if count <= _CERTIFICATE_DIRECTORY:
        return None
    return directories + _CERTIFICATE_DIRECTORY * _DIRECTORY_SIZE


def _certificate_range(data: bytes, entry: int | None) -> tuple[int, int]:
    if entry is None:
        return 0, 0
    _need(data, entry, _DIRECTORY_SIZE, "the Certificate Table entry")
    offset, size = _RANGE.unpack_from(data, entry)
    if size and offset + size > len(data):
        raise _error(entry, f"a certificate table of {size} bytes at {offset} in a file of {len(data)}")
    return (offset, size) if size else (0, 0)


def _section(data: bytes, offset: int, names: bytes) -> Section:
    raw_name, virtual_size, address, raw_size, raw_offset = _SECTION.unpack_from(data, offset)
    if raw_size and raw_offset + raw_size > len(data):
        raise _error(
            offset + 16, f"a section of {raw_size} bytes at {raw_offset} in a file of {len(data)} bytes"
        )
    return Section(_name(raw_name, names), address, virtual_size, raw_offset, raw_size)


def _name(raw: bytes, names: bytes) -> str:
    name = raw.rstrip(b"\0")
    if name[:1] == b"/" and name[1:].isdigit():
        start = int(name[1:])
        name = names[start:].split(b"\0", 1)[0] if 4 <= start < len(names) else name  # noqa: PLR2004 - after its size
    return name.decode("ascii", "backslashreplace")


def _string_table(data: bytes, symbols: int, count: int) -> bytes:
    """The COFF string table behind the symbols; empty where there is none, for names that nobody looks for."""
    start = symbols + count * _SYMBOL_SIZE
    if not symbols or len(data) - start < _U32.size:
        return b""
    (size,) = _U32.unpack_from(data, start)
    return data[start : start + min(size, MAX_STRING_TABLE)]


def _refuse_overlap(data: bytes, header_size: int, sections: tuple[Section, ...], coff: int) -> None:
    """Ranges that are counted twice would let a small file cost many hashes; no loader accepts them."""
    total = header_size + sum(section.raw_size for section in sections)
    if total > len(data):
        raise _error(coff + 2, f"headers and sections claim {total} bytes of a file of {len(data)}")


def _u32(data: bytes, offset: int, what: str) -> int:
    _need(data, offset, _U32.size, what)
    value: int = _U32.unpack_from(data, offset)[0]
    return value


def _need(data: bytes, offset: int, size: int, what: str) -> None:
    if offset + size > len(data):
        raise _error(min(offset, len(data)), f"{what} needs {size} bytes, the file ends at {len(data)}")


def _error(offset: int, detail: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, offset, detail)
