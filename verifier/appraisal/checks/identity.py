"""Whose key signed, and on whose word is it taken to be a TPM's?"""

from __future__ import annotations

from typing import Final

from verifier.appraisal.evidence import Expectation
from verifier.appraisal.result import Finding, Severity, Status
from verifier.crypto.keys import load_key
from verifier.reasons import Claim, Reason
from verifier.tcg.public import ak_attribute_problems


def check_identity(expected: Expectation) -> tuple[Finding, ...]:
    """Judge the AK's attributes (again, at every attestation) and how it was bound to an EK.

    Proven: the AK is a restricted, non-migratable signing key *if* a TPM vouched for it by activation.
    """
    problems = ak_attribute_problems(load_key(expected.ak_public).public)
    if problems:
        return (
            _finding(
                Reason.AK_ATTRIBUTES,
                Status.FAILED,
                Severity.CONTRAINDICATED,
                f"the AK cannot be trusted: {'; '.join(problems)}",
            ),
        )
    if expected.ak_activated:
        return _TRUSTED
    if expected.assumed:
        return (
            _finding(
                Reason.AK_UNPROVEN,
                Status.NOT_EVALUATED,
                Severity.INFO,
                "assumed, not proven: the AK belongs to a genuine TPM (--ak-trusted)",
            ),
            _finding(
                Reason.FRESHNESS_ASSUMED,
                Status.NOT_EVALUATED,
                Severity.INFO,
                "assumed, not proven: the quote is fresh; its nonce is the bundle's own (--ak-trusted)",
            ),
        )
    return (
        _finding(
            Reason.AK_UNPROVEN,
            Status.NOT_EVALUATED,
            Severity.CONTRAINDICATED,
            "no activation ever bound this AK to an EK",
        ),
    )


def check_freshness(expected: Expectation) -> tuple[Finding, ...]:
    """Without a nonce of our own, nothing says when the quote was made."""
    if expected.nonce is not None or expected.assumed:
        return ()
    return (
        _finding(
            Reason.FRESHNESS_ASSUMED,
            Status.NOT_EVALUATED,
            Severity.CONTRAINDICATED,
            "the nonce is not the verifier's, so the quote may be of any age",
        ),
    )


def _finding(reason: Reason, status: Status, severity: Severity, message: str) -> Finding:
    return Finding(
        reason=reason, status=status, severity=severity, claim=Claim.INSTANCE_IDENTITY, message=message
    )


_TRUSTED: Final = (
    _finding(
        Reason.AK_TRUSTED,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the AK was bound to a trusted EK by credential activation",
    ),
)
