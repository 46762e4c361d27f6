"""The only place that orders checks: evidence, expectation, policy, history and `now` in; an Appraisal out."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, structs

from verifier.appraisal.checks.boot_log import check_boot_log, log_sha256, userspace_sha256
from verifier.appraisal.checks.clock import history_finding
from verifier.appraisal.checks.clone import check_boot_counter, check_history, incident_finding
from verifier.appraisal.checks.identity import check_freshness, check_identity
from verifier.appraisal.checks.inventory import check_inventory
from verifier.appraisal.checks.nvpcrs import check_nvpcrs
from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES, check_quote
from verifier.appraisal.evidence import Evidence, Expectation, History, JudgedHistory, PcrRequest
from verifier.appraisal.ima.settle import settle_boot_aggregate
from verifier.appraisal.memo import EvaluationKey, Memo, WholeOutcome, boot_key, evaluation_key
from verifier.appraisal.place import Place
from verifier.appraisal.result import Appraisal, Finding, Severity, Status, tried_policy
from verifier.appraisal.runtime import RuntimeJudge, not_sent
from verifier.appraisal.stages import Enter, Stage, untimed
from verifier.appraisal.vector import summed
from verifier.claims import EndorsementFacts, ProvenClaims, QuoteFacts, RuntimeFacts
from verifier.policy.evaluate import evaluate
from verifier.policy.model import LogUse, Policy
from verifier.reasons import Claim, Reason, Tier


class Examined(Struct, frozen=True):
    """What was found of the quote, its key and its clock, before any policy looks at what they prove."""

    findings: tuple[Finding, ...]
    facts: QuoteFacts | None
    authenticated: bool
    endorsement: EndorsementFacts | None
    place: Place | None = None
    history: History | None = None


class Judged(Struct, frozen=True):
    """What one policy makes of it."""

    log_findings: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    claims: ProvenClaims | None

    @property
    def all(self) -> tuple[Finding, ...]:
        """Both, in the order of the checks."""
        return self.log_findings + self.findings


def appraise(
    evidence: Evidence,
    expectation: Expectation,
    policy: Policy | None,
    history: History | JudgedHistory,
    now: datetime,
    memo: Memo | None = None,
    runtime: RuntimeJudge | None = None,
) -> Appraisal:
    """Judge one attestation whole.

    The order is part of the trust argument: nothing is read from evidence before the quote authenticates it,
    no event before its PCR replays, no rule before its claim is proven. Every check that did not pass keeps
    the verdict from affirming; what could not be judged is recorded as such. `memo` holds what earlier appraisals
    concluded from the very same log, PCRs and policy revision; without one, everything is worked out here. `runtime`
    judges the IMA list for a policy that reads it; without one, no list is judged.

    Raises:
        MalformedInputError: bytes that do not parse; carries structure and offset. Nothing was judged.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    del now  # windows of validity come with certificates and staged policies; no check of today needs it
    examined = examine(evidence, expectation, policy, history)
    return conclude(examined, judge(examined, evidence, policy, memo, runtime=runtime), policy)


def appraise_again(
    evidence: Evidence,
    expectation: Expectation,
    policy: Policy | None,
    verdict: tuple[Finding, ...],
    memo: Memo | None = None,
    runtime: RuntimeJudge | None = None,
) -> Appraisal:
    """Judge stored evidence by `policy` as if that had been in force when `verdict` was given.

    Quote, key, log and policy are judged whole, as in `appraise`. Taken over from the findings of `verdict` is what
    cannot be concluded again: what the history came to then, and what other policies that were tried beside the one
    in force had to say. Under the policy that gave `verdict` the result is that very verdict.

    Raises:
        MalformedInputError, UnsupportedError: as `appraise`, where this policy reads what the one of then did not.
    """
    examined = examine(evidence, expectation, policy, JudgedHistory.among(verdict))
    judging = None if policy is None else policy.id
    tried = tuple(one for one in verdict if tried_policy(one) not in {None, judging})
    return conclude(examined, judge(examined, evidence, policy, memo, runtime=runtime), policy, tried)


def examine(
    evidence: Evidence, expectation: Expectation, policy: Policy | None, history: History | JudgedHistory
) -> Examined:
    """Check the quote under what `policy` demands of it, its key, its freshness and its place in the history."""
    expected = _demand(expectation, policy)
    identity = check_identity(expected)
    hashes = policy.quote.signature_hashes if policy is not None else DEFAULT_SIGNATURE_HASHES
    quote = check_quote(evidence, expected, hashes)
    findings: tuple[Finding, ...] = (*quote.findings, *identity, *check_freshness(expected))
    endorsement, facts = _endorsement(expected), quote.facts
    if facts is None:
        return Examined(findings, None, quote.authenticated, endorsement)
    if evidence.nvpcrs:
        certified, indices = check_nvpcrs(evidence, expected, facts)
        findings, facts = findings + certified, facts._replace(indices=indices)
    if isinstance(history, JudgedHistory):
        kept = history.findings or (_history_unjudged(),)
        return Examined(findings + history.inventory + kept, facts, quote.authenticated, endorsement)
    findings += check_inventory(expected, evidence.smbios_uuid)
    outcome = check_history(evidence, expected, facts, history)
    findings += outcome.findings
    return Examined(findings, facts, quote.authenticated, endorsement, outcome.place, history)


