"""A stored verdict and the evidence it was made from, judged again. No I/O: it runs where it holds nobody up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import structs

from verifier.appraisal.appraise import appraise_again
from verifier.appraisal.evidence import Evidence, Expectation, PcrRequest
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.memo import Memo
from verifier.appraisal.result import Appraisal
from verifier.appraisal.runtime import WholeList, WholeLists
from verifier.appraisal.staged import PolicySet, appraise_again_staged, demanded
from verifier.errors import EvidenceError
from verifier.findings import Finding
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference
from verifier.ports import VerdictRecord
from verifier.reasons import Reason
from verifier.service.bundle import StoredEvidence, unpack
from verifier.service.endorsement_facts import read_facts
from verifier.service.verdicts import read_finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one verdict was made from, as it lies in the store.

    Attributes:
        verdict: as it was given.
        bundle: the bytes that `verdict.evidence_sha256` names, proven by the store.
        ima_list: of its boot up to then; None where none was judged, or it is not kept whole any more, or nobody asks.
    """

    verdict: VerdictRecord
    bundle: bytes
    ima_list: bytes | None = None


def rejudge(
    case: Case,
    logs: Mapping[bytes, bytes],
    policy: Policy | None,
    memo: Memo | None,
    reference: RuntimeReference | None = None,
) -> Appraisal:
    """What `policy` makes of stored evidence; the policy that gave the verdict gives it again.

    Proven is what the evidence proved when it came: the store has it as it was, the nonce was the attester's own and
    fresh then, and the AK was bound to an EK of which the verdict keeps what was known. Not proven: anything of today.

    Args:
        case: verdict and evidence.
        logs: the logs it names, by SHA-256, proven by the store.
        policy: what judges; None: that no policy does.
        memo: what other appraisals may leave for this one.
        reference: of `policy`, where it reads the IMA list.

    Raises:
        EvidenceError: `evidence-unavailable`: a part is not there. `quote-pcr-selection`: the quote does not cover what
            the policy reads, because nobody had asked for it. Or what this policy reads does not parse.
        StoredDataDamaged: a part is there and is not what it should be.
    """
    ready = _ready(case, logs, policy)
    runtime = None if reference is None else WholeList(ready.list(), reference)
    return appraise_again(ready.evidence, ready.expectation, policy, ready.findings, memo, runtime)


def rejudge_staged(
    case: Case,
    logs: Mapping[bytes, bytes],
    policies: PolicySet,
    memo: Memo | None,
    references: Mapping[tuple[str, str], RuntimeReference],
) -> Appraisal:
    """What the policies make of stored evidence together, as if it came now; see `rejudge` for what that proves.

    Args:
        case: verdict and evidence.
        logs: the logs it names, by SHA-256, proven by the store.
        policies: the one that decides, and those that are tried.
        memo: what other appraisals may leave for this one.
        references: of those that read the IMA list, by id and revision.

    Raises:
        EvidenceError, StoredDataDamaged: as `rejudge`, of the policy that decides.
    """
    ready = _ready(case, logs, policies.primary)
    runtime = WholeLists(ready.list(), references) if references else None
    return appraise_again_staged(ready.evidence, ready.expectation, policies, ready.findings, memo, runtime)


class _Ready(NamedTuple):
    """What is judged, what it is held against, and what was found before."""

    stored: StoredEvidence
    evidence: Evidence
    expectation: Expectation
    findings: tuple[Finding, ...]

    def list(self) -> ImaSegment | None:
        """The IMA list; None where the guest sent none."""
        if self.stored.ima is not None and self.evidence.ima is None:
            raise _unavailable("the IMA list is not kept whole any more")
        return None if self.evidence.ima is None else self.evidence.ima.segment


def _ready(case: Case, logs: Mapping[bytes, bytes], policy: Policy | None) -> _Ready:
    stored = unpack(case.bundle)
    evidence = _evidence(case, stored, logs)
    if policy is not None:
        _check_coverage(stored, policy)
    if case.verdict.endorsement is None:
        raise _unavailable("what was known of the EK then was not kept by the version that judged it")
    expectation = Expectation(
        ak_public=stored.ak_public,
        ak_activated=True,  # no verdict is stored for an attester without
        nonce=stored.nonce,
        request=(_demand(stored, policy),),
        endorsement=read_facts(case.verdict.endorsement),
    )
    return _Ready(stored, evidence, expectation, tuple(map(read_finding, case.verdict.findings)))


def stored_evidence(case: Case, logs: Mapping[bytes, bytes]) -> tuple[StoredEvidence, Evidence]:
    """The evidence to be shown; raises as `rejudge` does where it is not there."""
    stored = unpack(case.bundle)
    return stored, _evidence(case, stored, logs)


def _evidence(case: Case, stored: StoredEvidence, logs: Mapping[bytes, bytes]) -> Evidence:
    return stored.evidence(
        _log("boot log", stored.boot_log_sha256, logs),
        _log("userspace log", stored.userspace_log_sha256, logs),
        case.ima_list,
    )


def _log(what: str, sha256: bytes | None, logs: Mapping[bytes, bytes]) -> bytes | None:
    if sha256 is None:
        return None
    log = logs.get(sha256)
    if log is None:
        raise _unavailable(f"{what} {sha256.hex()} is not stored any more")
    return log


def _demand(stored: StoredEvidence, policy: Policy | None) -> PcrRequest:
    """What the quote has to cover; where no policy says so, no more than was asked of it."""
    request = demanded(policy)
    if policy is not None:
        return request
    return structs.replace(request, pcrs=request.pcrs & _covered(stored, request.bank.label))


def _covered(stored: StoredEvidence, bank: str) -> frozenset[int]:
    """PCRs that were asked for, or are there all the same."""
    asked = {pcr for each in stored.request if each.bank == bank for pcr in each.pcrs}
    return frozenset(asked | stored.pcrs.get(bank, {}).keys())


def _check_coverage(stored: StoredEvidence, policy: Policy) -> None:
    """A quote is made for the policies of its time: what nobody asked for and it lacks says nothing of the machine."""
    bank = policy.quote.bank.label
    missing = sorted(policy.quote.pcrs - _covered(stored, bank))
    if missing:
        raise EvidenceError(
            Reason.QUOTE_PCR_SELECTION,
            f"the stored quote has no {bank} PCR {', '.join(map(str, missing))}: nobody had asked for"
            " it. Assign the policy in mode `observe`, and the next challenge does",
        )


def _unavailable(detail: str) -> EvidenceError:
    return EvidenceError(Reason.EVIDENCE_UNAVAILABLE, detail)
