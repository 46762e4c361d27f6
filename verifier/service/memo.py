"""What appraisals remember of each other: bounded, least recently used goes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.appraisal.memo import BootKey, BootOutcome, EvaluationKey, LogNames, WholeOutcome
from verifier.findings import Finding
from verifier.ports_observe import CacheState
from verifier.service.lru import BoundedLru

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 24 * 1024 * 1024
"""Of each of the three kinds, as estimated below; what several of them hold is counted for each."""
LOG_FACTOR: Final = 5
FINDING_SIZE: Final = 640
"""Bytes of memory per byte of log, and per finding: measured, rounded up, and kept by a test."""
_BASE: Final = 4096
_NAMES: Final = 512
_NUMBER: Final = 96
"""Bytes of two names, and of a number in a set: a log may name as many PCRs as it has events."""


class AppraisalMemo:
    """`verifier.appraisal.memo.Memo` for one process, shared by the event loop and the threads beside it.

    An entry is found only by a key equal to its own in every value (trust rule 5), and only the appraisal core puts
    entries in. A machine that sends ever new command lines can push others' entries out; that costs time, never truth.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._boots: BoundedLru[BootKey, BootOutcome] = BoundedLru(max_entries, max_bytes)
        self._measured: BoundedLru[LogNames, frozenset[int]] = BoundedLru(max_entries, max_bytes)
        self._evaluations: BoundedLru[EvaluationKey, tuple[Finding, ...]] = BoundedLru(max_entries, max_bytes)
        self._wholes: BoundedLru[EvaluationKey, WholeOutcome] = BoundedLru(max_entries, max_bytes)

    @property
    def states(self) -> Mapping[str, CacheState]:
        """Hits and misses so far, of each kind."""
        return {
            "outcomes": self._wholes.state,
            "boot-outcomes": self._boots.state,
            "evaluations": self._evaluations.state,
        }

    def whole(self, key: EvaluationKey) -> WholeOutcome | None:
        """What these very logs and PCRs came to before under this policy revision."""
        return self._wholes.get(key)

    def keep_whole(self, key: EvaluationKey, outcome: WholeOutcome, log_size: int) -> None:
        """Keep an outcome."""
        findings = len(outcome.log_findings) + len(outcome.findings)
        text = key.boot.kernel_command_line or ""
        self._wholes.put(key, outcome, _BASE + LOG_FACTOR * log_size + FINDING_SIZE * findings + len(text))

    def measured(self, names: LogNames) -> frozenset[int] | None:
        """The PCRs that these very logs measure."""
        return self._measured.get(names)

    def keep_measured(self, names: LogNames, measured: frozenset[int]) -> None:
        """Keep them."""
        self._measured.put(names, measured, _NAMES + _NUMBER * len(measured))

    def boot(self, key: BootKey) -> BootOutcome | None:
        """What this log proved before against these very PCRs."""
        return self._boots.get(key)

    def keep_boot(self, key: BootKey, outcome: BootOutcome, log_size: int) -> None:
        """Keep an outcome."""
        text = key.kernel_command_line or ""
        self._boots.put(key, outcome, _BASE + LOG_FACTOR * log_size + len(text))

    def evaluation(self, key: EvaluationKey) -> tuple[Finding, ...] | None:
        """What this policy revision concluded before from these very facts."""
        return self._evaluations.get(key)

    def keep_evaluation(self, key: EvaluationKey, findings: tuple[Finding, ...]) -> None:
        """Keep findings."""
        self._evaluations.put(key, findings, _BASE + FINDING_SIZE * len(findings))
