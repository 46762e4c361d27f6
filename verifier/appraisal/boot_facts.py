"""From an untrusted boot log and quoted PCRs to `BootFacts`: replay, compare, bind, read off."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.appraisal.boot.binding import bind_events
from verifier.appraisal.boot.command_line import find_command_line
from verifier.appraisal.boot.details import read_details
from verifier.appraisal.boot.explain import ReplayMismatch, explain
from verifier.appraisal.boot.sections import name_sections
from verifier.appraisal.boot.secure_boot import read_secure_boot
from verifier.claims import BootFacts
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import ParsedEventLog

__all__ = ["BoundBoot", "ReplayMismatch", "bind_log"]


@dataclass(frozen=True, slots=True)
class BoundBoot:
    """A log held against quoted PCRs.

    Attributes:
        facts: what is proven; None where no quoted bank could be replayed.
        mismatches: quoted PCRs that the log's events do not lead to.
        missing_banks: quoted banks the log lacks or this build cannot hash.
    """

    facts: BootFacts | None
    mismatches: tuple[ReplayMismatch, ...]
    missing_banks: tuple[HashAlg, ...]


def bind_log(
    log_bytes: bytes,
    log: ParsedEventLog,
    pcrs: Mapping[HashAlg, Mapping[int, bytes]],
    kernel_command_line: str | None,
) -> BoundBoot:
    """Hold a log against PCR values that a quote has proven, and read off what both together prove.

    Proven of an event whose PCR replays: its digest and its place among the events of that PCR. Its name and
    text only where the digest was recomputed from them. Never proven: event types of unbound events, the order
    of events of different PCRs, and that the running system did not extend a PCR further after boot.

    Args:
        log_bytes: the log, for its digest.
        log: the same, parsed.
        pcrs: quoted values per bank.
        kernel_command_line: what the guest says; believed only where a measured digest covers it.
    """
    explanation = explain(log, pcrs)
    if not explanation.replayed_banks:
        return BoundBoot(None, explanation.mismatches, explanation.missing_banks)
    bound = bind_events(log, explanation.believed)
    name_sections(bound)
    command_line = find_command_line(bound, explanation.believed, kernel_command_line)
    facts = BootFacts(
        digest=HashAlg.SHA256.digest(log_bytes),
        banks=explanation.replayed_banks,
        events=tuple(bound.facts),
        secure_boot=read_secure_boot(bound),
        kernel_command_line=command_line,
        startup_locality=log.initial_locality if 0 in explanation.believed else None,
        unlogged_pcrs=explanation.unlogged,
        boot_phases=explanation.phases,
        error_separators=tuple(sorted(bound.failed)),
        decode=functools.cache(functools.partial(read_details, bound)),
    )
    return BoundBoot(facts, explanation.mismatches, explanation.missing_banks)
