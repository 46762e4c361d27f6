"""What the service needs of the world to replace verdicts that were judged again from stored evidence.

A part of `verifier.ports`; the same rules hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from verifier.ports import VerdictRecord
    from verifier.ports_enrollment import AuditEntry


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
