"""SBAT levels and metadata: revocation by generation (shim, SBAT.md)."""

from __future__ import annotations

from collections.abc import Mapping


def parse_sbat(text: str) -> Mapping[str, str]:
    """Component to minimum generation; for `sbat` itself `generation,date`. Lines without a comma are skipped.

    The text is CSV without quoting; only ASCII separators count.
    """
    level: dict[str, str] = {}
    for line in text.replace("\r\n", "\n").rstrip("\0").split("\n"):
        component, comma, generation = line.partition(",")
        if comma:
            level.setdefault(component, generation)
    return level
