"""Stored verdicts judged again by the policies in force: the part that runs in other processes. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from verifier.appraisal.result import Appraisal
from verifier.appraisal.staged import PolicySet, StagedPolicy
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.policy.assignment import Mode
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference
from verifier.ports import VerdictRecord
from verifier.ports_runtime import Recipe
from verifier.reasons import Reason
from verifier.service.ima_work import reference_of
from verifier.service.memo import AppraisalMemo
from verifier.service.rejudge import Case, rejudge_staged
from verifier.service.trial import Tried, Untried, compare, parsed
from verifier.service.verdicts import finding_mapping, read_finding, vector_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingPolicy:
    """A policy as other processes get it.

    Attributes:
        source: known to parse.
        mode: how it judges; `enforce` is the one that decides.
        recipe: of its runtime reference, where it reads IMA lists.
    """

    source: str
    mode: Mode
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgeBatch:
    """Verdicts to be judged again by the same policies.

    Attributes:
        logs: boot logs by SHA-256, proven by the store.
        at: when they are judged again.
        validity_without_policy: how long a verdict holds that no policy gives.
    """

    policies: tuple[JudgingPolicy, ...]
    cases: tuple[Case, ...]
    logs: Mapping[bytes, bytes]
    at: datetime
    validity_without_policy: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """What one verdict became.

    Attributes:
        verdict: with the sequence of the one it is to replace; None where it says exactly what that says.
        tried: what changed.
    """

    verdict: VerdictRecord | None
    tried: Tried


def rejudge_batch(batch: RejudgeBatch) -> tuple[Rejudged | Untried, ...]:
    """One outcome per case, in their order; what is wrong with a case's evidence is its outcome, never a verdict."""
    policies, references = _policies(batch.policies)
    return tuple(_rejudge(case, batch, policies, references) for case in batch.cases)


def _policies(
    judging: tuple[JudgingPolicy, ...],
) -> tuple[PolicySet, dict[tuple[str, str], RuntimeReference]]:
    primary: Policy | None = None
    staged: list[StagedPolicy] = []
    references: dict[tuple[str, str], RuntimeReference] = {}
    for each in judging:
        policy = parsed(each.source)
        if each.mode is Mode.ENFORCE:
            primary = policy
        else:
            staged.append(StagedPolicy(policy=policy, mode=each.mode))
        if each.recipe is not None:
            references[policy.id, policy.revision] = reference_of(each.recipe)
    return PolicySet(primary=primary, staged=tuple(staged)), references


def _rejudge(
    case: Case,
    batch: RejudgeBatch,
    policies: PolicySet,
    references: Mapping[tuple[str, str], RuntimeReference],
) -> Rejudged | Untried:
    try:
        appraisal = rejudge_staged(case, batch.logs, policies, _MEMO, references)
        before = tuple(map(read_finding, case.verdict.findings))
    except EvidenceError as error:
        return Untried(code=error.reason, detail=str(error))
    except StoredDataDamaged as error:
        return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
    validity = batch.validity_without_policy if policies.primary is None else policies.primary.validity
    verdict = _verdict(case.verdict, appraisal, validity, batch.at)
    same = structs.replace(verdict, rejudged_at=case.verdict.rejudged_at) == _plain(case.verdict)
    return Rejudged(verdict=None if same else verdict, tried=compare(case.verdict.tier, before, appraisal))


def _verdict(
    replaced: VerdictRecord, appraisal: Appraisal, validity: timedelta, at: datetime
) -> VerdictRecord:
    """The new verdict is about the old evidence: it ends when that is too old for the policy, and never later than before."""
    return structs.replace(
        replaced,
        tier=appraisal.tier,
        vector=vector_mapping(appraisal.vector),
        findings=tuple(finding_mapping(finding) for finding in appraisal.findings),
        policy_id=appraisal.policy_id,
        policy_revision=appraisal.policy_revision,
        valid_until=min(replaced.valid_until, replaced.judged_at + validity),
        rejudged_at=at,
    )


def _plain(verdict: VerdictRecord) -> VerdictRecord:
    """As `_verdict` makes them, to be compared."""
    return structs.replace(verdict, vector=dict(verdict.vector), findings=tuple(map(dict, verdict.findings)))


_MEMO: Final = AppraisalMemo()
"""Of this process: machines of one image share what their logs prove."""
