"""Identifiers: a prefix that says of what, and 120 random bits that cannot be guessed."""

from __future__ import annotations

import base64
from typing import Final

from verifier.ports import Random

_BYTES: Final = 15


def new_id(prefix: str, random: Random) -> str:
    """For example `att-k4zdsmjqgizdgmbrgaytembr`: lower case, no padding, safe in URLs and shells."""
    return f"{prefix}-{base64.b32encode(random.bytes(_BYTES)).decode().lower()}"
