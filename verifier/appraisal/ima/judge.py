"""Judge an IMA list against a quote: the part that the quote proves, and nothing else."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple

from verifier.appraisal.ima.continuity import Continuity
from verifier.appraisal.ima.entries import EntryJudge
from verifier.appraisal.ima.nothing import NOTHING
from verifier.appraisal.ima.outcome import continuity_finding, facts_of, judged_findings, proven_finding
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL, ImaState, ImaSummary
from verifier.appraisal.ima.trace import Proof, Trace, main_pcr, resumable
from verifier.claims import RuntimeFacts
from verifier.findings import Finding
from verifier.policy.runtime.reference import RuntimeReference
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ImaEntry, ListEncoding
from verifier.tcg.ima.parse import decode_entry
from verifier.tcg.ima.replay import Miss
from verifier.tcg.ima.walk import detect_encoding, read_entry

Quoted = Mapping[HashAlg, Mapping[int, bytes]]
__all__ = ["Continuity", "ImaOutcome", "judge", "judge_in_steps"]

_JUDGED_AT_ONCE: Final = 100
"""Entries decoded and judged between two pauses: about 20 us each."""


class ImaOutcome(NamedTuple):
    """What a judgement came to.

    Attributes:
        continuity: see there.
        state: after the proven prefix; the given one where nothing more is proven. Store it with the attestation.
        consumed: bytes of the segment's data that are proven.
        unproven: bytes after them, which stay for the next quote; they were not judged.
        findings: everything there is to say, with what was found earlier in this boot.
        claims: what a policy may judge; None where nothing is proven by this quote.
        resend: the next challenge should ask for the list from offset 0.
    """

    continuity: Continuity
    state: ImaState
    consumed: int
    unproven: int
    findings: tuple[Finding, ...]
    claims: RuntimeFacts | None
    resend: bool = False


Steps = Generator[None, None, ImaOutcome]


def judge(
    state: ImaState, segment: ImaSegment, quoted: Quoted, reference: RuntimeReference | None
) -> ImaOutcome:
    """Find the prefix of the list that the quote proves, and judge its entries.

    Args:
        state: what was proven of this boot before, or `INITIAL`.
        segment: what was sent.
        quoted: PCR values by bank and index, proven by a quote whose signature has been checked.
        reference: the runtime policy; None: nothing is known, which is a finding and never a pass.

    Raises:
        ImaFormatError: the bytes are no list, up to where the quote leads. Nothing was judged.
    """
    steps = judge_in_steps(state, segment, quoted, reference)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: ImaOutcome = end.value
            return outcome


def judge_in_steps(
    state: ImaState,
    segment: ImaSegment,
    quoted: Quoted,
    reference: RuntimeReference | None,
    *,
    entries: int = 2000,
) -> Steps:
    """As `judge`, pausing after every `entries` entries (about 1 us each), so that an event loop can breathe."""
    reference = NOTHING if reference is None else reference
    whole = segment.offset == 0
    usable = state.usable(reference.revision) and resumable(state, quoted)
    if not usable and whole:
        state = INITIAL
    elif not usable or segment.offset not in {0, state.offset}:
        return _unproven(Continuity.STALE, state, segment)
    encoding = state.encoding or (detect_encoding(segment.data) if segment.data else ListEncoding())
    trace = Trace(encoding, quoted, reference, entries, main_pcr(state, segment.data, encoding))
    if not trace.banks:
        return _unproven(Continuity.UNQUOTED, state, segment)
    continuity, proof = yield from _place(trace, state, segment)
    if proof is None:
        return _unproven(continuity, state, segment)
    before = INITIAL if continuity is Continuity.REBOOTED else state
    after = yield from _judge_entries(before, proof, segment.offset, encoding, quoted, reference)
    return _outcome(continuity, after, proof, segment, reference)


def _place(
    trace: Trace, state: ImaState, segment: ImaSegment
) -> Generator[None, None, tuple[Continuity, Proof | None]]:
    """Where the list leads from and to; the proof is None where it leads nowhere."""
    data, known = segment.data, state.offset
    whole = segment.offset == 0
    tail_at = known if whole else 0
    if state.count == 0:
        proof = yield from trace.find(INITIAL, data, 0)
        if proof is not None:
            return Continuity.FIRST, proof
    else:
        proof = yield from trace.find(state, data, min(tail_at, len(data)))
        if proof is not None:
            return (Continuity.CONTINUED if proof.count else Continuity.UNCHANGED), proof
        if whole and data:
            for start, continuity in ((INITIAL, Continuity.REBOOTED), (state, Continuity.ROTATED)):
                proof = yield from trace.find(start, data, 0)
                if proof is not None:
                    return continuity, proof
    if not data and state.count == 0:
        return Continuity.ABSENT, None
    size = segment.offset + len(data) if segment.size is None else segment.size
    if size < known:
        return Continuity.TRUNCATED, None
    return (Continuity.BEHIND if size == known else Continuity.REWRITTEN), None


def _judge_entries(
    before: ImaState,
    proof: Proof,
    offset: int,
    encoding: ListEncoding,
    quoted: Quoted,
    reference: RuntimeReference,
) -> Generator[None, None, ImaState]:
    """Judge the entries of the proven prefix, and make the state after them; `offset` is that of the data."""
    if before.count and not proof.count:
        return before
    summary = before.summary
    if proof.misses:
        summary = yield from _judge_misses(summary, proof, encoding, quoted, reference)
    elif proof.count:
        counts = summary.counts
        summary = summary._replace(counts=counts._replace(known=counts.known + proof.count))
    return ImaState(
        count=before.count + proof.count,
        main=proof.main if proof.count else None,
        offset=offset + proof.end,
        encoding=encoding if proof.count else None,
        aggregates=proof.aggregates,
        rules=proof.rules,
        revision=reference.revision,
        summary=summary,
    )


def _judge_misses(
    before: ImaSummary, proof: Proof, encoding: ListEncoding, quoted: Quoted, reference: RuntimeReference
) -> Generator[None, None, ImaSummary]:
    judging = EntryJudge(reference, before, quoted)
    judging.accepted(proof.count - len(proof.misses))
    for number, miss in enumerate(proof.misses):
        if number % _JUDGED_AT_ONCE == _JUDGED_AT_ONCE - 1:
            yield
        entry = _decode(proof.data, miss, encoding)
        if entry.pcr in proof.unproven:
            judging.unproven()
        else:
            judging.take(entry, _follower(proof, number, encoding) if entry.is_violation else None)
    return judging.result()


def _decode(data: bytes, miss: Miss, encoding: ListEncoding) -> ImaEntry:
    return decode_entry(read_entry(data, miss.offset, encoding, miss.index), miss.index, encoding.byte_order)


def _follower(proof: Proof, number: int, encoding: ListEncoding) -> ImaEntry | None:
    """The proven entry after a miss. One that was accepted is not asked for: it only tells people apart."""
    if number + 1 >= len(proof.misses) or proof.misses[number + 1].index != proof.misses[number].index + 1:
        return None
    return _decode(proof.data, proof.misses[number + 1], encoding)


def _outcome(
    continuity: Continuity, state: ImaState, proof: Proof, segment: ImaSegment, reference: RuntimeReference
) -> ImaOutcome:
    consumed = min(len(segment.data), max(0, state.offset - segment.offset))
    unproven = len(segment.data) - consumed
    findings = [proven_finding(state, proof, unproven)]
    said = continuity_finding(continuity, state, proof.main)
    if said is not None:
        findings.append(said)
    findings += judged_findings(state, proof.mismatched, known=reference is not NOTHING)
    return ImaOutcome(continuity, state, consumed, unproven, tuple(findings), facts_of(state))


def _unproven(continuity: Continuity, state: ImaState, segment: ImaSegment) -> ImaOutcome:
    """Nothing of it is proven: the state stays, and what it knows is not claimed of this quote."""
    said = continuity_finding(continuity, state, None)
    findings = () if said is None else (said,)
    resend = segment.offset != 0
    return ImaOutcome(continuity, state, 0, len(segment.data), findings, None, resend)
