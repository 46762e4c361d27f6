"""From an untrusted boot log and quoted PCRs to `BootFacts`: replay, compare, bind, read off."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from verifier.appraisal.boot.binding import BoundLog, bind_events
from verifier.appraisal.boot.command_line import find_command_line
from verifier.appraisal.boot.continuation import Continuation, continue_log, set_aside_separators
from verifier.appraisal.boot.details import read_details
from verifier.appraisal.boot.explain import UKI_PCR, Explanation, ReplayMismatch, explain
from verifier.appraisal.boot.sections import name_sections
from verifier.appraisal.boot.secure_boot import read_secure_boot
from verifier.appraisal.boot.userspace import Userspace
from verifier.claims import Binding, BootFacts, EventFact
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import USERSPACE, type_name
from verifier.tcg.eventlog import ParsedEventLog

__all__ = ["BoundBoot", "ReplayMismatch", "Userspace", "bind_log"]


@dataclass(frozen=True, slots=True)
class BoundBoot:
    """A log held against quoted PCRs.

    Attributes:
        facts: what is proven; None where no quoted bank could be replayed.
        mismatches: quoted PCRs that the log's events do not lead to.
        missing_banks: quoted banks the log lacks or this build cannot hash.
        continued: how many userspace events lead on from the log to quoted values.
        unexplained: quoted PCRs whose userspace events lead to no quoted value.
    """

    facts: BootFacts | None
    mismatches: tuple[ReplayMismatch, ...]
    missing_banks: tuple[HashAlg, ...]
    continued: int = 0
    unexplained: tuple[int, ...] = ()


def bind_log(
    log_bytes: bytes,
    log: ParsedEventLog,
    pcrs: Mapping[HashAlg, Mapping[int, bytes]],
    kernel_command_line: str | None,
    userspace: Userspace | None = None,
    tolerated: Collection[tuple[Quirk, int]] = (),
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
        userspace: what systemd measured after the boot, if the guest sent its log.
        tolerated: quirks of the log, each with its PCR, in spite of which what still replays is read.
    """
    continuation = Continuation(log, len(log.events))
    if userspace is not None:
        continuation = continue_log(log, userspace.log, pcrs)
        log = continuation.log
    explanation = explain(log, pcrs, continuation.phases, tolerated)
    if not explanation.replayed_banks:
        return BoundBoot(None, explanation.mismatches, explanation.missing_banks)
    bound = bind_events(log, explanation.believed, dropped=explanation.dropped)
    set_aside_separators(bound, continuation.first)
    name_sections(bound)
    command_line = find_command_line(bound, explanation.believed, kernel_command_line)
    facts = BootFacts(
        digest=HashAlg.SHA256.digest(log_bytes),
        banks=explanation.replayed_banks,
        events=(*bound.facts, *_unproven(continuation)) if continuation.later else tuple(bound.facts),
        secure_boot=read_secure_boot(bound),
        kernel_command_line=command_line,
        startup_locality=explanation.locality if 0 in explanation.believed else None,
        unlogged_pcrs=explanation.unlogged,
        boot_phases=_phases(bound, explanation, continuation.first),
        error_separators=tuple(sorted(bound.failed)),
        quirks=tuple(
            dict.fromkeys((each.pcr, each.quirk) for each in explanation.mismatches if each.quirk is not None)
        ),
        decode=functools.cache(functools.partial(read_details, bound, userspace)),
    )
    return BoundBoot(
        facts,
        explanation.mismatches,
        explanation.missing_banks,
        continuation.continued,
        continuation.unexplained,
    )


def _phases(bound: BoundLog, explanation: Explanation, first: int) -> tuple[str, ...] | None:
    """Boot phases: systemd's own words, or all that userspace added to PCR 11 where there are others among it."""
    added = [bound.facts[position] for position in bound.positions.get(UKI_PCR, ()) if position >= first]
    if not added:
        return explanation.phases
    texts = tuple(fact.text for fact in added if fact.binding is Binding.BOUND and fact.text is not None)
    return texts if len(texts) == len(added) else None


def _unproven(continuation: Continuation) -> list[EventFact]:
    """Events of the userspace log that no quoted value proves: shown, and out of reach."""
    start = len(continuation.log.events)
    return [
        EventFact(
            index=start + number,
            pcr=event.pcr or 0,
            event_type=USERSPACE,
            type_name=type_name(USERSPACE),
            digests={},
            binding=Binding.UNBOUND,
            name=None,
            text=None,
            after_separator=False,
        )
        for number, event in enumerate(continuation.later)
    ]
