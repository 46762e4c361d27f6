"""Findings: what a check or a policy rule concluded, in one shape for store, wire, pages and terminal."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, assert_never

from verifier.quirks import Quirk
from verifier.reasons import Claim, Reason, Tier


class Status(enum.StrEnum):
    """Outcome of one check. NOT_EVALUATED is as far from affirming as FAILED is, but says why."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUATED = "not-evaluated"


class Severity(enum.StrEnum):
    """How bad it is when a check does not pass. INFO never moves a verdict."""

    INFO = "info"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


_OF_THE_IMA_LIST: Final = "ima-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason of a verdict.

    Attributes:
        rule: id of the policy rule that concluded this; None for the verifier's own checks.
        event_index: index into the boot log, as `attestctl eventlog` counts; for a reason that begins with `ima-` into
            the IMA list since boot, as `attestctl ima` counts.
        expected, actual: for people; digests as hex.
        quirk: the known deviation of boot logs that fits.
    """

    reason: Reason
    status: Status
    severity: Severity
    claim: Claim
    message: str
    rule: str | None = None
    pcr: int | None = None
    event_index: int | None = None
    expected: str | None = None
    actual: str | None = None
    quirk: Quirk | None = None

    @property
    def boot_event(self) -> int | None:
        """The event of the boot log it is about; None where it is about none, or about an entry of the IMA list."""
        return None if self.reason.value.startswith(_OF_THE_IMA_LIST) else self.event_index

    @property
    def remedy(self) -> str | None:
        """What to do next; None where nothing is wrong."""
        if self.status is Status.PASSED:
            return None
        return self.reason.entry.remedy if self.quirk is None else self.quirk.entry.remedy

    @property
    def tier(self) -> Tier:
        """The best tier a verdict with this finding can have.

        A check that had to pass but could not be judged yields `none`, which is worse than a warning: whoever
        withholds evidence must not fare better than whoever shows a flaw.
        """
        if self.status is Status.PASSED or self.severity is Severity.INFO:
            return Tier.AFFIRMING
        if self.severity is Severity.WARNING:
            return Tier.WARNING
        if self.severity is Severity.CONTRAINDICATED:
            return Tier.CONTRAINDICATED if self.status is Status.FAILED else Tier.NONE
        assert_never(self.severity)
