"""The only place that orders checks: evidence, expectation, policy, history and `now` in; an Appraisal out."""

from __future__ import annotations

from datetime import datetime

from verifier.appraisal.checks.boot_log import check_boot_log
from verifier.appraisal.checks.clock import check_history
from verifier.appraisal.checks.identity import check_freshness, check_identity
from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES, check_quote
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.appraisal.result import Appraisal, Finding, Severity, Status
from verifier.appraisal.vector import tier, vector
from verifier.claims import EndorsementFacts, ProvenClaims
from verifier.policy.evaluate import evaluate
from verifier.policy.model import LogUse, Policy
from verifier.reasons import Claim, Reason


def appraise(
    evidence: Evidence, expectation: Expectation, policy: Policy | None, history: History, now: datetime
) -> Appraisal:
    """Judge one attestation whole.

    The order is part of the trust argument: nothing is read from evidence before the quote authenticates it,
    no event before its PCR replays, no rule before its claim is proven. Every check that did not pass keeps
    the verdict from affirming; what could not be judged is recorded as such.

    Raises:
        MalformedInputError: bytes that do not parse; carries structure and offset. Nothing was judged.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    del now  # windows of validity come with certificates and staged policies; no check of today needs it
    expected = _demand(expectation, policy)
    identity = check_identity(expected)
    hashes = policy.quote.signature_hashes if policy is not None else DEFAULT_SIGNATURE_HASHES
    quote = check_quote(evidence, expected, hashes)
    findings: tuple[Finding, ...] = (*quote.findings, *identity, *check_freshness(expected))
    claims = None
    if quote.facts is not None:
        log_use = policy.boot_log if policy is not None else LogUse.OPTIONAL
        log_findings, boot = check_boot_log(evidence, quote.facts, log_use)
        claims = ProvenClaims(quote=quote.facts, boot=boot, endorsement=_endorsement(expected))
        findings += (*check_history(evidence, quote.facts, history), *log_findings)
    findings += _by_policy(policy, claims)
    return Appraisal(
        authenticated=quote.authenticated,
        tier=tier(findings),
        vector=vector(findings),
        findings=findings,
        claims=claims,
        policy_id=policy.id if policy is not None else None,
        policy_revision=policy.revision if policy is not None else None,
    )


def _demand(expectation: Expectation, policy: Policy | None) -> Expectation:
    """The policy in force now decides what must be quoted, whatever the challenge said earlier."""
    if policy is None:
        return expectation
    request = PcrRequest(bank=policy.quote.bank, pcrs=policy.quote.pcrs)
    return Expectation(
        ak_public=expectation.ak_public,
        ak_activated=expectation.ak_activated,
        nonce=expectation.nonce,
        request=(*expectation.request, request),
        assumed=expectation.assumed,
        endorsement=expectation.endorsement,
    )


def _endorsement(expectation: Expectation) -> EndorsementFacts | None:
    """Only credential activation ties an EK, and what is known of it, to the AK that signed."""
    return expectation.endorsement if expectation.ak_activated else None


def _by_policy(policy: Policy | None, claims: ProvenClaims | None) -> tuple[Finding, ...]:
    if policy is None:
        return (
            Finding(
                reason=Reason.POLICY_MISSING,
                status=Status.NOT_EVALUATED,
                severity=Severity.CONTRAINDICATED,
                claim=Claim.CONFIGURATION,
                message="no policy is assigned to this attester, so nothing says what is good",
            ),
        )
    if claims is None:
        return ()  # the quote proved nothing; its own finding already keeps the verdict from affirming
    return evaluate(policy, claims)
