"""What certified NV indices hold: systemd's NvPCRs are such indices, and only a certificate proves their content."""

from __future__ import annotations

from verifier.appraisal.checks.nv_certificate import read_certificate
from verifier.appraisal.evidence import Evidence, Expectation, NvCertificate
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import CertifiedIndex, QuoteFacts
from verifier.reasons import Claim, Reason
from verifier.tcg.nv import NvPublic, parse_nv_public


def check_nvpcrs(
    evidence: Evidence, expected: Expectation, quote: QuoteFacts
) -> tuple[tuple[Finding, ...], tuple[CertifiedIndex, ...]]:
    """Verify every certificate that was sent; nothing is taken of an index whose certificate does not hold.

    Raises:
        MalformedInputError: a public area, attest or signature does not parse.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    findings: list[Finding] = []
    certified: dict[int, CertifiedIndex] = {}
    for each in evidence.nvpcrs:
        public = parse_nv_public(each.public)
        index, problem = _certified(each, public, expected, quote)
        if index is None or public.handle in certified:
            findings.append(_invalid(public.handle, problem or "it was sent twice"))
        else:
            certified[public.handle] = index
    if certified:
        findings.append(_certified_all(certified))
    return tuple(findings), tuple(certified[number] for number in sorted(certified))


def _certified(
    sent: NvCertificate, public: NvPublic, expected: Expectation, quote: QuoteFacts
) -> tuple[CertifiedIndex | None, str]:
    attest, problem = read_certificate(sent.attest, sent.signature, expected, quote)
    if problem or attest is None:
        return None, problem
    if attest.index_name != public.name:
        return None, "it certifies another index, or one with other attributes"
    if not public.extends or public.size != public.name_alg.size:
        return None, "the index is not one that can only be extended"
    if attest.offset != 0 or len(attest.contents) != public.size:
        return None, "it does not certify the whole content"
    return CertifiedIndex(public.handle, public.name, public.name_alg, attest.contents), ""


def _invalid(index: int, problem: str) -> Finding:
    return Finding(
        reason=Reason.NV_INDEX_INVALID,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message=f"the certificate of NV index {index:#010x} cannot be believed: {problem}",
    )


def _certified_all(certified: dict[int, CertifiedIndex]) -> Finding:
    listed = ", ".join(f"{index:#010x}" for index in sorted(certified))
    return Finding(
        reason=Reason.NV_INDEX_CERTIFIED,
        status=Status.PASSED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message=f"the AK certified the content of NV index {listed}",
    )
