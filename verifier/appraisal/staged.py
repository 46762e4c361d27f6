"""Several policies over one attestation: one decides, the others are tried beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from verifier.appraisal.appraise import Examined, Judged, conclude, examine, judge
from verifier.appraisal.evidence import Evidence, Expectation, History, JudgedHistory, PcrRequest
from verifier.appraisal.memo import LocalMemo, Memo
from verifier.appraisal.result import Appraisal, Finding, Severity, Status, tried_rule
from verifier.appraisal.runtime import RuntimeJudge
from verifier.appraisal.stages import Enter, Stage, untimed
from verifier.appraisal.vector import tier
from verifier.claims import QuoteFacts
from verifier.errors import MalformedInputError
from verifier.policy.assignment import Mode
from verifier.policy.model import Policy
from verifier.reasons import Claim, Reason, Tier
from verifier.tcg.algorithms import HashAlg

WITHOUT_POLICY: Final = PcrRequest(bank=HashAlg.SHA256, pcrs=frozenset(range(16)))
"""What is asked for while no policy is assigned, so that an operator can see and learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPolicy:
    """A policy that is tried; `mode` is `warn` or `observe`."""

    policy: Policy
    mode: Mode

    def __post_init__(self) -> None:
        """Refuse what would decide: that is the primary policy's place."""
        if self.mode is Mode.ENFORCE:
            raise ValueError(f"policy {self.policy.id} is enforced; only one that is not can be tried")

    def cut(self, severity: Severity) -> Severity:
        """As grave as the mode allows, at most."""
        if self.mode is Mode.OBSERVE:
            return Severity.INFO
        return Severity.WARNING if severity is Severity.CONTRAINDICATED else severity


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """What judges one attester: the policy that decides, and those that are tried beside it.

    A revision stands here once: one that decides is not tried as well.
    """

    primary: Policy | None
    staged: tuple[StagedPolicy, ...] = ()
    demanded: PcrRequest = field(init=False, compare=False)
    """What the quote has to cover for the policy that decides."""
    asked: tuple[PcrRequest, ...] = field(init=False, compare=False)
    """What a challenge asks for: what any of the policies needs, one request per bank."""

    def __post_init__(self) -> None:
        """Work out what follows from the policies."""
        first = demanded(self.primary)
        staged = (demand_of(each.policy) for each in self.staged)
        object.__setattr__(self, "demanded", first)
        object.__setattr__(self, "asked", union((first, *staged)))


def appraise_staged(
    evidence: Evidence,
    expectation: Expectation,
    policies: PolicySet,
    history: History | JudgedHistory,
    now: datetime,
    memo: Memo | None = None,
    enter: Enter = untimed,
    runtime: RuntimeJudge | None = None,
) -> Appraisal:
    """Judge one attestation whole by the primary policy, and note what the staged ones make of it.

    The quote is checked once, under what the primary policy demands, and the log is read once. What a staged
    policy concludes never makes a verdict better, and worse only as far as its mode allows: at most `warning`
    (`warn`), not at all (`observe`). Its findings carry `policy-id/rule-id`, and one of them
    (`policy-staged`) says what the verdict would be were it enforced. `enter` is told each stage as it begins; the
    policies that are tried belong to the last.

    Raises:
        MalformedInputError, UnsupportedError: as `appraise`. A log that only a staged policy reads refuses
            nothing; that it cannot be read is then a finding.
    """
    del now  # as in `appraise`
    enter(Stage.VERIFY)
    examined = examine(evidence, expectation, policies.primary, history)
    return _judge_all(examined, evidence, policies, memo or LocalMemo(), enter, runtime)


def appraise_again_staged(
    evidence: Evidence,
    expectation: Expectation,
    policies: PolicySet,
    verdict: tuple[Finding, ...],
    memo: Memo | None = None,
    runtime: RuntimeJudge | None = None,
) -> Appraisal:
    """Judge stored evidence whole, as `appraise_staged` would if it came now, but for the attester's history.

    What the history came to when `verdict` was given is taken over from its findings; nothing else of it is.

    Raises:
        MalformedInputError, UnsupportedError: as `appraise_staged`.
    """
    examined = examine(evidence, expectation, policies.primary, JudgedHistory.among(verdict))
    return _judge_all(examined, evidence, policies, memo or LocalMemo(), untimed, runtime)


