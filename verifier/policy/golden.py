"""Whether a golden sequence leads to a quoted value: what it proves where the log proves nothing."""

from __future__ import annotations

from itertools import product
from typing import Final

from verifier.policy.model import SequenceRule
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import extend_all, initial_value

MAX_EXTENDS: Final = 4096
_LOCALITIES: Final = (0, 3, 4)


def leads_to(rule: SequenceRule, value: bytes, bank: HashAlg) -> bool:
    """Whether some choice of the rule's digests, each in its place, leads to `value`.

    Then exactly these were measured, whatever a log says. False where that would take too many tries.
    """
    choices = [(*step.accepted.digests, *((b"",) if step.optional else ())) for step in rule.steps]
    tries = 1
    for choice in choices:
        tries *= len(choice)
    starts = _LOCALITIES if rule.pcr == 0 else (0,)
    if tries * len(starts) * max(len(choices), 1) > MAX_EXTENDS:
        return False
    return any(
        extend_all(initial_value(rule.pcr, bank, start), [one for one in chosen if one], bank) == value
        for start in starts
        for chosen in product(*choices)
    )
