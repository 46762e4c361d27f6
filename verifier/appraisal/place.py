"""Where evidence stands beside the line of states that was known before it. Pure data."""

from __future__ import annotations

import enum
from typing import Final

from msgspec import Struct

from verifier.appraisal.lineage import BootCounter, IncidentKind
from verifier.tcg.attest import ClockInfo


class RatchetRelation(enum.Enum):
    """How the index relates to what was last proven of it."""

    NOT_ASKED = "not-asked"
    ABSENT = "absent"
    """None is shown, and none ever was."""
    MISSING = "missing"
    """None is shown, though one was before."""
    INVALID = "invalid"
    """The certificate does not prove an index of this TPM."""
    STARTS = "starts"
    """A content where none is known: nothing to compare."""
    SAME = "same"
    """As it was."""
    STALLED = "stalled"
    """As it was, again and again, although a value was handed out each time."""
    NEXT = "next"
    """The last content and one value that was handed out for it."""
    RESUMED = "resumed"
    """Led to by values this verifier handed out later than all it remembers: its database is an older one."""
    SUPERSEDED = "superseded"
    """A content the line has left behind, or a step it never took that is older than what is remembered."""
    SIBLING = "sibling"
    """Another value handed out for a content that the line left by a different one."""
    FOREIGN = "foreign"
    """Nothing this verifier ever led to."""

    __hash__ = object.__hash__  # as of `HashAlg`


PARTED: Final = frozenset({RatchetRelation.SUPERSEDED, RatchetRelation.SIBLING, RatchetRelation.FOREIGN})
ON_LINE: Final = frozenset(
    {
        RatchetRelation.STARTS,
        RatchetRelation.SAME,
        RatchetRelation.STALLED,
        RatchetRelation.NEXT,
        RatchetRelation.RESUMED,
    }
)
"""A content was shown and belongs to the line."""


class Shown(Struct, frozen=True):
    """What was shown of the index. `step` is that of the value extended last, where it is known to be ours."""

    relation: RatchetRelation
    content: bytes | None = None
    step: int | None = None
    problem: str = ""


class Place(Struct, frozen=True, kw_only=True):
    """Where evidence stands beside the line.

    Attributes:
        parted: it cannot come after what was last proven, so it is not of the line.
        adopted: nothing was known to compare it with; it is taken as where the line begins.
        incident: what an operator has to resolve, with this evidence taken into account.
        hostname, address: for people to find the machine by; see `lineage.Guest`.
    """

    clock: ClockInfo
    smbios_uuid: str | None
    boot_id: str | None
    hostname: str | None = None
    address: str | None = None
    shown: Shown
    boot_counter: BootCounter | None = None
    parted: bool
    adopted: bool
    incident: IncidentKind | None


class Handed(Struct, frozen=True):
    """A value for the attester to extend into its index before it shows it, if that holds `base`; and its number."""

    step: int
    base: bytes
    value: bytes
