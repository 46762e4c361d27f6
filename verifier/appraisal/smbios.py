"""SMBIOS UUIDs as text: one spelling for storage, both spellings for comparison.

The 16 bytes of a SMBIOS UUID have two customary spellings. Hypervisors and their management show all bytes in
order ("RFC 4122"); since SMBIOS 2.6 an operating system reads the first three fields as little-endian (SMBIOS
Reference Specification, section 7.2.1). VMware's API always gives the first spelling, a guest with virtual
hardware 13 or later (a vTPM needs 14) the second, and one with `acpi.smbiosVersion2.7 = FALSE` the first again.
Nothing in the text says which one it is, so both are looked for.
"""

from __future__ import annotations

import re
from typing import Final

_FORM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TEXT_LENGTH: Final = 36

_NO_IDENTITY: Final = frozenset(
    {
        "00000000-0000-0000-0000-000000000000",  # "not settable", SMBIOS section 7.2.1
        "ffffffff-ffff-ffff-ffff-ffffffffffff",  # "not present, but settable"
        "03000200-0400-0500-0006-000700080009",  # board vendors' placeholder, found on thousands of machines
        "00020003-0004-0005-0006-000700080009",
    }
)


def canonical_uuid(text: str) -> str | None:
    """Lower case, or None for what is no UUID or names no machine (all zeros, all ones, placeholders).

    Only the form of 32 hexadecimal digits with four hyphens is taken; a wrong one is never guessed at.
    """
    if len(text) > _TEXT_LENGTH + 2:
        return None
    lowered = text.strip().lower()
    if _FORM.fullmatch(lowered) is None or lowered in _NO_IDENTITY:
        return None
    return lowered


def swapped_uuid(uuid: str) -> str:
    """The other spelling of a canonical UUID: the bytes of its first three fields reversed. Its own inverse."""
    first, second, third, rest = uuid[0:8], uuid[9:13], uuid[14:18], uuid[18:]
    return f"{_reversed(first)}-{_reversed(second)}-{_reversed(third)}{rest}"


def uuid_spellings(text: str) -> frozenset[str]:
    """Both spellings of a UUID in canonical form; empty for what names no machine."""
    uuid = canonical_uuid(text)
    if uuid is None:
        return frozenset()
    return frozenset({uuid, swapped_uuid(uuid)})


def same_uuid(one: str | None, other: str | None) -> bool:
    """True when both name a machine and agree in one spelling or the other."""
    if one is None or other is None:
        return False
    return canonical_uuid(one) in uuid_spellings(other)


def _reversed(field: str) -> str:
    return bytes.fromhex(field)[::-1].hex()
