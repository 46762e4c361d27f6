"""A boot log explained without a quote: the document of `attestctl eventlog --json`.

Nothing in it is proven by a TPM. `bound` says that an event's digest was recomputed from its data in the bank
that `claims` were read in; whether the digests were ever extended only a quote can say, or PCR values that are held
against the log, if they are a TPM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

from verifier.appraisal.boot.binding import BoundLog, bind_events
from verifier.appraisal.boot.command_line import find_command_line
from verifier.appraisal.boot.continuation import Quoted, set_aside_separators
from verifier.appraisal.boot.details import read_details
from verifier.appraisal.boot.sections import name_sections
from verifier.appraisal.boot.secure_boot import read_secure_boot
from verifier.appraisal.cc_log import REGISTERS, as_pcrs, is_cc_log
from verifier.appraisal.event_data import Described, describe
from verifier.appraisal.eventlog_reading import (
    EMPTY_LOG,
    Reading,
    finding,
    homed_pcrs,
    read_against,
    read_alone,
)
from verifier.appraisal.let_run import let_run
from verifier.claims import Binding, EventFact
from verifier.errors import MalformedInputError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import ParsedEventLog, parse_event_log
from verifier.tcg.userspace_log import STRUCTURE, UserspaceEvent, UserspaceLog, parse_userspace_log

_SEQUENCE = b"\x1e{"


def explain_log(
    data: bytes, userspace_data: bytes | None = None, pcrs: Quoted | None = None
) -> dict[str, object]:
    """Parse, replay and explain a boot log, and what systemd logged behind it.

    Args:
        data: the boot log; one that ends inside an event, or has none, is told as such.
        userspace_data: systemd's log.
        pcrs: values to hold the logs against. Events are then bound only where their PCR replays to its value, and
            claims read from those alone. Whose values they are is for whoever names them.

    Returns:
        A JSON-ready document: format, digest_algorithms, registers (of a confidential guest, by index; else null), pcrs,
        events, nv_events, claims, findings. Events of systemd's log follow those of the boot log; what extended NV
        indices stands in `nv_events`. With `pcrs`, of systemd's events those that lead on to them; and
        `first_divergence`, None where every PCR replays.

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
    log = parse_event_log(data, allow_cut=True) if data else EMPTY_LOG
    userspace = UserspaceLog((), 0) if userspace_data is None else parse_userspace_log(userspace_data)
    reading = read_alone(log, userspace) if pcrs is None else read_against(log, userspace, pcrs)
    registers = is_cc_log(reading.log)
    homed = as_pcrs(reading.log) if registers else reading.log
    if registers:
        reading = replace(reading, believed=homed_pcrs(reading, homed))
    bound = bind_events(homed, reading.believed, strong=frozenset(reading.banks), dropped=reading.dropped)
    set_aside_separators(bound, len(log.events))
    name_sections(bound)
    document: dict[str, object] = {
        "format": log.format.value,
        "digest_algorithms": [alg.label for alg in log.algorithms],
        "registers": {str(index): name for index, name in REGISTERS.items()} if registers else None,
        "pcrs": {
            alg.label: {str(pcr): value.hex() for pcr, value in sorted(values.items())}
            for alg, values in reading.replayed.items()
        },
        "events": [_event(reading.log, position, fact) for position, fact in enumerate(bound.facts)],
        "nv_events": [_nv_event(event) for event in userspace.events if event.nv_index is not None],
        "claims": {**_claims(bound, reading), "let_run": let_run(bound)},
        "findings": [
            *_of_registers(registers=registers),
            *reading.findings,
            *_log_findings(log, reading.banks),
            *_event_findings(bound),
        ],
    }
    return document if pcrs is None else {**document, "first_divergence": reading.first_divergence}


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


def _claims(bound: BoundLog, reading: Reading) -> dict[str, object]:
    secure_boot, banks = read_secure_boot(bound), reading.banks
    return {
        "bank": banks[0].label if banks else None,
        "secure_boot": {
            "enabled": secure_boot.enabled,
            "setup_mode": secure_boot.setup_mode,
            "audit_mode": secure_boot.audit_mode,
            "deployed_mode": secure_boot.deployed_mode,
        },
        "kernel_command_line": find_command_line(bound, reading.believed, None),
        "startup_locality": reading.locality,
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
    return [finding(Reason.BOOT_LOG_REPLAYS, message)]


def _log_findings(log: ParsedEventLog, banks: tuple[HashAlg, ...]) -> list[dict[str, object]]:
    findings: list[dict[str, object]] = [
        {
            "code": quirk.value,
            "status": "passed",
            "severity": "info",
            "message": f"read over: {quirk.entry.title[:1].lower()}{quirk.entry.title[1:]}",
            "quirk": quirk.value,
        }
        for quirk in log.quirks
    ]
    if banks == (HashAlg.SHA1,):
        message = (
            "the log has SHA-1 digests only: whoever wrote an event could choose two texts of one digest"
        )
        findings.append(finding(Reason.EVENT_DATA_UNBOUND, message))
    return findings


def _event_findings(bound: BoundLog) -> list[dict[str, object]]:
    unbound = [fact for fact in bound.facts if fact.digests and fact.binding is Binding.UNBOUND]
    if not unbound:
        return []
    message = f"{len(unbound)} of {sum(bool(fact.digests) for fact in bound.facts)} measured events have data that no digest covers"
    return [finding(Reason.EVENT_DATA_UNBOUND, message)]


__all__ = ["Described", "explain_log"]
