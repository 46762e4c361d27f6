"""Is an NV index certified by the key that signed the quote, over the same nonce and right after it?"""

from __future__ import annotations

from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES
from verifier.appraisal.evidence import Expectation
from verifier.claims import QuoteFacts
from verifier.crypto.keys import load_key
from verifier.crypto.signatures import scheme_problems, verify
from verifier.tcg.attest import NvCertifyAttest, parse_attest
from verifier.tcg.signature import parse_signature


def read_certificate(
    attest_bytes: bytes, signature_bytes: bytes, expected: Expectation, quote: QuoteFacts
) -> tuple[NvCertifyAttest | None, str]:
    """Verify what TPM2_NV_Certify made (TPM 2.0 Part 3, section 31.16).

    Proven where the problem is empty: the AK that signed the quote certified, over the same nonce and not before the
    quote, these contents of the index of this Name. Whether the Name is the right one is for the caller to say.

    Returns:
        The attestation and why it proves nothing; None where it attests something else.

    Raises:
        MalformedInputError: attest or signature do not parse.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    attest = parse_attest(attest_bytes)
    if not isinstance(attest, NvCertifyAttest):
        return None, "it attests something else"
    signature, ak = parse_signature(signature_bytes), load_key(expected.ak_public)
    weak = signature.hash_alg not in DEFAULT_SIGNATURE_HASHES
    if weak or scheme_problems(ak.public, signature) or not verify(ak.key, signature, attest_bytes):
        return attest, "the enrolled AK did not sign it"
    if expected.nonce is not None and attest.extra_data != expected.nonce:
        return attest, "it is over another nonce"
    before, after = quote.clock, attest.clock
    same_reset = after.reset_count == before.reset_count and attest.firmware_version == quote.firmware_version
    # The machine may sleep between the two, so the restart count may rise.
    if not same_reset or after.restart_count < before.restart_count or after.clock < before.clock:
        return attest, "it was not made right after the quote"
    return attest, ""
