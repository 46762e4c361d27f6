"""A boot log explained without a quote: the document of `attestctl eventlog --json`.

Nothing in it is proven by a TPM. `bound` says that an event's digest was recomputed from its data in the bank
that `claims` were read in; whether the digests were ever extended only a quote can say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from verifier.appraisal.boot.binding import BoundLog, bind_events
from verifier.appraisal.boot.command_line import find_command_line
from verifier.appraisal.boot.continuation import append_all, set_aside_separators
from verifier.appraisal.boot.details import read_details
from verifier.appraisal.boot.sections import name_sections
from verifier.appraisal.boot.secure_boot import read_secure_boot
from verifier.appraisal.cc_log import REGISTERS, as_pcrs, is_cc_log
from verifier.appraisal.event_data import Described, describe
from verifier.appraisal.let_run import let_run
from verifier.claims import Binding, EventFact
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import ParsedEventLog, parse_event_log, replay
from verifier.tcg.userspace_log import STRUCTURE, UserspaceEvent, UserspaceLog, parse_userspace_log

_SEQUENCE = b"\x1e{"


def explain_log(data: bytes, userspace_data: bytes | None = None) -> dict[str, object]:
    """Parse, replay and explain a boot log, and what systemd logged behind it.

    Returns:
        A JSON-ready document: format, digest_algorithms, registers (of a confidential guest, by index; else null), pcrs,
        events, nv_events, claims, findings. Events of systemd's
        log follow those of the boot log; what extended NV indices stands in `nv_events`.

    Raises:
        MalformedInputError: not such a log; carries the offset.
        UnsupportedError: no bank of the log is of an algorithm that is known.
    """
    if data.startswith(_SEQUENCE):
        raise MalformedInputError(
            STRUCTURE,
            0,
            "this is systemd's log, which continues a boot log: name that, and this one with --userspace",
        )
    log = parse_event_log(data)
    userspace = UserspaceLog((), 0) if userspace_data is None else parse_userspace_log(userspace_data)
    first, log = len(log.events), append_all(log, userspace)
    values, findings = _replay_all(log)
    registers = is_cc_log(log)
    # Not SHA-1 if there is another: logs exist whose SHA-1 digests are wrong while the others are right.
    bank = min(values, key=lambda alg: alg is HashAlg.SHA1, default=None)
    banks = () if bank is None else (bank,)
    homed = as_pcrs(log) if registers else log
    bound = bind_events(homed, dict.fromkeys(range(24), banks), strong=frozenset(banks))
    set_aside_separators(bound, first)
    name_sections(bound)
    return {
        "format": log.format.value,
        "digest_algorithms": [alg.label for alg in log.algorithms],
        "registers": {str(index): name for index, name in REGISTERS.items()} if registers else None,
        "pcrs": {
            alg.label: {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())}
            for alg, pcrs in values.items()
        },
        "events": [_event(log, position, fact) for position, fact in enumerate(bound.facts)],
        "nv_events": [_nv_event(event) for event in userspace.events if event.nv_index is not None],
        "claims": {**_claims(bound, banks), "let_run": let_run(bound)},
        "findings": [
            *_of_registers(registers=registers),
            _not_compared(),
            *_log_findings(log, banks),
            *findings,
            *_event_findings(bound),
        ],
    }


def _replay_all(log: ParsedEventLog) -> tuple[dict[HashAlg, dict[int, bytes]], list[dict[str, object]]]:
    values: dict[HashAlg, dict[int, bytes]] = {}
    findings: list[dict[str, object]] = []
    for alg in log.algorithms:
        try:
            values[alg] = replay(log, alg)
        except UnsupportedError as error:
            findings.append(
                _finding(Reason.BOOT_LOG_BANK_MISSING, f"bank {alg.label} is not replayed: {error.detail}")
            )
    return values, findings


def _event(log: ParsedEventLog, position: int, fact: EventFact) -> dict[str, object]:
    event = log.events[position]
    shown: dict[str, object] = {
        "index": position,
        "pcr": event.pcr,
        "type": fact.type_name,
        "digests": {
            alg.label: digest.hex()
            for alg, digest in zip(log.algorithms, event.digests, strict=True)
            if digest
        },
        "bound": fact.binding in (Binding.BOUND, Binding.KNOWN),
        "binding": fact.binding.value,
    }
    if fact.name is not None:
        shown["name"] = fact.name
    if fact.text is not None:
        shown["text"] = fact.text
    data = describe(event.event_type, event.data)
    if fact.binding is Binding.BOUND and fact.name is None and "variable" in data:
        data["labels"] = ["variable", "vendor"]  # the digest covers the value alone
    return {**shown, "data": data}


def _nv_event(event: UserspaceEvent) -> dict[str, object]:
    """An extension of an NV index; its name is a label."""
    covered = (
        []
        if event.text is None
        else [
            alg.digest(event.text.encode()) == digest
            for alg, digest in event.digests.items()
            if alg.new is not None
        ]
    )
    return {
        "nv_index": f"{event.nv_index:#010x}",
        "label": event.nv_name,
        "digests": {alg.label: digest.hex() for alg, digest in event.digests.items()},
        "bound": bool(covered) and all(covered),
        "text": event.text,
    }


def _claims(bound: BoundLog, banks: tuple[HashAlg, ...]) -> dict[str, object]:
    secure_boot = read_secure_boot(bound)
    return {
        "bank": banks[0].label if banks else None,
        "secure_boot": {
            "enabled": secure_boot.enabled,
            "setup_mode": secure_boot.setup_mode,
            "audit_mode": secure_boot.audit_mode,
            "deployed_mode": secure_boot.deployed_mode,
        },
        "kernel_command_line": find_command_line(bound, dict.fromkeys(range(24), banks), None),
        "startup_locality": bound.log.initial_locality,
        "error_separators": sorted(bound.failed),
        **_plain_fields(read_details(bound)),
    }


def _plain(value: object) -> object:
    """A claim as JSON has it: bytes in hexadecimal, banks by name, sets sorted."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {
            key.label if isinstance(key, HashAlg) else str(key): _plain(item) for key, item in value.items()
        }
    if isinstance(value, frozenset):
        return sorted(str(_plain(item)) for item in value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _plain_fields(value) if is_dataclass(value) and not isinstance(value, type) else value


def _plain_fields(value: object) -> dict[str, object]:
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]


