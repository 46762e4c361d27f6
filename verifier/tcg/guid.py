"""EFI_GUID as text (UEFI 2.10, appendix A)."""

from __future__ import annotations

import struct
from typing import Final

_FIELDS: Final = struct.Struct("<IHH")
GUID_SIZE: Final = 16


def guid_text(raw: bytes) -> str:
    """The usual text form of 16 bytes; the first three fields are little-endian, the rest is as it stands."""
    first, second, third = _FIELDS.unpack_from(raw)
    return f"{first:08x}-{second:04x}-{third:04x}-{raw[8:10].hex()}-{raw[10:16].hex()}"


def guid_bytes(text: str) -> bytes:
    """The inverse of `guid_text`, for constants."""
    first, second, third, fourth, fifth = text.split("-")
    head = _FIELDS.pack(int(first, 16), int(second, 16), int(third, 16))
    return head + bytes.fromhex(fourth) + bytes.fromhex(fifth)
