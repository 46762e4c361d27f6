"""UEFI structures that boot logs carry: variables, signature lists, GPT, load options."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_VARIABLE: Final = struct.Struct("<16sQQ")
_new_variable: Final = tuple.__new__  # a named tuple's own constructor is a Python call

GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
"""8be4df61-93ca-11d2-aa0d-00e098032b8c (UEFI 2.10, section 3.3)."""
IMAGE_SECURITY_DATABASE: Final = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
"""d719b2cb-3d3a-4596-a3bc-dad00e67656f (section 32.4.1)."""
SHIM_LOCK: Final = bytes.fromhex("50ab5d6046e00043abb63dd810dd8b23")
"""605dab50-e046-4300-abb6-3dd810dd8b23, the vendor of shim's variables."""

_PLAIN_VENDORS: Final = frozenset({GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK})


class Variable(NamedTuple):
    """UEFI_VARIABLE_DATA (TCG PFP, section 10.4.2.6): vendor GUID (mixed-endian), name, value."""

    vendor: bytes
    name: str
    value: bytes


def parse_variable(data: bytes) -> Variable | None:
    """The variable that `data` is exactly, or None. Little-endian; the name has no terminator."""
    if len(data) < _VARIABLE.size:
        return None
    vendor, characters, size = _VARIABLE.unpack_from(data)
    start = _VARIABLE.size + 2 * characters
    if start + size != len(data):
        return None
    try:
        name = data[_VARIABLE.size : start].decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return _new_variable(Variable, (vendor, name, data[start:]))


def guid_text(raw: bytes) -> str:
    """16 bytes of an EFI_GUID as text: the first three fields are little-endian (UEFI, appendix A)."""
    first, second, third = struct.unpack_from("<IHH", raw)
    return f"{first:08x}-{second:04x}-{third:04x}-{raw[8:10].hex()}-{raw[10:16].hex()}"


def variable_name(variable: Variable) -> str:
    """Plain for the vendors of UEFI and shim, otherwise `Name-<vendor GUID>`, so that no vendor can pose as another."""
    if variable.vendor in _PLAIN_VENDORS:
        return variable.name
    return f"{variable.name}-{guid_text(variable.vendor)}"
