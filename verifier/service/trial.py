"""Stored verdicts under another policy: what each would become, and why. Plain values: it runs in other processes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from verifier.appraisal.result import Appraisal
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.findings import Finding
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference
from verifier.policy.source import parse_source
from verifier.ports import AttesterRecord, DamagedState, Lifecycle
from verifier.ports_runtime import Recipe
from verifier.reasons import Reason, Tier
from verifier.service.ima_work import reference_of
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
        recipe: of the policy's runtime reference, where it reads IMA lists.
    """

    source: str
    cases: tuple[Case, ...]
    logs: Mapping[bytes, bytes]
    recipe: Recipe | None = None


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
        before: tier as it was given; None where there is nothing to compare with.
        troubles: all that keep the new one from affirming; `new` of them did not the old one.
        gone: what kept the old one from affirming and would no longer.
    """

    before: Tier | None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attester and what its verdict would be."""

    attester_id: str
    hostname: str | None
    """What it says it is called."""
    lifecycle: Lifecycle
    outcome: Outcome

    @classmethod
    def of(cls, attester: AttesterRecord, outcome: Outcome) -> Trial:
        """The trial of an enrolled attester."""
        return cls(
            attester_id=attester.id,
            hostname=attester.identity.hostname,
            lifecycle=attester.lifecycle,
            outcome=outcome,
        )


@dataclass(slots=True, kw_only=True)
class DryRunPage:
    """What was found on one page of attesters.

    Attributes:
        examined: attesters looked at, whether selected or not.
        trials: of those that are selected and have a verdict.
        damaged: attesters whose own record cannot be read, and why.
        cursor: where to go on; None at the end.
    """

    policy_id: str
    revision: str
    examined: int = 0
    not_selected: int = 0
    never_attested: int = 0
    not_heard: int = 0
    """Revoked, or replaced by another attester: no policy changes what is known of them."""
    trials: list[Trial] = field(default_factory=list)
    damaged: list[DamagedState] = field(default_factory=list)
    cursor: str | None = None


def try_batch(batch: Batch) -> tuple[Outcome, ...]:
    """One outcome per case, in their order; what is wrong with a case's evidence is its outcome."""
    policy = parsed(batch.source)
    reference = None if batch.recipe is None else reference_of(batch.recipe)
    return tuple(_try(case, batch.logs, policy, reference) for case in batch.cases)


def _try(
    case: Case, logs: Mapping[bytes, bytes], policy: Policy, reference: RuntimeReference | None
) -> Outcome:
    try:
        appraisal = rejudge(case, logs, policy, _MEMO, reference)
        before = tuple(map(read_finding, case.verdict.findings))
    except EvidenceError as error:
        return Untried(code=error.reason, detail=str(error))
    except StoredDataDamaged as error:
        return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
    return compare(case.verdict.tier, before, appraisal)


def compare(before: Tier | None, findings: Iterable[Finding], appraisal: Appraisal) -> Tried:
    """What an appraisal changes of a verdict with this tier and these findings."""
    old, after = _troubles(findings), _troubles(appraisal.findings)
    return Tried(
        before=before,
        tier=appraisal.tier,
        troubles=tuple(after.values()),
        new=tuple(trouble for key, trouble in after.items() if key not in old),
        gone=tuple(trouble for key, trouble in old.items() if key not in after),
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
def parsed(source: str) -> Policy:
    """A policy that is known to parse; once per process."""
    return parse_source(source)


_MEMO: Final = AppraisalMemo()
"""Of this process: machines of one image share what their logs prove."""
