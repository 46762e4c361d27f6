"""Does the boot log explain the quoted PCRs?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from verifier.appraisal.boot.userspace import Userspace
from verifier.appraisal.boot_facts import BoundBoot, ReplayMismatch, bind_log
from verifier.appraisal.evidence import Evidence
from verifier.appraisal.memo import BootOutcome, Memo, boot_key
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import Binding, BootFacts, QuoteFacts
from verifier.policy.model import LogUse
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import USERSPACE
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.userspace_log import parse_userspace_log


def check_boot_log(
    evidence: Evidence, quote: QuoteFacts, use: LogUse, memo: Memo | None = None
) -> tuple[tuple[Finding, ...], BootFacts | None]:
    """Parse, replay and bind the log against the quoted PCRs, or take from `memo` what that gave before.

    Proven where it replays: the digests, in order. Event types and texts only as `BootFacts` marks them.
    Raises `MalformedInputError` for bytes that are no event log.
    """
    if use is LogUse.IGNORED:
        return (), None
    if evidence.boot_log is None:
        severity = Severity.CONTRAINDICATED if use is LogUse.REQUIRED else Severity.WARNING
        message = "no boot log came with the quote"
        return (_finding(Reason.BOOT_LOG_MISSING, Status.NOT_EVALUATED, severity, message),), None
    if memo is None:
        return _hold_against(evidence.boot_log, evidence, quote)
    digest = evidence.boot_log_sha256 or HashAlg.SHA256.digest(evidence.boot_log)
    key = boot_key(digest, quote, evidence.kernel_command_line, userspace_sha256(evidence))
    outcome = memo.boot(key)
    if outcome is None:
        outcome = _hold_against(evidence.boot_log, evidence, quote)
        memo.keep_boot(key, outcome, len(evidence.boot_log) + len(evidence.userspace_log or b""))
    return outcome


def userspace_sha256(evidence: Evidence) -> bytes | None:
    """Of systemd's log, computed here where the caller has not."""
    if evidence.userspace_log is None:
        return None
    return evidence.userspace_log_sha256 or HashAlg.SHA256.digest(evidence.userspace_log)


def _hold_against(log_bytes: bytes, evidence: Evidence, quote: QuoteFacts) -> BootOutcome:
    """Reads nothing but what `memo.BootKey` names."""
    sent = evidence.userspace_log
    userspace = None if sent is None else Userspace(parse_userspace_log(sent), quote.indices)
    bound = bind_log(
        log_bytes, parse_event_log(log_bytes), quote.pcrs, evidence.kernel_command_line, userspace
    )
    findings = [_mismatch(mismatch) for mismatch in bound.mismatches]
    for bank in bound.missing_banks:
        message = (
            f"the log has no {bank.label} digests, so it cannot be held against the quoted {bank.label} PCRs"
        )
        findings.append(
            _finding(Reason.BOOT_LOG_BANK_MISSING, Status.NOT_EVALUATED, Severity.CONTRAINDICATED, message)
        )
    if not findings and bound.facts is not None:
        findings.append(_replays(bound.facts))
    if userspace is not None:
        findings += _userspace(bound)
    return BootOutcome(tuple(findings), bound.facts)


def _userspace(bound: BoundBoot) -> Iterator[Finding]:
    """What became of systemd's log; of itself it moves no verdict: what it does not prove, no claim says."""
    if bound.continued:
        message = f"{bound.continued} events of systemd's userspace log lead on to the quoted PCRs"
        yield _finding(Reason.USERSPACE_LOG_REPLAYS, Status.PASSED, Severity.INFO, message)
    for pcr in bound.unexplained:
        message = (
            f"the userspace log does not lead to the quoted PCR {pcr}, so its events of it prove nothing"
        )
        finding = _finding(Reason.USERSPACE_LOG_UNEXPLAINED, Status.NOT_EVALUATED, Severity.INFO, message)
        yield replace(finding, pcr=pcr)


def _replays(facts: BootFacts) -> Finding:
    # An event of systemd's log without digests is one that the quote does not cover.
    measured = [
        event
        for event in facts.events
        if event.binding is not Binding.UNMEASURED and (event.digests or event.event_type != USERSPACE)
    ]
    proven = sum(event.binding is not Binding.UNBOUND for event in measured)
    message = f"{len(measured)} events replay to the quoted PCRs; the text of {proven} is bound by its digest"
    return _finding(Reason.BOOT_LOG_REPLAYS, Status.PASSED, Severity.CONTRAINDICATED, message)


def _mismatch(mismatch: ReplayMismatch) -> Finding:
    return Finding(
        reason=Reason.BOOT_LOG_MISMATCH,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message=f"the boot log does not replay to the quoted {mismatch.bank.label} PCR {mismatch.pcr}",
        pcr=mismatch.pcr,
        event_index=mismatch.after_event,
        expected=mismatch.expected.hex(),
        actual=mismatch.actual.hex(),
    )


def _finding(reason: Reason, status: Status, severity: Severity, message: str) -> Finding:
    return Finding(
        reason=reason, status=status, severity=severity, claim=Claim.CONFIGURATION, message=message
    )
