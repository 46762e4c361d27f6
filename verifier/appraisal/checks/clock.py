"""Does the TPM's clock go on where its history left it? (TPM 2.0 Library Specification, Part 1, section 36)."""

from __future__ import annotations

import enum
from typing import Final

from verifier.appraisal.evidence import HISTORY_REASONS
from verifier.appraisal.result import Finding, Severity, Status
from verifier.claims import QuoteFacts
from verifier.reasons import Claim, Reason
from verifier.tcg.attest import ClockInfo

UNSAVED_CLOCK: Final = 1 << 22
"""Milliseconds (about 70 minutes) that a clock may lose at most when the TPM is not shut down in order: its NV copy is
written at least that often (TPM 2.0 Part 1, section 36.3)."""


class ClockRelation(enum.Enum):
    """How a clock relates to the one last proven."""

    FIRST = "first"
    SAME_BOOT = "same-boot"
    """Neither reset nor restarted since."""
    RESUMED = "resumed"
    """TPM Resume or Restart: the machine slept or hibernated."""
    RESET = "reset"
    """TPM Reset: it rebooted, or lost its power."""
    BACK = "back"
    """An earlier state: no machine gets there by itself."""

    __hash__ = object.__hash__  # as of `HashAlg`


_MESSAGES: Final = {
    ClockRelation.FIRST: "first attestation: no history to compare",
    ClockRelation.SAME_BOOT: "the TPM's clock goes on within one boot",
    ClockRelation.RESUMED: "the TPM's clock goes on after the machine slept (TPM resume or restart)",
    ClockRelation.RESET: "the TPM's clock goes on after a reboot (TPM reset)",
}


def clock_relation(now: ClockInfo, before: ClockInfo | None) -> ClockRelation:
    """Compare two clocks of one TPM.

    A reset counts in `reset_count`, a resume or restart in `restart_count`; neither ever goes back. Within one reset
    the clock only rises. After a reset that was not announced (power loss) it may repeat what was not yet saved, but
    then the TPM itself says that it is not safe, until it is past everything it ever reported; and it never loses more
    than `UNSAVED_CLOCK`.
    """
    if before is None:
        return ClockRelation.FIRST
    if now.reset_count != before.reset_count:
        may_lose = 0 if now.safe else UNSAVED_CLOCK
        if now.reset_count < before.reset_count or now.clock + may_lose < before.clock:
            return ClockRelation.BACK
        return ClockRelation.RESET
    if now.restart_count < before.restart_count or now.clock < before.clock:
        return ClockRelation.BACK
    return ClockRelation.SAME_BOOT if now.restart_count == before.restart_count else ClockRelation.RESUMED


def clock_findings(
    facts: QuoteFacts, relation: ClockRelation, before: ClockInfo | None, firmware_before: int | None
) -> tuple[Finding, ...]:
    """What clock and firmware version of a verified quote say beside those last proven."""
    findings = [_clock(facts.clock, relation, before)]
    if not facts.clock.safe:
        findings.append(
            history_finding(
                Reason.CLOCK_UNSAFE,
                Status.NOT_EVALUATED,
                Severity.INFO,
                "the TPM says it was not shut down in order, so its clock may repeat a little",
            )
        )
    if firmware_before is not None and firmware_before != facts.firmware_version:
        findings.append(
            history_finding(
                Reason.FIRMWARE_CHANGED,
                Status.FAILED,
                Severity.INFO,
                "the TPM's firmware version changed since the last attestation",
                expected=f"{firmware_before:#018x}",
                actual=f"{facts.firmware_version:#018x}",
            )
        )
    return tuple(findings)


def _clock(now: ClockInfo, relation: ClockRelation, before: ClockInfo | None) -> Finding:
    if relation is ClockRelation.BACK and before is not None:
        return history_finding(
            Reason.CLOCK_ROLLBACK,
            Status.FAILED,
            Severity.CONTRAINDICATED,
            "the TPM's clock went back: its state was restored from a snapshot or a backup",
            expected=f"after {describe_clock(before)}",
            actual=describe_clock(now),
        )
    return _GOES_ON[relation]


def describe_clock(clock: ClockInfo) -> str:
    """One line for people."""
    safe = "" if clock.safe else ", not safe"
    return f"clock {clock.clock} ms, reset {clock.reset_count}, restart {clock.restart_count}{safe}"


def history_finding(
    reason: Reason,
    status: Status,
    severity: Severity,
    message: str,
    *,
    expected: str | None = None,
    actual: str | None = None,
) -> Finding:
    """A finding about which machine this is.

    Raises:
        ValueError: a reason that is not among `HISTORY_REASONS`: it would be lost when evidence is judged again.
    """
    if reason not in HISTORY_REASONS:
        raise ValueError(f"{reason.value} is not among the reasons of the history")
    return Finding(
        reason=reason,
        status=status,
        severity=severity,
        claim=Claim.INSTANCE_IDENTITY,
        message=message,
        expected=expected,
        actual=actual,
    )


_GOES_ON: Final = {
    relation: history_finding(
        Reason.CLOCK_FIRST_SEEN if relation is ClockRelation.FIRST else Reason.CLOCK_CONTINUES,
        Status.PASSED,
        Severity.CONTRAINDICATED,
        message,
    )
    for relation, message in _MESSAGES.items()
}
