"""Does the boot log explain the quoted PCRs?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from verifier.appraisal.boot.told import measured_pcrs, told_to_log
from verifier.appraisal.boot.userspace import Userspace
from verifier.appraisal.boot_facts import BoundBoot, ReplayMismatch, bind_log
from verifier.appraisal.evidence import Evidence
from verifier.appraisal.memo import BootOutcome, LogNames, Memo, boot_key
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import Binding, BootFacts, QuoteFacts
from verifier.policy.model import LogUse, Toleration
from verifier.policy.tolerate import tolerated_pcrs, toleration_of
from verifier.quirks import Certainty, Quirk
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import USERSPACE, EventType
from verifier.tcg.eventlog import ParsedEventLog, parse_event_log
from verifier.tcg.userspace_log import UserspaceLog, parse_userspace_log


def check_boot_log(
    evidence: Evidence,
    quote: QuoteFacts,
    use: LogUse,
    memo: Memo | None = None,
    tolerated: tuple[Toleration, ...] = (),
) -> tuple[tuple[Finding, ...], BootFacts | None]:
    """Parse, replay and bind the log against the quoted PCRs, or take from `memo` what that gave before.

    Proven where it replays: the digests, in order. Event types and texts only as `BootFacts` marks them. A log that
    ends inside an event, or has none, is a finding; `tolerated` says which quirks are expected (docs/quirks.md).
    Raises `MalformedInputError` for bytes that are no event log.
    """
    if use is LogUse.IGNORED:
        return (), None
    if evidence.boot_log is None:
        message = "no boot log came with the quote"
        return (_finding(Reason.BOOT_LOG_MISSING, Status.NOT_EVALUATED, _absent(use), message),), None
    if not evidence.boot_log:
        return (empty_finding("the boot log has no byte", _absent(use), tolerated),), None
    outcome = _outcome(evidence.boot_log, evidence, quote, memo, tolerated)
    if outcome.facts is None and not outcome.findings:
        return (empty_finding("the boot log has no event that extends a PCR", _absent(use), tolerated),), None
    return outcome


def _outcome(
    log: bytes, evidence: Evidence, quote: QuoteFacts, memo: Memo | None, tolerated: tuple[Toleration, ...]
) -> BootOutcome:
    if memo is None:
        return _hold_against(_read(log, evidence), quote, evidence.kernel_command_line, tolerated)
    names = LogNames(_digest(log, evidence.boot_log_sha256), userspace_sha256(evidence))
    logs, measured = None, memo.measured(names)
    if measured is None:
        logs = _read(log, evidence)
        measured = measured_pcrs(logs.boot, logs.userspace)
        memo.keep_measured(names, measured)
    told = told_to_log(quote.pcrs, measured)
    key = boot_key(names.boot, told, evidence.kernel_command_line, names.userspace, quote.indices, tolerated)
    outcome = memo.boot(key)
    if outcome is None:
        logs = logs or _read(log, evidence)
        outcome = _hold_against(logs, quote._replace(pcrs=told), evidence.kernel_command_line, tolerated)
        memo.keep_boot(key, outcome, len(log) + len(evidence.userspace_log or b""))
    return outcome


class _Logs(NamedTuple):
    """Both logs, parsed; not held against anything."""

    content: bytes
    boot: ParsedEventLog
    userspace: UserspaceLog | None


def _read(log: bytes, evidence: Evidence) -> _Logs:
    sent = evidence.userspace_log
    return _Logs(
        log, parse_event_log(log, allow_cut=True), None if sent is None else parse_userspace_log(sent)
    )


def _absent(use: LogUse) -> Severity:
    """How grave it is that there is no log."""
    return Severity.CONTRAINDICATED if use is LogUse.REQUIRED else Severity.WARNING


def empty_finding(message: str, absent: Severity, tolerated: tuple[Toleration, ...]) -> Finding:
    """Nothing can be read off the log, tolerated or not; `absent` is how grave it would be if none had come."""
    quirk = Quirk.ZERO_LENGTH_LOG
    leave = toleration_of(tolerated, quirk)
    severity = absent if leave is None else leave.severity
    message += "" if leave is None else f"; tolerated: {leave.why}"
    finding = _finding(Reason.BOOT_LOG_EMPTY, Status.NOT_EVALUATED, severity, message)
    return replace(finding, quirk=quirk)


def log_sha256(evidence: Evidence) -> bytes | None:
    """Of the boot log, computed here where the caller has not."""
    return None if evidence.boot_log is None else _digest(evidence.boot_log, evidence.boot_log_sha256)


def userspace_sha256(evidence: Evidence) -> bytes | None:
    """Of systemd's log, computed here where the caller has not."""
    log = evidence.userspace_log
    return None if log is None else _digest(log, evidence.userspace_log_sha256)


