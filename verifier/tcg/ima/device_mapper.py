"""What the device mapper measures (Linux, Documentation/admin-guide/device-mapper/dm-ima.rst).

`dm_version=...;name=...,uuid=...,...;target_index=0,...,target_name=verity,...;`: records end with `;`, attributes are
apart by `,`, and the kernel puts a backslash before either where a name has it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

TABLES: Final = frozenset({"dm_table_load", "dm_target_update"})
"""Events that say which targets a device has."""
ACTIONS: Final = frozenset({"dm_device_resume", "dm_device_remove", "dm_table_clear", "dm_device_rename"})
"""What is done with tables that were measured before."""

MAX_BUFFER: Final = 64 * 1024
"""Bytes read; DM_IMA_MEASUREMENT_BUF_LEN is 4096 (drivers/md/dm-ima.h)."""


class Target(NamedTuple):
    """One target of a table: its `target_name` and all its attributes."""

    name: str
    attributes: dict[str, str]


def parse_targets(buffer: bytes) -> list[Target]:
    """Targets of a table.

    Raises:
        ValueError: it does not read as one, is longer than any, or has other than the number of targets it says.
    """
    if len(buffer) > MAX_BUFFER:
        raise ValueError(f"{len(buffer)} bytes, the kernel measures at most 4096 at once")
    records = [_attributes(record) for record in _split(buffer.decode("utf-8"), ";") if record.strip()]
    targets = [Target(one["target_name"], one) for one in records if "target_name" in one]
    said = [one["num_targets"] for one in records if "num_targets" in one]
    if said != [str(len(targets))]:
        raise ValueError(
            f"{len(targets)} targets where the table says {' and '.join(said)[:40] or 'nothing'}"
        )
    return targets


def _attributes(record: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for attribute in _split(record.strip(), ","):
        name, equals, value = attribute.partition("=")
        if not equals or name in found:
            raise ValueError(f"{attribute[:40]!r} is no attribute, or is there twice")
        found[name] = value
    return found


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that have no backslash before them."""
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == separator:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]] if start < len(text) else parts
