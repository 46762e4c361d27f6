"""What of a log that came without a quote is read as if it were proven: all of it, or what leads to given values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from verifier.appraisal.boot.continuation import Quoted, append_all, continue_log
from verifier.appraisal.boot.explain import ReplayMismatch, explain
from verifier.appraisal.checks.boot_log import cut_finding, empty_finding, mismatch_finding
from verifier.errors import UnsupportedError
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import LogFormat, ParsedEventLog, replay
from verifier.tcg.userspace_log import UserspaceLog

EMPTY_LOG: Final = ParsedEventLog(LogFormat.SHA1, None, (), (), (), 0, None, hcrtm=False, quirks=())
"""A log of no byte. `parse_event_log` takes none: whoever means this must say so."""
_EVERY_PCR: Final = range(24)
Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A log, what of it is read, and what there is to say of that.

    Attributes:
        log: the boot log, systemd's events behind it.
        believed: PCRs with the banks in which their events are read.
        banks: in which claims are read.
        replayed: what the log leads to.
        first_divergence: for JSON: the PCR that leaves the log first, with the event and the quirk.
    """

    log: ParsedEventLog
    believed: Mapping[int, tuple[HashAlg, ...]]
    banks: tuple[HashAlg, ...]
    replayed: Mapping[HashAlg, Mapping[int, bytes]]
    locality: int | None
    findings: list[Document]
    dropped: frozenset[int] = frozenset()
    first_divergence: Document | None = field(default=None)


def read_alone(log: ParsedEventLog, userspace: UserspaceLog) -> Reading:
    """Every PCR, in the log's best bank: nothing is proven."""
    log = append_all(log, userspace)
    values, findings = _replay_all(log)
    # Not SHA-1 if there is another: logs exist whose SHA-1 digests are wrong while the others are right.
    bank = min(values, key=lambda alg: alg is HashAlg.SHA1, default=None)
    banks = () if bank is None else (bank,)
    whole = _of_whole_log(log)
    message = "replayed, not compared: without quoted PCR values nothing here is proven"
    return Reading(
        log=log,
        believed=dict.fromkeys(_EVERY_PCR, banks),
        banks=banks,
        replayed=values,
        locality=log.initial_locality,
        findings=[finding(Reason.BOOT_LOG_REPLAYS, message), *findings, *whole] if log.events else whole,
    )


def read_against(log: ParsedEventLog, userspace: UserspaceLog, pcrs: Quoted) -> Reading:
    """What leads to `pcrs`, and where it does not."""
    continuation = continue_log(log, userspace, pcrs)
    values, findings = _replay_all(continuation.log)
    explanation = explain(continuation.log, pcrs, continuation.phases)
    told = [document(mismatch_finding(each, ())) for each in explanation.mismatches]
    told += [_no_bank(bank) for bank in explanation.missing_banks]
    if not told and explanation.believed:
        message = f"the log leads to the given values of {len(explanation.believed)} PCRs; whether a TPM had them is for you to know"
        told = [{**finding(Reason.BOOT_LOG_REPLAYS, message), "status": Status.PASSED.value}]
    rest = sorted(set(explanation.unlogged) - {each.pcr for each in explanation.mismatches})
    if rest:
        message = f"the log has no event of PCR {', '.join(map(str, rest))}, which something extended"
        told.append(finding(Reason.CLAIM_UNPROVEN, message))
    return Reading(
        log=continuation.log,
        believed=explanation.believed,
        banks=explanation.replayed_banks,
        replayed=values,
        locality=explanation.locality if 0 in explanation.believed else None,
        findings=[*told, *findings, *_of_whole_log(log)],
        dropped=explanation.dropped,
        first_divergence=_first(explanation.mismatches),
    )


def homed_pcrs(reading: Reading, homed: ParsedEventLog) -> dict[int, tuple[HashAlg, ...]]:
    """PCRs of a confidential guest's log as `cc_log.as_pcrs` sorts it, of which every register is read."""
    pcrs = dict.fromkeys(_EVERY_PCR, reading.banks)
    for event, sorted_event in zip(reading.log.events, homed.events, strict=True):
        if event.event_type != EventType.EV_NO_ACTION and event.pcr not in reading.believed:
            pcrs.pop(sorted_event.pcr, None)
    return pcrs


def _first(mismatches: tuple[ReplayMismatch, ...]) -> Document | None:
    if not mismatches:
        return None
    first = mismatches[0]
    return {
        "pcr": first.pcr,
        "bank": first.bank.label,
        "after_event": first.after_event,
        "where_known": first.diagnosis.at_event is not None,
        "quirk": None if first.quirk is None else first.quirk.value,
        "how": first.diagnosis.text,
    }


def _of_whole_log(log: ParsedEventLog) -> list[Document]:
    if log.cut_at is not None:
        return [document(cut_finding(log.cut_at, len(log.events), ()))]
    if all(event.event_type == EventType.EV_NO_ACTION for event in log.events):
        return [
            document(empty_finding("the log has no event that extends a PCR", Severity.CONTRAINDICATED, ()))
        ]
    return []


def _replay_all(log: ParsedEventLog) -> tuple[dict[HashAlg, dict[int, bytes]], list[Document]]:
    values: dict[HashAlg, dict[int, bytes]] = {}
    findings: list[Document] = []
    for alg in log.algorithms:
        try:
            values[alg] = replay(log, alg)
        except UnsupportedError as error:
            findings.append(
                finding(Reason.BOOT_LOG_BANK_MISSING, f"bank {alg.label} is not replayed: {error.detail}")
            )
    return values, findings


def _no_bank(bank: HashAlg) -> Document:
    message = f"the log has no {bank.label} digests to hold against the given values"
    return finding(Reason.BOOT_LOG_BANK_MISSING, message)


def finding(reason: Reason, message: str) -> Document:
    """Something to know that nobody judged."""
    return {
        "code": reason.value,
        "status": Status.NOT_EVALUATED.value,
        "severity": Severity.INFO.value,
        "message": message,
    }


def document(found: Finding) -> Document:
    """A finding of the verifier's own check, as it stands in the document."""
    whole: dict[str, object | None] = {
        "code": found.reason.value,
        "status": found.status.value,
        "severity": found.severity.value,
        "message": found.message,
        "pcr": found.pcr,
        "event_index": found.event_index,
        "expected": found.expected,
        "actual": found.actual,
        "quirk": None if found.quirk is None else found.quirk.value,
        "remedy": found.remedy,
    }
    return {key: value for key, value in whole.items() if value is not None}
