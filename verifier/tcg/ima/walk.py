"""Entries of a binary list one after another, undecoded: lengths are checked, nothing else is looked at."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from verifier.tcg.ima.entry import ByteOrder, ImaFormatError, ListEncoding
from verifier.tcg.ima.templates import IMA, SHA1_SIZE

MAX_NAME: Final = 255
"""MAX_TEMPLATE_NAME_LEN (ima_template.c)."""
MAX_DATA: Final = 16 * 1024 * 1024
"""Bytes of one entry's template data; the largest buffers kernels measure are SELinux policies of a few MB."""
MAX_PCR: Final = 23
DIGEST_SIZES: Final = (20, 32, 48, 64)


class RawEntry(NamedTuple):
    """An entry as it stands; see `ImaEntry`. `end` is the offset of the byte after it."""

    offset: int
    pcr: int
    digest: bytes
    name: str
    data: bytes
    data_offset: int
    end: int


def read_entry(data: bytes, offset: int, encoding: ListEncoding, index: int) -> RawEntry:
    """The entry at `offset` (ima_measurements_show in ima_fs.c).

    Raises:
        ImaFormatError: it does not lie within `data`, or its numbers are none that a kernel writes.
    """
    order, size = encoding
    head = offset + 8 + size
    if head > len(data):
        raise ImaFormatError(
            offset, index, f"{len(data) - offset} bytes where an entry begins: the list is cut", cut=True
        )
    pcr = int.from_bytes(data[offset : offset + 4], order)
    if pcr > MAX_PCR:
        raise ImaFormatError(offset, index, f"PCR {pcr}; no entry begins here in this byte order")
    name_size = int.from_bytes(data[head - 4 : head], order)
    if not 0 < name_size <= MAX_NAME:
        raise ImaFormatError(head - 4, index, f"a template name of {name_size} bytes")
    at = head + name_size
    try:
        name = _within(data, head, at, index).decode("ascii")
    except UnicodeDecodeError:
        raise ImaFormatError(head, index, "the template name is not ASCII") from None
    start, end = _bounds(data, at, name, order, index)
    return RawEntry(offset, pcr, data[offset + 4 : head - 4], name, data[start:end], start, end)


def _bounds(data: bytes, at: int, name: str, order: ByteOrder, index: int) -> tuple[int, int]:
    """Where the template data begin and end; those of template `ima` have no length before them."""
    field = at + SHA1_SIZE if name == IMA else at
    count = int.from_bytes(_within(data, field, field + 4, index), order)
    if count > (MAX_NAME + 1 if name == IMA else MAX_DATA):
        raise ImaFormatError(field, index, f"{count} bytes of template data")
    start, end = (at, field + 4 + count) if name == IMA else (field + 4, field + 4 + count)
    if end > len(data):
        raise ImaFormatError(
            field, index, f"{count} bytes, {len(data) - field - 4} are left: the list is cut", cut=True
        )
    return start, end


def _within(data: bytes, start: int, end: int, index: int) -> bytes:
    if end > len(data):
        raise ImaFormatError(
            start,
            index,
            f"{end - start} bytes, {max(0, len(data) - start)} are left: the list is cut",
            cut=True,
        )
    return data[start:end]


def walk(data: bytes, encoding: ListEncoding, *, first_index: int = 0) -> Iterator[RawEntry]:
    """Every entry from the start of `data` to its end; raises as `read_entry`."""
    at, index = 0, first_index
    while at < len(data):
        entry = read_entry(data, at, encoding, index)
        yield entry
        at, index = entry.end, index + 1


def detect_encoding(data: bytes) -> ListEncoding:
    """Byte order and digest size of a binary list, told from its first entries.

    Raises:
        ImaFormatError: it begins like no list; the error is that of the usual encoding.
    """
    usual = ListEncoding()
    orders: tuple[ByteOrder, ...] = ("little", "big")
    for encoding in (ListEncoding(order, size) for size in DIGEST_SIZES for order in orders):
        if _begins(data, encoding):
            return encoding
    read_entry(data, 0, usual, 0)
    return usual


def _begins(data: bytes, encoding: ListEncoding) -> bool:
    at = 0
    for index in range(3):
        if index and at >= len(data):
            return True
        try:
            entry = read_entry(data, at, encoding, index)
        except ImaFormatError as error:
            return index > 0 and error.cut
        if not entry.name.isprintable():
            return False
        at = entry.end
    return True


def pack_entry(entry: tuple[int, bytes, str, bytes], order: ByteOrder) -> bytes:
    """One entry as a binary list has it: PCR, template digest, template name and template data."""
    pcr, digest, name, data = entry
    number = struct.Struct("<I" if order == "little" else ">I")
    size = b"" if name == IMA else number.pack(len(data))
    return number.pack(pcr) + digest + number.pack(len(name)) + name.encode("ascii") + size + data
