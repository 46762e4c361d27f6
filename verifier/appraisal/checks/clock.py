"""Does the TPM's clock continue where this attester's history left it? Is it one machine?"""

from __future__ import annotations

from verifier.appraisal.evidence import Evidence, History
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import QuoteFacts
from verifier.reasons import Claim, Reason
from verifier.tcg.attest import ClockInfo


def check_history(evidence: Evidence, facts: QuoteFacts, history: History) -> tuple[Finding, ...]:
    """Compare a verified quote with what was proven before (TPM 2.0 Part 1, section 36).

    Proven: a clock that goes back shows restored TPM state. Not proven: that a clock which goes on was never
    copied; two copies that take turns need a longer history or the ratchet.
    """
    findings = [_clock(facts.clock, history.last_clock)]
    if not facts.clock.safe:
        findings.append(
            _finding(
                Reason.CLOCK_UNSAFE,
                Status.NOT_EVALUATED,
                Severity.INFO,
                "the TPM says it was not shut down in order, so its clock may repeat a little",
            )
        )
    before = history.last_firmware_version
    if before is not None and before != facts.firmware_version:
        findings.append(
            _finding(
                Reason.FIRMWARE_CHANGED,
                Status.FAILED,
                Severity.INFO,
                "the TPM's firmware version changed since the last attestation",
                expected=f"{before:#018x}",
                actual=f"{facts.firmware_version:#018x}",
            )
        )
    uuids = set(history.smbios_uuids)
    if evidence.smbios_uuid is not None:
        uuids.add(evidence.smbios_uuid)
    if len(uuids) > 1:
        findings.append(
            _finding(
                Reason.CLONE_SUSPECTED,
                Status.FAILED,
                Severity.WARNING,
                "machines with different SMBIOS UUIDs speak with one TPM",
                expected="one UUID",
                actual=", ".join(sorted(uuids)),
            )
        )
    return tuple(findings)


def _clock(now: ClockInfo, before: ClockInfo | None) -> Finding:
    if before is None:
        return _finding(
            Reason.CLOCK_FIRST_SEEN,
            Status.PASSED,
            Severity.CONTRAINDICATED,
            "first attestation: no history to compare",
        )
    if _went_back(now, before):
        return _finding(
            Reason.CLOCK_ROLLBACK,
            Status.FAILED,
            Severity.CONTRAINDICATED,
            "the TPM's clock went back: its state was restored from a snapshot or a backup",
            expected=f"after {describe_clock(before)}",
            actual=describe_clock(now),
        )
    return _finding(
        Reason.CLOCK_CONTINUES,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        "the TPM's clock continues its history",
    )


def _went_back(now: ClockInfo, before: ClockInfo) -> bool:
    if now.reset_count != before.reset_count:
        # After a reset the clock may repeat, but only when the TPM itself says that it is not safe.
        return now.reset_count < before.reset_count or (now.safe and now.clock < before.clock)
    return now.restart_count < before.restart_count or now.clock < before.clock


def describe_clock(clock: ClockInfo) -> str:
    """One line for people."""
    safe = "" if clock.safe else ", not safe"
    return f"clock {clock.clock} ms, reset {clock.reset_count}, restart {clock.restart_count}{safe}"


def _finding(
    reason: Reason,
    status: Status,
    severity: Severity,
    message: str,
    *,
    expected: str | None = None,
    actual: str | None = None,
) -> Finding:
    return Finding(
        reason=reason,
        status=status,
        severity=severity,
        claim=Claim.INSTANCE_IDENTITY,
        message=message,
        expected=expected,
        actual=actual,
    )
