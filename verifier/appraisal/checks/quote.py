"""Is this quote from the expected AK, over the expected nonce, about the PCR values that came with it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from verifier.appraisal.alike import of_all_these
from verifier.appraisal.evidence import Evidence, Expectation
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import QuoteFacts
from verifier.crypto.keys import load_key
from verifier.crypto.signatures import scheme_problems, verify
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import QuoteAttest, parse_quote
from verifier.tcg.pcr import FixedPcrs, PcrSelection, quoted_digest
from verifier.tcg.signature import parse_signature

DEFAULT_SIGNATURE_HASHES = frozenset({HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512})


class QuoteOutcome(Struct, frozen=True):
    """Findings of the quote, what it proves (None when it does not), and whether the sender is proven."""

    findings: tuple[Finding, ...]
    facts: QuoteFacts | None
    authenticated: bool


_VERIFIED: Final = (
    Finding(
        reason=Reason.QUOTE_VERIFIED,
        status=Status.PASSED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.INSTANCE_IDENTITY,
        message="the AK signed these PCR values over the expected nonce",
    ),
)


def _failed(
    reason: Reason, message: str, *, expected: str | None = None, actual: str | None = None
) -> Finding:
    return Finding(
        reason=reason,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.INSTANCE_IDENTITY,
        message=message,
        expected=expected,
        actual=actual,
    )


def check_quote(
    evidence: Evidence, expected: Expectation, signature_hashes: frozenset[HashAlg] = DEFAULT_SIGNATURE_HASHES
) -> QuoteOutcome:
    """Verify a TPM2_Quote (TPM 2.0 Library Specification, Part 3, section 18.4).

    Proven on success: the holder of the AK's private part signed exactly these PCR values and this nonce at
    this TPM clock. Not proven here: that the AK lives in a genuine TPM (enrolment did that) or that the
    machine still is in that state.

    Raises:
        MalformedInputError: attest or signature is not the structure it should be.
        PcrValueError: a quoted PCR came without a value, or with one of the wrong length.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    signature = parse_signature(evidence.signature)
    attest = parse_quote(evidence.attest)
    ak = load_key(expected.ak_public)
    if signature.hash_alg not in signature_hashes:
        allowed = ", ".join(sorted(alg.label for alg in signature_hashes))
        message = f"the quote is signed with {signature.hash_alg.label}, which the policy does not allow"
        reason = Reason.QUOTE_SIGNATURE_ALGORITHM
        return _refused(_failed(reason, message, expected=allowed, actual=signature.hash_alg.label))
    problems = scheme_problems(ak.public, signature)
    if problems:
        return _refused(_failed(Reason.QUOTE_SIGNATURE_ALGORITHM, f"the quote is {'; '.join(problems)}"))
    if not verify(ak.key, signature, evidence.attest):
        return _refused(_failed(Reason.QUOTE_SIGNATURE, "the enrolled AK did not sign this quote"))
    if expected.nonce is not None and attest.extra_data != expected.nonce:
        return _refused(
            _failed(
                Reason.QUOTE_NONCE,
                "the quote is over another nonce",
                expected=expected.nonce.hex(),
                actual=attest.extra_data.hex(),
            )
        )
    return _pcrs(evidence, expected, attest, signature.hash_alg)


def _refused(finding: Finding) -> QuoteOutcome:
    return QuoteOutcome((finding,), None, authenticated=False)


def _pcrs(
    evidence: Evidence, expected: Expectation, attest: QuoteAttest, signature_hash: HashAlg
) -> QuoteOutcome:
    missing = _not_covered(expected, attest.selections)
    if missing is not None:
        return QuoteOutcome((missing,), None, authenticated=True)
    # The digest is made with the hash of the signing scheme, whatever the bank (Part 2, section 10.12.1).
    digest, values = _quoted(signature_hash, attest.selections, evidence.pcrs)
    if digest != attest.pcr_digest:
        message = "the PCR values that were sent are not the ones that were quoted"
        finding = _failed(
            Reason.QUOTE_PCR_DIGEST, message, expected=attest.pcr_digest.hex(), actual=digest.hex()
        )
        return QuoteOutcome((finding,), None, authenticated=True)
    facts = QuoteFacts(values, attest.clock, attest.firmware_version, signature_hash)
    return QuoteOutcome(_VERIFIED, facts, authenticated=True)


def _not_covered(expected: Expectation, selections: tuple[PcrSelection, ...]) -> Finding | None:
    for request in expected.request:
        for selection in selections:
            if selection.bank is request.bank and request.pcrs.issubset(selection.pcrs):
                break
        else:
            return _failed(
                Reason.QUOTE_PCR_SELECTION,
                f"the quote leaves out {request.bank.label} PCRs that were asked for",
                expected=f"{request.bank.label}:{_listed(request.pcrs)}",
                actual="+".join(f"{s.bank.label}:{_listed(s.pcrs)}" for s in selections) or "no PCR",
            )
    return None


def _listed(pcrs: frozenset[int] | tuple[int, ...]) -> str:
    return ",".join(str(pcr) for pcr in sorted(pcrs))


def _quoted_values(
    signature_hash: HashAlg,
    selections: tuple[PcrSelection, ...],
    values: Mapping[HashAlg, Mapping[int, bytes]],
) -> tuple[bytes, Mapping[HashAlg, Mapping[int, bytes]]]:
    """The digest a TPM takes over these PCRs, and only the values that it covers: one sent beside them is not proven.

    What nobody can change stays so.
    """
    digest = quoted_digest(signature_hash, selections, values)
    proven: dict[HashAlg, Mapping[int, bytes]] = {}
    for selection in selections:
        pcrs = selection.pcrs
        if pcrs:
            sent = values[selection.bank]
            # All of `pcrs` are in `sent`, so equal counts mean that nothing else is.
            proven[selection.bank] = sent if len(sent) == len(pcrs) else {pcr: sent[pcr] for pcr in pcrs}
    return digest, FixedPcrs(proven) if isinstance(values, FixedPcrs) else proven


_quoted: Final = of_all_these(_quoted_values)
