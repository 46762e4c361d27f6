"""How an appraisal comes by what an IMA list proves."""

from __future__ import annotations

from typing import Protocol

from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.claims import QuoteFacts
from verifier.policy.model import Policy


class RuntimeJudge(Protocol):
    """Judges the list that came with the evidence, or has judged it: long lists are judged before, elsewhere."""

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome | None:
        """What the list comes to under this policy and these proven PCR values; None where it does not read it."""
        ...


def not_sent(quote: QuoteFacts) -> ImaOutcome:
    """For a policy that reads the list, and evidence without one: no entry of it is known."""
    return judge(INITIAL, ImaSegment(b""), quote.pcrs, None)
