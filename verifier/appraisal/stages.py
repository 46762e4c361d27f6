"""The stages of an attestation. The core says which one it enters; it knows no clock, so others time them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias


class Stage(enum.StrEnum):
    """In their order. Each ends where the next begins; where many attest at once, some end with a wait for the others."""

    LOOKUP = "lookup"
    """Read what is known of the attester: record, history, policies, inventory, logs held."""
    IMA = "ima"
    """The IMA list replayed and judged, here or by a worker process; only where one was sent."""
    VERIFY = "verify"
    """Quote, signature, key, freshness, history."""
    REPLAY = "replay"
    """Logs parsed, replayed and bound to the quoted PCRs, or remembered."""
    POLICY = "policy"
    """Rules over what was proven, or remembered."""
    COMMIT = "commit"
    """The verdict stored, durably, with whoever else waits for the disk."""
    SIGN = "sign"
    """The EAR, where one was asked for, and the reply."""


Enter: TypeAlias = Callable[[Stage], None]


def untimed(stage: Stage) -> None:
    """For whoever times nothing."""
    del stage
