"""TPMS_ATTEST (TPM 2.0 Library Specification, Part 2, section 10.12)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (Part 2, section 10.11.1).

    Attributes:
        clock: milliseconds the TPM was powered, u64.
        reset_count: TPM resets since TPM2_Clear, u32.
        restart_count: TPM restarts and resumes since the last reset, u32.
        safe: no higher clock value than this was ever reported.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool
