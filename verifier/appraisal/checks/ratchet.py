"""What the certified content of the ratchet's NV index says of the TPM's past (docs/adr/0008-ratchet.md)."""

from __future__ import annotations

from typing import Final, NamedTuple

from verifier.appraisal.checks.clock import history_finding
from verifier.appraisal.checks.nv_certificate import read_certificate
from verifier.appraisal.evidence import Evidence, Expectation, RatchetEvidence
from verifier.appraisal.lineage import Lineage
from verifier.appraisal.place import PARTED, RatchetRelation, Shown
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import QuoteFacts
from verifier.crypto.ratchet import VALUE_SIZE, RatchetChain
from verifier.reasons import Reason

_IDLE_ALLOWED: Final = 2
"""How often a value may be left unused in a row before that is remarked on: a TPM may be busy, or refuse to write."""


def read_ratchet(evidence: Evidence, expected: Expectation, quote: QuoteFacts, line: Lineage) -> Shown:
    """Verify the index's certificate (TPM2_NV_Certify, TPM 2.0 Part 3, section 31.16) and place its content.

    Proven where a content is given: the AK that signed the quote certified, over the same nonce and not before the
    quote, that an extend-only index of the expected name holds it. Not proven: who extended it. Whoever may use the
    TPM's owner hierarchy can delete the index and fill another one with values it has kept.

    Raises:
        MalformedInputError: attest or signature do not parse.
        UnsupportedError: an algorithm this verifier does not judge.
    """
    chain, shown = expected.ratchet, evidence.ratchet
    if chain is None:
        return Shown(RatchetRelation.NOT_ASKED)
    if shown is None:
        return Shown(RatchetRelation.ABSENT if line.ratchet is None else RatchetRelation.MISSING)
    attest, problem = read_certificate(shown.attest, shown.signature, expected, quote)
    if attest is None or problem:
        return Shown(RatchetRelation.INVALID, problem=problem)
    if attest.index_name != chain.index_name or attest.offset != 0 or len(attest.contents) != VALUE_SIZE:
        return Shown(
            RatchetRelation.INVALID, problem="it certifies another index, or one with other attributes"
        )
    return _place(attest.contents, shown, chain, line)


def _place(content: bytes, shown: RatchetEvidence, chain: RatchetChain, line: Lineage) -> Shown:
    if line.ratchet is None:
        led = _led_here(content, shown, chain)
        return Shown(RatchetRelation.STARTS, content, None if led is None else led[0])
    if content == line.ratchet:
        stalled = line.idle >= _IDLE_ALLOWED
        return Shown(RatchetRelation.STALLED if stalled else RatchetRelation.SAME, content)
    if content == line.ratchet_next:
        return Shown(RatchetRelation.NEXT, content, line.step + 1)
    if content in line.trail:
        return Shown(RatchetRelation.SUPERSEDED, content)
    led = _led_here(content, shown, chain)
    if led is None:
        return Shown(RatchetRelation.FOREIGN, content)
    return Shown(_after(*led, line), content, led[0])


def _after(step: int, base: bytes, line: Lineage) -> RatchetRelation:
    """How a content relates that `step` led to from `base`, and that the line never showed."""
    if base == line.ratchet:
        return RatchetRelation.NEXT
    if step > line.step:
        return RatchetRelation.RESUMED
    return RatchetRelation.SIBLING if base in line.trail else RatchetRelation.SUPERSEDED


def _led_here(content: bytes, shown: RatchetEvidence, chain: RatchetChain) -> tuple[int, bytes] | None:
    """The step and base the agent names, if they lead to this content: that is a proof, whoever names them."""
    if shown.step is None or shown.base is None or shown.nonce is None:
        return None
    led = chain.following(shown.step, shown.base, shown.nonce)
    return (shown.step, shown.base) if led == content else None


class _Meaning(NamedTuple):
    reason: Reason
    status: Status
    severity: Severity
    message: str


_MEANINGS: Final = {
    RatchetRelation.ABSENT: _Meaning(
        Reason.RATCHET_UNSUPPORTED,
        Status.NOT_EVALUATED,
        Severity.INFO,
        "the TPM shows no ratchet, and never did",
    ),
    RatchetRelation.MISSING: _Meaning(
        Reason.RATCHET_MISSING,
        Status.NOT_EVALUATED,
        Severity.CONTRAINDICATED,
        "the TPM shows no ratchet, though it had one",
    ),
    RatchetRelation.INVALID: _Meaning(
        Reason.RATCHET_INVALID,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "the certificate of the ratchet cannot be believed",
    ),
    RatchetRelation.STARTS: _Meaning(
        Reason.RATCHET_STARTED,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the ratchet is known from here on",
    ),
    RatchetRelation.SAME: _Meaning(
        Reason.RATCHET_CONTINUES,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the ratchet goes on from where it was",
    ),
    RatchetRelation.STALLED: _Meaning(
        Reason.RATCHET_STALLED,
        Status.FAILED,
        Severity.WARNING,
        "the ratchet stands still although values come for it: a copy would show the same",
    ),
    RatchetRelation.NEXT: _Meaning(
        Reason.RATCHET_CONTINUES,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the ratchet goes on from where it was",
    ),
    RatchetRelation.RESUMED: _Meaning(
        Reason.RATCHET_RESUMED,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the ratchet is ahead of what the verifier remembers, by values only it can have handed out",
    ),
    RatchetRelation.SUPERSEDED: _Meaning(
        Reason.RATCHET_ROLLBACK,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "the ratchet shows a state that this TPM had left behind",
    ),
    RatchetRelation.SIBLING: _Meaning(
        Reason.RATCHET_DIVERGED,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "the ratchet went on from an earlier state by another way than this TPM did",
    ),
    RatchetRelation.FOREIGN: _Meaning(
        Reason.RATCHET_FOREIGN,
        Status.FAILED,
        Severity.CONTRAINDICATED,
        "the ratchet holds what no value of this verifier leads to",
    ),
}


_PASSED: Final = {
    relation: history_finding(one.reason, one.status, one.severity, one.message)
    for relation, one in _MEANINGS.items()
    if one.status is Status.PASSED
}


def ratchet_finding(shown: Shown, line: Lineage) -> Finding | None:
    """What the relation means for the verdict; None where no ratchet was asked for."""
    if shown.relation is RatchetRelation.NOT_ASKED:
        return None
    plain = _PASSED.get(shown.relation)
    if plain is not None:
        return plain
    meaning = _MEANINGS[shown.relation]
    parted = shown.relation in PARTED and line.ratchet is not None and shown.content is not None
    return history_finding(
        meaning.reason,
        meaning.status,
        meaning.severity,
        f"{meaning.message}: {shown.problem}" if shown.problem else meaning.message,
        expected=f"{line.ratchet.hex()}, or what follows it" if parted and line.ratchet is not None else None,
        actual=shown.content.hex() if parted and shown.content is not None else None,
    )