def _judge_all(
    examined: Examined,
    evidence: Evidence,
    policies: PolicySet,
    memo: Memo,
    enter: Enter,
    runtime: RuntimeJudge | None,
) -> Appraisal:
    judged = judge(examined, evidence, policies.primary, memo, enter, runtime)
    staged: list[Finding] = []
    if examined.facts is not None:
        for each in policies.staged:
            staged.extend(_try(each, examined, examined.facts, evidence, judged, memo, runtime))
    return conclude(examined, judged, policies.primary, tuple(staged))


def union(requests: Iterable[PcrRequest]) -> tuple[PcrRequest, ...]:
    """One request per bank, for everything any of them asks for; banks in the order they first come."""
    pcrs: dict[HashAlg, frozenset[int]] = {}
    for request in requests:
        pcrs[request.bank] = pcrs.get(request.bank, frozenset()) | request.pcrs
    return tuple(PcrRequest(bank=bank, pcrs=indices) for bank, indices in pcrs.items())


def demand_of(policy: Policy) -> PcrRequest:
    """What a quote has to cover for this policy."""
    return PcrRequest(bank=policy.quote.bank, pcrs=policy.quote.pcrs)


def demanded(policy: Policy | None) -> PcrRequest:
    """What a quote has to cover for the policy that decides, if there is one."""
    return WITHOUT_POLICY if policy is None else demand_of(policy)


def _try(
    staged: StagedPolicy,
    examined: Examined,
    facts: QuoteFacts,
    evidence: Evidence,
    primary: Judged,
    memo: Memo,
    runtime: RuntimeJudge | None,
) -> list[Finding]:
    policy = staged.policy
    unfit = _unfit(policy, facts)
    if unfit is not None:
        return [_marked(unfit, staged)]
    try:
        judged = judge(examined, evidence, policy, memo, runtime=runtime)
    except MalformedInputError as error:
        return [_marked(_unreadable(error), staged)]
    would_be = tier(examined.findings + judged.all)
    own = [finding for finding in judged.log_findings if not _said(finding, primary.log_findings)]
    own += judged.findings
    return [
        _summary(staged, would_be),
        *(_marked(finding, staged) for finding in own if finding.status is not Status.PASSED),
    ]


def _unfit(policy: Policy, facts: QuoteFacts) -> Finding | None:
    """Why this quote cannot be held against the policy; None when it can."""
    missing = policy.quote.pcrs - facts.pcrs.get(policy.quote.bank, {}).keys()
    if missing:
        return _finding(
            Reason.QUOTE_PCR_SELECTION,
            Status.NOT_EVALUATED,
            f"the quote has no {policy.quote.bank.label} PCR {', '.join(map(str, sorted(missing)))}, so this policy"
            " was not tried; the next challenge asks for what it needs",
        )
    if facts.signature_hash not in policy.quote.signature_hashes:
        return _finding(
            Reason.QUOTE_SIGNATURE_ALGORITHM,
            Status.FAILED,
            f"the quote is signed with {facts.signature_hash.label}, which the policy does not allow",
        )
    return None


def _unreadable(error: MalformedInputError) -> Finding:
    return _finding(Reason.MALFORMED_STRUCTURE, Status.NOT_EVALUATED, f"the boot log cannot be read: {error}")


def _finding(reason: Reason, status: Status, message: str) -> Finding:
    return Finding(
        reason=reason,
        status=status,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message=message,
    )


def _said(finding: Finding, others: tuple[Finding, ...]) -> bool:
    """Whether the primary policy's reading of the log has the same fault, and holds it no less grave."""
    return any(
        (other.reason, other.pcr, other.event_index) == (finding.reason, finding.pcr, finding.event_index)
        and other.tier >= finding.tier
        for other in others
    )


def _summary(staged: StagedPolicy, would_be: Tier) -> Finding:
    good = would_be is Tier.AFFIRMING
    policy = staged.policy
    return Finding(
        reason=Reason.POLICY_STAGED,
        status=Status.PASSED if good else Status.FAILED,
        severity=Severity.INFO,
        claim=Claim.CONFIGURATION,
        message=f"enforced, policy {policy.id} revision {policy.revision[:12]} would make the verdict"
        f" {would_be.label}; it is tried in mode {staged.mode.value}",
        rule=tried_rule(policy.id, None),
        expected=Tier.AFFIRMING.label,
        actual=would_be.label,
    )


def _marked(finding: Finding, staged: StagedPolicy) -> Finding:
    """The finding with its policy's name on it, and no graver than the mode allows."""
    rule = tried_rule(staged.policy.id, finding.rule)
    return dataclasses.replace(finding, severity=staged.cut(finding.severity), rule=rule)
