"""Propose a policy from good boots: what they share becomes golden, what differs becomes alternatives.

`events` (the default) writes down every event of every PCR: nothing may change. `claims` writes down what the events
say (which certificates, which images, which levels): whatever says the same passes, and an update of firmware or of
a disk's layout breaks nothing.

Nothing here says that the boots *were* good; whoever learns vouches for that.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from verifier.claims import Binding, EventFact, ProvenClaims
from verifier.errors import PolicyError
from verifier.policy.align import align
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.learn_facts import Fact, constant_facts
from verifier.policy.model import Accepted, Step
from verifier.policy.writing import PolicyHead, PolicyWriter, Proposal
from verifier.quirks import Quirk
from verifier.tcg.userspace_text import (
    FILE_SYSTEM,
    IDENTITY_PCR,
    MACHINE_ID,
    NVPCR_INIT,
    NVPCR_PCR,
    nvpcr_start,
)

IMA_PCR: Final = 10
_IDENTITIES: Final = frozenset({MACHINE_ID, FILE_SYSTEM})
_WHY_IMA: Final = "the kernel's integrity measurements extend this PCR while the guest runs"
_WHY_UNLOGGED: Final = "the boot log does not explain this PCR"
_WHY_CLAIMS: Final = "judged by what its events say, not by which events there are"
_WHY_NO_CLAIM: Final = "no claim of this policy comes from this PCR: whatever was measured into it passes"
_WHY_MACHINE: Final = (
    "it names the machine (machine id, disks, volume keys), which differs in each: see `boot.machine_id`"
)
_WHY_ANCHORED: Final = (
    "systemd 259 to 261 start NvPCRs from a secret of the machine, so this PCR differs in each"
)
_COMMAND_LINE_PCRS: Final = CATALOGUE["boot.kernel_command_line"].pcrs


LearnOptions = PolicyHead
"""How to write the proposal."""


class Style(enum.StrEnum):
    """What a proposal is made of."""

    EVENTS = "events"
    CLAIMS = "claims"


@dataclass(slots=True)
class _Place:
    """One step while several boots are being merged."""

    label: str
    digests: dict[bytes, None]
    boots: int


def learn(boots: Mapping[str, ProvenClaims], options: LearnOptions, style: Style = Style.EVENTS) -> Proposal:
    """A policy under which every boot given is affirming, or a warning where its log has a known quirk.

    Such a quirk is proposed as tolerated, with the PCR's value pinned; whoever learns decides whether to keep it.

    Raises `PolicyError` when the boots cannot share a policy (a bank that was not quoted, no PCR in common, no claim
    in common to learn from).
    """
    if not boots:
        raise PolicyError("there is no evidence to learn from")
    learner = _Learner(boots, options)
    return learner.by_claims() if style is Style.CLAIMS else learner.by_events()


class _Learner:
    def __init__(self, boots: Mapping[str, ProvenClaims], options: LearnOptions) -> None:
        self._boots = boots
        self._options = options
        self._writer = PolicyWriter(options)
        for name, claims in boots.items():
            if options.bank not in claims.quote.pcrs:
                raise PolicyError(f"{name} has no quoted {options.bank.label} PCRs")
        shared = set.intersection(*(set(c.quote.pcrs[options.bank]) for c in boots.values()))
        if not shared:
            raise PolicyError("these boots have no quoted PCR in common")
        self._pcrs = sorted(shared)
        self._quirks = self._tolerated()

    def by_events(self) -> Proposal:
        """A sequence for each PCR; and of those whose events vary, what they have to say all the same."""
        self._secure_boot()
        self._command_line()
        varying = {pcr for pcr in self._pcrs if self._pcr(pcr) and len(self._values(pcr)) > 1}
        for fact in self._facts():
            if fact.pcrs and fact.pcrs <= varying and not fact.exact:
                self._writer.cel(fact.id, fact.claim, fact.expression, fact.message)
        return self._writer.proposal(self._pcrs)

    def by_claims(self) -> Proposal:
        """What events say, and not which events there are."""
        judged = {7} if self._secure_boot() else set()
        judged |= set(_COMMAND_LINE_PCRS) if self._command_line() else set()
        facts = list(self._facts())
        if not (judged or facts):
            raise PolicyError("these boots prove no claim in common; learn events instead")
        for fact in facts:
            self._writer.cel(fact.id, fact.claim, fact.expression, fact.message)
            judged |= fact.pcrs
        for pcr in self._pcrs:
            if self._pinned(pcr):
                continue
            why = _WHY_CLAIMS if pcr in judged else _WHY_NO_CLAIM
            self._writer.unjudged(pcr, _WHY_IMA if pcr == IMA_PCR else why)
        return self._writer.proposal(self._pcrs)

    def _tolerated(self) -> frozenset[int]:
        """Propose to tolerate what these boots' logs have; the PCRs of it."""
        found: dict[Quirk, dict[int, int]] = {}
        for claims in self._boots.values():
            for pcr, quirk in claims.boot.quirks if claims.boot else ():
                if pcr in self._pcrs:
                    found.setdefault(quirk, {}).setdefault(pcr, 0)
                    found[quirk][pcr] += 1
        for quirk, pcrs in found.items():
            many = max(pcrs.values())
            why = (
                f"{quirk.entry.title}: so in {many} of the {len(self._boots)} boots this was learned from. The value is pinned"
                " by a pcr rule. See docs/quirks.md, and say here why it is acceptable"
            )
            self._writer.tolerate(quirk, pcrs, why)
        return frozenset(pcr for pcrs in found.values() for pcr in pcrs)

    def _pinned(self, pcr: int) -> bool:
        """Judge a PCR whose log has a quirk by its value, since nothing else may be proven of it."""
        if pcr in self._quirks:
            self._writer.values(pcr, [value.hex() for value in self._values(pcr)])
        return pcr in self._quirks

    def _facts(self) -> Iterator[Fact]:
        return constant_facts(list(self._boots.values()), self._options.bank)

    def _values(self, pcr: int) -> dict[bytes, None]:
        """Every value of a PCR, in the order of the boots."""
        return {claims.quote.pcrs[self._options.bank][pcr]: None for claims in self._boots.values()}

    def _secure_boot(self) -> bool:
        states = {claims.boot.secure_boot.enabled if claims.boot else None for claims in self._boots.values()}
        if states == {True}:
            self._writer.secure_boot()
        return states == {True}

    def _command_line(self) -> bool:
        lines = {claims.boot.kernel_command_line if claims.boot else None for claims in self._boots.values()}
        known = {line for line in lines if line is not None}
        if known == lines:
            self._writer.command_line(known)
        return known == lines

    def _pcr(self, pcr: int) -> bool:
        """Write down a PCR; False where it is left unjudged."""
        if pcr == IMA_PCR:
            self._writer.unjudged(pcr, _WHY_IMA)
            return False
        if self._pinned(pcr):
            return True
        values = self._values(pcr)
        sequences = [self._events(claims, pcr) for claims in self._boots.values()]
        own = next((why for events in sequences if events and (why := _of_one_machine(pcr, events))), None)
        if own is not None:
            self._writer.unjudged(pcr, own)
            return False
        if all(sequence for sequence in sequences):
            self._writer.sequence(pcr, self._steps([sequence for sequence in sequences if sequence]))
        elif set(values) == {bytes(self._options.bank.size)} or None not in sequences:
            self._writer.values(pcr, [value.hex() for value in values])
        else:
            self._writer.unjudged(pcr, _WHY_UNLOGGED)
            return False
        return True

    def _events(self, claims: ProvenClaims, pcr: int) -> list[EventFact] | None:
        """Measured events of a PCR; empty when none; None when the log does not explain the PCR."""
        boot = claims.boot
        if boot is None or self._options.bank not in boot.banks or pcr in boot.unlogged_pcrs:
            return None
        return [event for event in boot.events if event.pcr == pcr and self._options.bank in event.digests]

    def _steps(self, sequences: Sequence[Sequence[EventFact]]) -> list[dict[str, Any]]:
        places = [
            _Place(_label(event), {event.digests[self._options.bank]: None}, 1) for event in sequences[0]
        ]
        for sequence in sequences[1:]:
            places = self._merge(places, sequence)
        return [_step(place, len(sequences)) for place in places]

    def _merge(self, places: list[_Place], sequence: Sequence[EventFact]) -> list[_Place]:
        steps = [
            Step(label=p.label, accepted=Accepted(digests=dict.fromkeys(p.digests, "")), optional=False)
            for p in places
        ]
        merged: list[_Place] = []
        for step_index, event_index in align(
            steps, [event.digests[self._options.bank] for event in sequence]
        ):
            place = places[step_index] if step_index is not None else None
            event = sequence[event_index] if event_index is not None else None
            if place is None and event is not None:
                place = _Place(_label(event), {}, 0)
            if place is None:
                raise AssertionError("an alignment pair names a step or an event")
            if event is not None:
                place.digests[event.digests[self._options.bank]] = None
                place.boots += 1
            merged.append(place)
        return merged


