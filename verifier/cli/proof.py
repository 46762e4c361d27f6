"""What a bundle proves once its AK and nonce are taken on the operator's word."""

from __future__ import annotations

from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Expectation, History, PcrRequest
from verifier.claims import ProvenClaims
from verifier.cli import output
from verifier.cli.bundle import Bundle
from verifier.errors import EvidenceError
from verifier.tcg.algorithms import HashAlg


def prove(bundle: Bundle) -> ProvenClaims:
    """The claims of a bundle whose quote holds; raises `EvidenceError` when it does not."""
    expectation = Expectation(
        ak_public=bundle.ak_public,
        ak_activated=False,
        nonce=bundle.nonce,
        request=(PcrRequest(bank=HashAlg.SHA256, pcrs=frozenset()),),
        assumed=True,
    )
    result = appraise(bundle.evidence, expectation, None, History(), output.utcnow())
    if result.claims is None:
        finding = result.findings[0]
        raise EvidenceError(finding.reason, finding.message, structure=bundle.name)
    return result.claims
