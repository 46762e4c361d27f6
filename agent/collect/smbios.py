"""The UUID in an SMBIOS table (DMTF DSP0134, System Management BIOS Reference Specification, sections 6 and 7.2)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

_WINDOWS_HEADER: Final = 8
"""RawSMBIOSData: used20CallingMethod, major, minor, DMI revision, and the table's length (32-bit little-endian)."""
_SYSTEM: Final = 1
_END: Final = 127
_HEADER: Final = 4
_UUID: Final = slice(8, 24)
_NO_UUID: Final = frozenset({bytes(16), b"\xff" * 16})
_MIXED_ENDIAN_SINCE: Final = (2, 6)


def uuid_of_windows_table(raw: bytes) -> str | None:
    """The system's UUID from what `GetSystemFirmwareTable` gives; None where none is set or the table is cut."""
    if len(raw) < _WINDOWS_HEADER:
        return None
    length = int.from_bytes(raw[4:8], "little")
    table = raw[_WINDOWS_HEADER : _WINDOWS_HEADER + length]
    return system_uuid(table, (raw[1], raw[2]))


def system_uuid(table: bytes, version: tuple[int, int]) -> str | None:
    """The UUID of the System Information structure (type 1), as the Linux kernel and vSphere write it.

    Since SMBIOS 2.6 its first three fields are little-endian; before, all of it is big-endian.
    """
    for structure in _structures(table):
        if structure[0] != _SYSTEM:
            continue
        value = structure[_UUID]
        if len(value) != 16 or value in _NO_UUID:  # noqa: PLR2004 - bytes of a UUID
            return None
        return str(uuid.UUID(bytes_le=value) if version >= _MIXED_ENDIAN_SINCE else uuid.UUID(bytes=value))
    return None


def _structures(table: bytes) -> Iterator[bytes]:
    """The formatted areas, one after another; the strings after each end with two zero bytes."""
    at = 0
    while at + _HEADER <= len(table):
        kind, length = table[at], table[at + 1]
        if length < _HEADER or at + length > len(table):
            return
        yield table[at : at + length]
        end = table.find(b"\0\0", at + length)
        if kind == _END or end < 0:
            return
        at = end + 2
