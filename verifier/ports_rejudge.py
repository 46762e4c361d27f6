"""What the service needs of the world to replace verdicts that were judged again from stored evidence.

A part of `verifier.ports`; the same rules hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from verifier.ports import VerdictRecord
    from verifier.ports_enrollment import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgingRecord:
    """The fleet judged again in the background after a change of one policy, and how far that is. One for each policy.

    Attributes:
        id: another one each time that it begins anew.
        everyone: all attesters, not only those whom the policy judges.
        cursor: where to go on; None before the first page.
        counts: what came of those who were looked at so far.
        problem: why it ended before everyone was looked at.
    """

    tenant: str
    policy_id: str
    id: str
    everyone: bool
    actor: str
    reason: str
    started_at: datetime
    finished_at: datetime | None
    cursor: str | None
    counts: Mapping[str, int]
    problem: str | None

    @property
    def examined(self) -> int:
        """How many were looked at."""
        return self.counts.get("examined", 0)

    def share(self, attesters: int) -> float:
        """How far it is, of a fleet of so many; who comes meanwhile may be looked at too."""
        return min(1.0, self.examined / attesters) if attesters else 1.0


class RejudgeStore(Protocol):
    """The part of `Store` that takes verdicts for which no attester was asked."""

    async def rejudge(
        self, verdicts: Sequence[VerdictRecord], audit: AuditEntry
    ) -> tuple[VerdictRecord | None, ...]:
        """Append verdicts that were judged again, and the entry of the audit log with their number, in one transaction.

        Each has the `sequence` and `evidence_sha256` of the verdict it replaces. It is stored with the next sequence where
        that one is still the latest and its attester is still enrolled, and becomes the latest; otherwise None stands in
        its place. It names the very evidence of the one it replaces, keeps its `judged_at`, and never ends later. What
        is known of the attester's boots, its past and its position stays as it is, so that open challenges stay good.

        Raises:
            ValueError: a verdict has no `rejudged_at`, or two are about one attester. Nothing is stored.
        """

    async def begin_rejudging(self, record: RejudgingRecord, not_before: datetime, audit: AuditEntry) -> None:
        """From `not_before` on, whichever replica is free goes through the fleet; whatever was under way for this policy ends."""

    async def rejudging(self, tenant: str, policy_id: str) -> RejudgingRecord | None:
        """The last one of this policy."""

    async def unfinished_rejudgings(self, tenant: str) -> tuple[RejudgingRecord, ...]:
        """Those under way, by policy."""

    async def claim_rejudging(self, now: datetime, until: datetime) -> RejudgingRecord | None:
        """One that is not finished and that nobody is at; until then it is the caller's. None: there is none.

        What is claimed for much longer than `until` was claimed by a clock that was ahead, and counts as free.
        """

    async def advance_rejudging(
        self, before: RejudgingRecord, after: RejudgingRecord, until: datetime, audit: AuditEntry | None
    ) -> bool:
        """Keep how far it is; False where it began anew, or where somebody else went on, meanwhile."""
