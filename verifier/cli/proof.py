"""What a bundle proves, and how it is judged, once its AK and nonce are taken on the operator's word."""

from __future__ import annotations

from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Expectation, History, PcrRequest
from verifier.appraisal.result import Appraisal
from verifier.claims import ProvenClaims
from verifier.cli import output
from verifier.cli.bundle import Bundle
from verifier.errors import EvidenceError
from verifier.policy.model import Policy
from verifier.tcg.algorithms import HashAlg


def prove(bundle: Bundle) -> ProvenClaims:
    """The claims of a bundle whose quote holds; raises `EvidenceError` when it does not."""
    result = judge(bundle, None)
    if result.claims is None:
        finding = result.findings[0]
        raise EvidenceError(finding.reason, finding.message, structure=bundle.name)
    return result.claims


def judge(bundle: Bundle, policy: Policy | None) -> Appraisal:
    """What `policy` makes of a bundle whose AK and freshness are taken for granted."""
    expectation = Expectation(
        ak_public=bundle.ak_public,
        ak_activated=False,
        nonce=bundle.nonce,
        request=(PcrRequest(bank=HashAlg.SHA256, pcrs=frozenset()),) if policy is None else (),
        assumed=True,
    )
    return appraise(bundle.evidence, expectation, policy, History(), output.utcnow())
