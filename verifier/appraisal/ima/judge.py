"""Judge an IMA list against a quote: the part that the quote proves, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import ImaState
from verifier.claims import RuntimeFacts
from verifier.findings import Finding
from verifier.policy.runtime.reference import RuntimeReference
from verifier.tcg.algorithms import HashAlg


class Continuity(enum.Enum):
    """How a segment relates to what was proven before. All but the last four are proven by the quote."""

    FIRST = "first"
    """The list of a boot that nothing was known of."""
    CONTINUED = "continued"
    """It goes on where the state ends (or is the whole list, and passes through the state)."""
    UNCHANGED = "unchanged"
    """The PCR still has the state's value; whatever was sent is not proven yet."""
    REBOOTED = "rebooted"
    """A whole list that leads to the quote from zero, and not through the state: a new boot. Judged from its start."""
    ROTATED = "rotated"
    """A list that starts anew while the PCR goes on from the state (kexec without the old list, or a kernel that
    trimmed it): offsets count from its own beginning again, `ImaState.count` goes on."""
    BEHIND = "behind"
    """The PCR has gone on and the list ends before it: it was read before the quote, or cut. Nothing is proven."""
    TRUNCATED = "truncated"
    """The guest's list is shorter than what was proven of it in this boot."""
    REWRITTEN = "rewritten"
    """No part of what was sent leads to the quote: an entry was changed, removed, inserted or reordered, or
    something else extended the PCR."""
    STALE = "stale"
    """The state was judged under another reference revision and no whole list was sent."""


@dataclass(frozen=True, slots=True)
class ImaOutcome:
    """What a judgement came to.

    Attributes:
        continuity: see there.
        state: after the proven prefix; the given one where nothing more is proven. Store it with the attestation.
        consumed: bytes of the segment's data that are proven.
        unproven: bytes after them, which stay for the next quote; they were not judged.
        findings: everything there is to say, with what was found earlier in this boot.
        claims: what a policy may judge; None where nothing is proven.
        resend: the next challenge should ask for the list from offset 0.
    """

    continuity: Continuity
    state: ImaState
    consumed: int
    unproven: int
    findings: tuple[Finding, ...]
    claims: RuntimeFacts | None
    resend: bool = False


def judge(
    state: ImaState,
    segment: ImaSegment,
    quoted: Mapping[HashAlg, Mapping[int, bytes]],
    reference: RuntimeReference | None,
) -> ImaOutcome:
    """Find the prefix of the list that the quote proves, and judge its entries.

    Args:
        state: what was proven of this boot before, or `INITIAL`.
        segment: what was sent.
        quoted: PCR values by bank and index, proven by a quote whose signature has been checked.
        reference: the runtime policy; None: nothing is known, which is a finding and never a pass.

    Raises:
        ImaFormatError: the bytes are no list. Nothing was judged.
    """
    steps = judge_in_steps(state, segment, quoted, reference)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: ImaOutcome = end.value
            return outcome


def judge_in_steps(
    state: ImaState,
    segment: ImaSegment,
    quoted: Mapping[HashAlg, Mapping[int, bytes]],
    reference: RuntimeReference | None,
    *,
    entries: int = 2000,
) -> Generator[None, None, ImaOutcome]:
    """As `judge`, pausing after every `entries` entries (about 2 us each), so that an event loop can breathe."""
    raise NotImplementedError
