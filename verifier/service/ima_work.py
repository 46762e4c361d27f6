"""Judging IMA lists: the part that may take seconds and runs in other processes. Plain values in and out."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES, check_quote
from verifier.appraisal.evidence import Evidence, Expectation
from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL, ImaState
from verifier.appraisal.ima_race import PcrValues, find_quoted, is_quoted
from verifier.errors import EvidenceError
from verifier.policy.runtime.reference import RuntimeReference
from verifier.ports_runtime import Recipe
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_quote
from verifier.tcg.ima.entry import DEFAULT_PCR
from verifier.tcg.ima.walk import detect_encoding
from verifier.tcg.signature import parse_signature

_REFERENCES: Final = 8
_references: Final[OrderedDict[bytes, RuntimeReference]] = OrderedDict()


def reference_at_hand(revision: bytes) -> RuntimeReference | None:
    """A reference that this process has made before and still has."""
    return _references.get(revision)


def reference_of(recipe: Recipe) -> RuntimeReference:
    """The reference, made once per process."""
    found = _references.get(recipe.revision)
    if found is None:
        found = _references[recipe.revision] = recipe.make()
        while len(_references) > _REFERENCES:
            _references.popitem(last=False)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaJob:
    """A list to be judged by one reference, from a state on; `anew` from all that was held of the boot before."""

    recipe: Recipe
    state: ImaState
    anew: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListParts:
    """What was held of a boot, where that is needed, and what was sent of the guest's list from `offset` on."""

    held: bytes
    data: bytes
    offset: int

    def segment(self, job: ImaJob) -> ImaSegment:
        """What the job is about."""
        return ImaSegment(self.held + self.data) if job.anew else ImaSegment(self.data, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaWork:
    """One attestation's list, for every policy that reads it. The quote is proven anew where it is judged.

    `held`, `data` and `offset` are those of `ListParts`, as buffers that are sent as they lie.
    """

    evidence: Evidence
    expectation: Expectation
    jobs: tuple[ImaJob, ...]
    held: pickle.PickleBuffer
    data: pickle.PickleBuffer
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why a list could not be read: an `EvidenceError` as plain values."""

    reason: Reason
    detail: str
    structure: str
    offset: int | None

    @classmethod
    def of(cls, error: EvidenceError) -> Unreadable:
        """What is to be raised where the list came in."""
        return cls(reason=error.reason, detail=error.detail, structure=error.structure, offset=error.offset)

    def error(self) -> EvidenceError:
        """The error."""
        return EvidenceError(self.reason, self.detail, structure=self.structure, offset=self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaDone:
    """What came of it.

    Attributes:
        pcrs: as quoted, where the list had to be asked for that.
        quoted: the values that were judged by; empty where the quote proves none, and nothing was judged.
        outcomes: by revision of the reference.
    """

    pcrs: PcrValues
    quoted: PcrValues
    outcomes: Mapping[bytes, ImaOutcome]


def do_work(work: ImaWork) -> ImaDone | Unreadable:
    """Prove the quote, and judge the list against it by every reference; for `Workers`."""
    parts = ListParts(held=bytes(work.held), data=bytes(work.data), offset=work.offset)
    try:
        pcrs = quoted_pcrs(work.evidence, work.jobs, parts)
        evidence = structs.replace(work.evidence, pcrs=pcrs)
        facts = check_quote(evidence, work.expectation, DEFAULT_SIGNATURE_HASHES).facts
        if facts is None:
            return ImaDone(pcrs=pcrs, quoted={}, outcomes={})
        outcomes = {
            job.recipe.revision: judge(job.state, parts.segment(job), facts.pcrs, reference_of(job.recipe))
            for job in work.jobs
        }
    except EvidenceError as error:
        return Unreadable.of(error)
    return ImaDone(pcrs=pcrs, quoted=facts.pcrs, outcomes=outcomes)


def quoted_pcrs(evidence: Evidence, jobs: Sequence[ImaJob], parts: ListParts) -> PcrValues:
    """The PCR values of the evidence, with PCR 10 as the list shows it was quoted; as sent where that cannot be told.

    Raises:
        EvidenceError: quote, signature or list do not parse.
    """
    attest, hashed = parse_quote(evidence.attest), parse_signature(evidence.signature).hash_alg
    if is_quoted(attest, hashed, evidence.pcrs) or not jobs:
        return evidence.pcrs
    segment = parts.segment(jobs[0])
    if not segment.data:
        return evidence.pcrs
    state = jobs[0].state if segment.offset else INITIAL
    encoding = state.encoding or detect_encoding(segment.data)
    start: Mapping[HashAlg, bytes] = state.aggregates.get(DEFAULT_PCR, {})
    found = find_quoted(attest, hashed, evidence.pcrs, start, segment.data, encoding)
    return evidence.pcrs if found is None else found