def _of_registers(*, registers: bool) -> list[dict[str, object]]:
    if not registers:
        return []
    message = (
        "the log of a confidential guest: its indices are registers (1 to 4: RTMR0 to RTMR3), not PCRs; what is read off"
        " sorts events by type and label, as a PC would have measured them"
    )
    return [_finding(Reason.BOOT_LOG_REPLAYS, message)]


def _not_compared() -> dict[str, object]:
    message = "replayed, not compared: without quoted PCR values nothing here is proven"
    return {**_finding(Reason.BOOT_LOG_REPLAYS, message), "status": "not-evaluated"}


def _log_findings(log: ParsedEventLog, banks: tuple[HashAlg, ...]) -> list[dict[str, object]]:
    findings: list[dict[str, object]] = [
        {"code": quirk.value, "status": "passed", "severity": "info", "message": f"tolerated: {quirk.value}"}
        for quirk in log.quirks
    ]
    if banks == (HashAlg.SHA1,):
        message = (
            "the log has SHA-1 digests only: whoever wrote an event could choose two texts of one digest"
        )
        findings.append(_finding(Reason.EVENT_DATA_UNBOUND, message))
    return findings


def _event_findings(bound: BoundLog) -> list[dict[str, object]]:
    unbound = [fact for fact in bound.facts if fact.digests and fact.binding is Binding.UNBOUND]
    if not unbound:
        return []
    message = f"{len(unbound)} of {sum(bool(fact.digests) for fact in bound.facts)} measured events have data that no digest covers"
    return [_finding(Reason.EVENT_DATA_UNBOUND, message)]


def _finding(reason: Reason, message: str) -> dict[str, object]:
    return {"code": reason.value, "status": "not-evaluated", "severity": "info", "message": message}


__all__ = ["Described", "explain_log"]
