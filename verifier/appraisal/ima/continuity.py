"""How what a guest sends of its IMA list relates to what was proven of it before."""

from __future__ import annotations

import enum


class Continuity(enum.Enum):
    """How a segment relates to what was proven before. The first five are proven by the quote."""

    FIRST = "first"
    """The list of a boot that nothing was known of."""
    CONTINUED = "continued"
    """It goes on where the state ends (or is the whole list, and contains what the state has)."""
    UNCHANGED = "unchanged"
    """The PCR still has the state's value; whatever was sent is not proven yet."""
    REBOOTED = "rebooted"
    """A whole list that leads to the quote from zero, and not through the state: a new boot. Judged from its start."""
    ROTATED = "rotated"
    """A list that starts anew while the PCR goes on from the state (kexec without the old list, or a kernel that
    trimmed it): offsets count from its own beginning again, `ImaState.count` goes on."""
    ABSENT = "absent"
    """No entry was sent and none is known of this boot, while the PCR has been extended."""
    BEHIND = "behind"
    """The PCR has gone on and the list ends before it: it was read before the quote, or cut. Nothing is proven."""
    TRUNCATED = "truncated"
    """The guest's list is shorter than what was proven of it in this boot."""
    REWRITTEN = "rewritten"
    """No part of what was sent leads to the quote: an entry was changed, removed, inserted or reordered, or
    something else extended the PCR."""
    STALE = "stale"
    """The state was judged under another reference revision, or ends elsewhere, and no whole list was sent."""
    UNQUOTED = "unquoted"
    """No bank of the quote covers the PCR that the list is measured into."""
