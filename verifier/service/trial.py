"""A batch of stored verdicts under another policy: what each would become, and why. Runs in another process.

Everything here is plain values in and out, so that it can be sent there and back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.findings import Finding
from verifier.policy.model import Policy
from verifier.policy.source import parse_source
from verifier.reasons import Reason, Tier
from verifier.service.memo import AppraisalMemo
from verifier.service.rejudge import Case, rejudge
from verifier.service.verdicts import read_finding

_POLICIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Verdicts to try a policy on.

    Attributes:
        source: of the policy, known to parse.
        logs: boot logs by SHA-256, proven by the store.
    """

    source: str
    cases: tuple[Case, ...]
    logs: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A finding that keeps a verdict from affirming.

    `rule` None: the verifier's own check. Two verdicts have the same trouble when all but the message is the same.
    """

    rule: str | None
    code: str
    tier: Tier
    pcr: int | None
    message: str

    @property
    def key(self) -> tuple[str | None, str, Tier, int | None]:
        """What tells troubles apart."""
        return self.rule, self.code, self.tier, self.pcr


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one verdict would be.

    Attributes:
        before: tier as it was given.
        troubles: all that keep the new one from affirming; `new` of them did not the old one.
        gone: what kept the old one from affirming and would no longer.
    """

    before: Tier
    tier: Tier
    troubles: tuple[Trouble, ...]
    new: tuple[Trouble, ...]
    gone: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Untried:
    """Why one verdict could not be judged again. It counts neither as better nor as worse, and never as good."""

    code: Reason
    detail: str


Outcome = Tried | Untried


def try_batch(batch: Batch) -> tuple[Outcome, ...]:
    """One outcome per case, in their order; what is wrong with a case's evidence is its outcome."""
    policy = _policy(batch.source)
    return tuple(_try(case, batch.logs, policy) for case in batch.cases)


def _try(case: Case, logs: Mapping[bytes, bytes], policy: Policy) -> Outcome:
    try:
        appraisal = rejudge(case, logs, policy, _MEMO)
        before = _troubles(map(read_finding, case.verdict.findings))
    except EvidenceError as error:
        return Untried(code=error.reason, detail=str(error))
    except StoredDataDamaged as error:
        return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
    after = _troubles(appraisal.findings)
    return Tried(
        before=case.verdict.tier,
        tier=appraisal.tier,
        troubles=tuple(after.values()),
        new=tuple(after[key] for key in after.keys() - before.keys()),
        gone=tuple(before[key] for key in before.keys() - after.keys()),
    )


def _troubles(findings: Iterable[Finding]) -> dict[tuple[str | None, str, Tier, int | None], Trouble]:
    """The first of those that are alike speaks for all."""
    found: dict[tuple[str | None, str, Tier, int | None], Trouble] = {}
    for finding in findings:
        if finding.tier is not Tier.AFFIRMING:
            trouble = Trouble(
                rule=finding.rule,
                code=finding.reason.value,
                tier=finding.tier,
                pcr=finding.pcr,
                message=finding.message,
            )
            found.setdefault(trouble.key, trouble)
    return found


@functools.lru_cache(maxsize=_POLICIES)
def _policy(source: str) -> Policy:
    return parse_source(source)


_MEMO: Final = AppraisalMemo()
"""Of this process: machines of one image share what their logs prove."""