def _digest(log: bytes, known: bytes | None) -> bytes:
    return known or HashAlg.SHA256.digest(log)


def _hold_against(
    logs: _Logs, quote: QuoteFacts, command_line: str | None, tolerated: tuple[Toleration, ...]
) -> BootOutcome:
    """Reads nothing but what `memo.BootKey` names. Neither facts nor findings: the log measures nothing."""
    log = logs.boot
    if log.cut_at is None and all(event.event_type == EventType.EV_NO_ACTION for event in log.events):
        return BootOutcome((), None)
    userspace = None if logs.userspace is None else Userspace(logs.userspace, quote.indices)
    leave = tolerated_pcrs(tolerated) if tolerated else ()
    bound = bind_log(logs.content, log, quote.pcrs, command_line, userspace, leave)
    findings = [mismatch_finding(mismatch, tolerated) for mismatch in bound.mismatches]
    if log.cut_at is not None:
        findings.append(cut_finding(log.cut_at, len(log.events), tolerated))
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


def mismatch_finding(mismatch: ReplayMismatch, tolerated: tuple[Toleration, ...]) -> Finding:
    """A PCR that does not replay, as grave as the policy says."""
    leave = toleration_of(tolerated, mismatch.quirk, mismatch.pcr)
    return Finding(
        reason=Reason.BOOT_LOG_MISMATCH if leave is None else Reason.BOOT_LOG_QUIRK,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED if leave is None else leave.severity,
        claim=Claim.CONFIGURATION,
        message=_told(mismatch) if leave is None else f"{_told(mismatch)}; tolerated: {leave.why}",
        pcr=mismatch.pcr,
        event_index=mismatch.after_event,
        expected=mismatch.expected.hex(),
        actual=mismatch.actual.hex(),
        quirk=mismatch.quirk,
    )


def _told(mismatch: ReplayMismatch) -> str:
    text = (
        f"the boot log does not replay to the quoted {mismatch.bank.label} PCR {mismatch.pcr}:"
        f" {mismatch.diagnosis.text}"
    )
    if mismatch.quirk is None:
        return text
    fits = mismatch.quirk.entry.certainty is Certainty.FITS
    text += f" ({mismatch.quirk.value}{', which fits and is not proven' if fits else ''})"
    left = "what is left of its events is proven" if mismatch.repaired else "none of its events is believed"
    return f"{text}; {left}"


def cut_finding(offset: int, events: int, tolerated: tuple[Toleration, ...]) -> Finding:
    """The log ends inside its `events`-th event, at `offset`."""
    quirk = Quirk.TRUNCATED_LOG
    leave = toleration_of(tolerated, quirk)
    message = (
        f"the boot log ends inside event {events}, which begins at byte {offset}: what followed is not there"
    )
    message += "" if leave is None else f"; tolerated: {leave.why}"
    severity = Severity.CONTRAINDICATED if leave is None else leave.severity
    finding = _finding(Reason.BOOT_LOG_CUT, Status.NOT_EVALUATED, severity, message)
    return replace(finding, quirk=quirk)


def _finding(reason: Reason, status: Status, severity: Severity, message: str) -> Finding:
    return Finding(
        reason=reason, status=status, severity=severity, claim=Claim.CONFIGURATION, message=message
    )
