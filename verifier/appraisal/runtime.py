"""How an appraisal comes by what an IMA list proves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.claims import QuoteFacts
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference


class RuntimeJudge(Protocol):
    """Judges the list that came with the evidence, or has judged it: long lists are judged before, elsewhere."""

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome | None:
        """What the list comes to under this policy and these proven PCR values; None where it does not read it."""
        ...


def not_sent(quote: QuoteFacts) -> ImaOutcome:
    """For a policy that reads the list, and evidence without one: no entry of it is known."""
    return judge(INITIAL, ImaSegment(b""), quote.pcrs, None)


class WholeList(NamedTuple):
    """`RuntimeJudge` of one policy over a list from its beginning."""

    segment: ImaSegment | None
    reference: RuntimeReference

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome:
        """What the list comes to; `policy` is the one that `reference` belongs to."""
        del policy
        if self.segment is None:
            return not_sent(quote)
        return judge(INITIAL, self.segment, quote.pcrs, self.reference)


class WholeLists(NamedTuple):
    """`RuntimeJudge` of several policies over one list from its beginning; references by id and revision of the policy."""

    segment: ImaSegment | None
    references: Mapping[tuple[str, str], RuntimeReference]

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome | None:
        """What the list comes to; None for a policy that does not read it."""
        reference = self.references.get((policy.id, policy.revision))
        return None if reference is None else WholeList(self.segment, reference).judge(policy, quote)
