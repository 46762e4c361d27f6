"""What a guest sends of its IMA list, and from where it is to be judged."""

from __future__ import annotations

from msgspec import Struct

from verifier.appraisal.ima.state import INITIAL, ImaState


class ImaSegment(Struct, frozen=True):
    """A part of the guest's binary list. Nothing in it is believed yet.

    Attributes:
        data: its bytes from `offset` on, whole entries (a torn one at the end is an `ImaFormatError`).
        offset: where it starts in the guest's list: 0, or the offset of the state.
        size: bytes the whole list had when it was read, in the guest's word; None where not said.
    """

    data: bytes
    offset: int = 0
    size: int | None = None


class ImaEvidence(Struct, frozen=True):
    """A segment and the state it is judged from.

    Attributes:
        state: what was proven of the same boot before, or `INITIAL` for a boot nobody has seen.
    """

    segment: ImaSegment
    state: ImaState = INITIAL
