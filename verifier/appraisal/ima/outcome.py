"""From a judged list to findings and claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from verifier.appraisal.ima.continuity import Continuity
from verifier.appraisal.ima.state import ImaState
from verifier.appraisal.ima.trace import Proof
from verifier.claims import RuntimeFacts
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg


def proven_finding(state: ImaState, proof: Proof, unproven: int) -> Finding:
    """What is proven, and what waits."""
    later = f"; {unproven} bytes that came after the quote wait for the next" if unproven else ""
    message = f"{state.count} entries lead to the quoted {proof.bank.label} PCR {proof.main}{later}"
    return _finding(
        Reason.IMA_LIST_REPLAYS, Status.PASSED, message, claim=Claim.CONFIGURATION, pcr=proof.main
    )


def continuity_finding(continuity: Continuity, state: ImaState, pcr: int | None) -> Finding | None:
    """What is to be said of how the list relates to what was known; None where that is the ordinary thing."""
    pcr = state.main if pcr is None else pcr
    match continuity:
        case Continuity.FIRST | Continuity.CONTINUED | Continuity.UNCHANGED:
            return None
        case Continuity.REBOOTED | Continuity.ROTATED:
            reason, message = _NEW_START[continuity]
            return _finding(
                reason, Status.PASSED, message, severity=Severity.INFO, claim=Claim.CONFIGURATION, pcr=pcr
            )
        case Continuity.ABSENT | Continuity.BEHIND | Continuity.STALE | Continuity.UNQUOTED:
            reason, message = _UNJUDGED[continuity]
            return _finding(reason, Status.NOT_EVALUATED, message, pcr=pcr)
        case Continuity.TRUNCATED | Continuity.REWRITTEN:
            reason, message = _BROKEN[continuity]
            return _finding(reason, Status.FAILED, message, pcr=pcr)
        case _:
            assert_never(continuity)


_NEW_START: Final = {
    Continuity.REBOOTED: (
        Reason.IMA_LIST_REBOOTED,
        "the list leads from the start of a boot to the quote, without what was proven before",
    ),
    Continuity.ROTATED: (
        Reason.IMA_LIST_ROTATED,
        "the list starts anew and leads on from what was proven before: a kernel started by kexec, or a trimmed list",
    ),
}
_UNJUDGED: Final = {
    Continuity.ABSENT: (
        Reason.IMA_LIST_MISSING,
        "no IMA list came with the quote, and nothing is known of this boot's",
    ),
    Continuity.BEHIND: (
        Reason.IMA_LIST_BEHIND,
        "the PCR has gone on since the last entry that was sent: there are measurements that nobody has seen",
    ),
    Continuity.STALE: (
        Reason.IMA_LIST_INCOMPLETE,
        "what was sent does not go on from anything that was judged under this reference; the whole list is needed",
    ),
    Continuity.UNQUOTED: (
        Reason.IMA_PCR_UNPROVEN,
        "no bank of the quote covers the PCR that the list is measured into, so none of it is proven",
    ),
}
_BROKEN: Final = {
    Continuity.TRUNCATED: (
        Reason.IMA_LIST_TRUNCATED,
        "the guest's list is shorter than what was proven of it before, in the same boot",
    ),
    Continuity.REWRITTEN: (
        Reason.IMA_LIST_MISMATCH,
        "nothing of what was sent leads to the quoted value: entries were changed, or the PCR was extended otherwise",
    ),
}


_COUNTED: Final = ("known", "staged", "excluded", "signed")
"""The first of `ImaCounts`: what files can be and be good."""


def judged_findings(state: ImaState, mismatched: tuple[HashAlg, ...], *, known: bool) -> list[Finding]:
    """What the entries came to, since boot."""
    whole = known and state.count and not mismatched and not state.summary.counts.unproven
    findings = list(state.summary.findings)
    if state.summary.counts.staged:
        message = f"{state.summary.counts.staged} files are known to a staged set only"
        findings.append(
            _finding(
                Reason.IMA_FILES_STAGED, Status.FAILED, message, severity=Severity.WARNING, pcr=state.main
            )
        )
    if not whole:
        findings[:0] = _of_the_list(state, mismatched, known=known)
    if state.summary.more and state.summary.more_worst is not None:
        total = sum(state.summary.more.values())
        kinds = ", ".join(f"{count} {code}" for code, count in sorted(state.summary.more.items()))
        message = f"{total} further entries are not what the policy allows: {kinds}"
        findings.append(
            _finding(
                Reason.IMA_MORE, Status.FAILED, message, severity=state.summary.more_worst, pcr=state.main
            )
        )
    if not findings:
        findings.append(_nothing_amiss(state))
    return findings


def _nothing_amiss(state: ImaState) -> Finding:
    """All of it is known, or what is not is let through by the policy; only the first vouches for executables."""
    counts = state.summary.counts
    told = ", ".join([f"{count} {name}" for name, count in zip(_COUNTED, counts, strict=False) if count])
    if not counts.allowed:
        message = f"everything measured is known: {told or 'the boot aggregate alone'}"
        return _finding(Reason.IMA_FILES_KNOWN, Status.PASSED, message, pcr=state.main)
    message = f"the policy allows {counts.allowed} entries that it does not know, beside {told or 'none'}"
    return _finding(
        Reason.IMA_FILES_ALLOWED, Status.PASSED, message, claim=Claim.CONFIGURATION, pcr=state.main
    )


def _of_the_list(state: ImaState, mismatched: tuple[HashAlg, ...], *, known: bool) -> Iterator[Finding]:
    """What keeps all of it from being good, whatever its entries are."""
    counts, pcr = state.summary.counts, state.main
    if state.count == 0:
        message = "IMA has measured nothing: its PCR still has the value it had at power-on"
        yield _finding(Reason.IMA_LIST_MISSING, Status.FAILED, message, pcr=pcr)
    for bank in mismatched:
        message = f"the entries that lead to the quoted PCR {pcr} do not lead to that of bank {bank.label}"
        yield _finding(Reason.IMA_LIST_MISMATCH, Status.FAILED, message, pcr=pcr)
    if counts.unproven:
        message = f"{counts.unproven} entries are measured into PCRs that this quote does not prove"
        yield _finding(Reason.IMA_PCR_UNPROVEN, Status.NOT_EVALUATED, message)
    if not known:
        message = f"{state.count} entries are proven and nothing says which of them are known"
        yield _finding(Reason.IMA_REFERENCE_MISSING, Status.NOT_EVALUATED, message, pcr=pcr)


def facts_of(state: ImaState) -> RuntimeFacts:
    """Claims of what is proven since boot."""
    summary, counts = state.summary, state.summary.counts
    return RuntimeFacts(
        entries=state.count,
        known=counts.known,
        staged=counts.staged,
        excluded=counts.excluded,
        signed=counts.signed,
        unknown=counts.unknown,
        wrong=counts.wrong,
        violations=counts.violations,
        unknown_modules=summary.unknown_modules,
        policy_loads=summary.policy_loads,
        keys=counts.keys,
        buffers=counts.buffers,
        boot_aggregate=summary.boot_aggregate,
        kernels=counts.boot_aggregates,
        unproven=counts.unproven,
        allowed=counts.allowed,
    )


def _finding(
    reason: Reason,
    status: Status,
    message: str,
    *,
    severity: Severity = Severity.CONTRAINDICATED,
    claim: Claim = Claim.EXECUTABLES,
    pcr: int | None = None,
) -> Finding:
    return Finding(reason=reason, status=status, severity=severity, claim=claim, message=message, pcr=pcr)