def judge(
    examined: Examined,
    evidence: Evidence,
    policy: Policy | None,
    memo: Memo | None,
    enter: Enter = untimed,
    runtime: RuntimeJudge | None = None,
) -> Judged:
    """Hold the logs against the quote and the policy against what they prove."""
    facts = examined.facts
    if facts is None:
        # The quote proved nothing; its own finding already keeps the verdict from affirming.
        return Judged((), _NO_POLICY if policy is None else (), None)
    enter(Stage.REPLAY)
    if policy is None or memo is None or runtime is not None or policy.runtime is not None:
        return _judge_anew(facts, examined, evidence, policy, memo, enter, runtime)
    key = _key(policy, evidence, log_sha256(evidence), facts, examined.endorsement)
    known = memo.whole(key)
    if known is None:
        judged = _judge_anew(facts, examined, evidence, policy, memo, enter, None)
        boot = None if judged.claims is None else judged.claims.boot
        outcome = WholeOutcome(judged.log_findings, judged.findings, boot)
        memo.keep_whole(key, outcome, len(evidence.boot_log or b"") + len(evidence.userspace_log or b""))
        return judged
    enter(Stage.POLICY)
    claims = ProvenClaims(quote=facts, boot=known.boot, endorsement=examined.endorsement)
    return Judged(known.log_findings, known.findings, claims)


def _judge_anew(
    facts: QuoteFacts,
    examined: Examined,
    evidence: Evidence,
    policy: Policy | None,
    memo: Memo | None,
    enter: Enter,
    runtime: RuntimeJudge | None,
) -> Judged:
    log_use = policy.boot_log if policy is not None else LogUse.OPTIONAL
    log_findings, boot = check_boot_log(
        evidence, facts, log_use, memo, policy.tolerated if policy is not None else ()
    )
    enter(Stage.POLICY)
    claims = ProvenClaims(quote=facts, boot=boot, endorsement=examined.endorsement)
    if policy is None:
        return Judged(log_findings, _NO_POLICY, claims)
    outcome = None if runtime is None else runtime.judge(policy, facts)
    if outcome is None and policy.runtime is not None:
        outcome = not_sent(facts)  # a policy that reads the list never passes without one
    if outcome is None:
        return Judged(log_findings, _evaluate(policy, claims, evidence, memo), claims)
    outcome = settle_boot_aggregate(outcome, facts.pcrs, boot)
    claims = structs.replace(claims, runtime=outcome.claims)
    return Judged(log_findings, outcome.findings + _evaluate(policy, claims, evidence, memo), claims)


def conclude(
    examined: Examined, judged: Judged, policy: Policy | None, staged: tuple[Finding, ...] = ()
) -> Appraisal:
    """The verdict. `staged` are findings of further policies, which have been cut to what they may do."""
    place, late = _place(examined, judged)
    findings = examined.findings + late + judged.all
    tier, vector = summed(findings + tuple([one for one in staged if one.tier is not Tier.AFFIRMING]))
    return Appraisal(
        authenticated=examined.authenticated,
        tier=tier,
        vector=vector,
        findings=findings + staged,
        claims=judged.claims,
        policy_id=policy.id if policy is not None else None,
        policy_revision=policy.revision if policy is not None else None,
        place=place,
    )


def _place(examined: Examined, judged: Judged) -> tuple[Place | None, tuple[Finding, ...]]:
    """Where the evidence stands in the history, now that the log is read, and what all of that comes to."""
    place, history = examined.place, examined.history
    if place is None or history is None:
        return None, ()
    boot = None if judged.claims is None else judged.claims.boot
    place, findings = check_boot_counter(place, boot, history.lineage)
    incident = incident_finding(place, history)
    return place, findings if incident is None else (*findings, incident)


def _demand(expectation: Expectation, policy: Policy | None) -> Expectation:
    """The policy in force now decides what must be quoted, whatever the challenge said earlier."""
    if policy is None:
        return expectation
    request = PcrRequest(bank=policy.quote.bank, pcrs=policy.quote.pcrs)
    if request in expectation.request:
        return expectation
    return structs.replace(expectation, request=(*expectation.request, request))


def _history_unjudged() -> Finding:
    return history_finding(
        Reason.HISTORY_UNJUDGED,
        Status.NOT_EVALUATED,
        Severity.CONTRAINDICATED,
        "nothing was concluded about the machine's past when this evidence was first judged",
    )


def _endorsement(expectation: Expectation) -> EndorsementFacts | None:
    """Only credential activation ties an EK, and what is known of it, to the AK that signed."""
    return expectation.endorsement if expectation.ak_activated else None


_NO_POLICY = (
    Finding(
        reason=Reason.POLICY_MISSING,
        status=Status.NOT_EVALUATED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message="no policy is assigned to this attester, so nothing says what is good",
    ),
)


def _key(
    policy: Policy,
    evidence: Evidence,
    log: bytes | None,
    quote: QuoteFacts,
    endorsement: EndorsementFacts | None,
    runtime: RuntimeFacts | None = None,
) -> EvaluationKey:
    """All that `policy` is held against; `log` is the digest of the boot log that speaks."""
    userspace = userspace_sha256(evidence)
    boot = boot_key(log, quote.pcrs, evidence.kernel_command_line, userspace, quote.indices, policy.tolerated)
    return evaluation_key(policy, boot, quote, endorsement, runtime)


def _evaluate(
    policy: Policy, claims: ProvenClaims, evidence: Evidence, memo: Memo | None
) -> tuple[Finding, ...]:
    if memo is None:
        return evaluate(policy, claims)
    proven = None if claims.boot is None else claims.boot.digest
    key = _key(policy, evidence, proven, claims.quote, claims.endorsement, claims.runtime)
    findings = memo.evaluation(key)
    if findings is None:
        findings = evaluate(policy, claims)
        memo.keep_evaluation(key, findings)
    return findings