def _of_one_machine(pcr: int, events: Sequence[EventFact]) -> str | None:
    """Why these events are another machine's in the next machine; None where they are the image's."""
    if pcr == IDENTITY_PCR and any(e.name in _IDENTITIES or e.binding is Binding.UNBOUND for e in events):
        return _WHY_MACHINE
    starts = (nvpcr_start(event.text or "") for event in events if event.name == NVPCR_INIT)
    anchored = any(start is not None and start.index_name is None for start in starts)
    return _WHY_ANCHORED if pcr == NVPCR_PCR and anchored else None


def _step(place: _Place, boots: int) -> dict[str, Any]:
    step: dict[str, Any] = {"label": place.label, "any_of": [digest.hex() for digest in place.digests]}
    if place.boots < boots:
        step["optional"] = True
    return step


def _label(event: EventFact) -> str:
    """What a person calls this event: its proven name and text, or its type where neither is proven."""
    text = _short(event.text)
    if event.name:
        return text if text.startswith(event.name) else f"{event.name}: {text}" if text else event.name
    return f"{event.type_name} {text}" if text else event.type_name


def _short(text: str | None) -> str:
    if text is None:
        return ""
    line = " ".join(text.split())
    limit = 80
    return line if len(line) <= limit else line[: limit - 1] + "…"
