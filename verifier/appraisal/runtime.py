"""How an appraisal comes by what an IMA list proves."""

from __future__ import annotations

from typing import Protocol

from verifier.appraisal.ima.judge import ImaOutcome
from verifier.claims import QuoteFacts
from verifier.policy.model import Policy


class RuntimeJudge(Protocol):
    """Judges the list that came with the evidence, or has judged it: long lists are judged before, elsewhere."""

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome | None:
        """What the list comes to under this policy and these proven PCR values; None where it does not read it."""
        ...
