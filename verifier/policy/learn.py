"""Propose a policy from good boots: what they share becomes golden, what differs becomes alternatives.

Nothing here says that the boots *were* good; whoever learns vouches for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from verifier.claims import EventFact, ProvenClaims
from verifier.errors import PolicyError
from verifier.policy import document
from verifier.policy.align import align
from verifier.policy.model import Accepted, Step
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

IMA_PCR: Final = 10
_SHIPPED_PCRS: Final = frozenset({4, 9, 11})
"""What an image build ships and an update replaces: their digests become named reference values."""
_CLAIMS: Final = {
    0: Claim.HARDWARE,
    2: Claim.HARDWARE,
    4: Claim.EXECUTABLES,
    9: Claim.EXECUTABLES,
    11: Claim.EXECUTABLES,
    13: Claim.EXECUTABLES,
}
_WHY_IMA: Final = "the kernel's integrity measurements extend this PCR while the guest runs"
_WHY_UNLOGGED: Final = "the boot log does not explain this PCR"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOptions:
    """How to write the proposal."""

    id: str
    description: str
    bank: HashAlg
    severity: str = "contraindicated"
    validity: str = "15m"


@dataclass(slots=True)
class _Place:
    """One step while several boots are being merged."""

    label: str
    digests: dict[bytes, None]
    boots: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """Two YAML documents: the policy, and the reference values it names (empty when it names none)."""

    policy: str
    reference_values: str

    @property
    def source(self) -> str:
        """Both in one stream, as `parse_policy` reads them."""
        return f"{self.policy}---\n{self.reference_values}" if self.reference_values else self.policy


def learn(boots: Mapping[str, ProvenClaims], options: LearnOptions) -> Proposal:
    """A policy under which every boot given is affirming.

    Raises `PolicyError` when the boots cannot share a policy (a bank that was not quoted, no PCR in common).
    """
    if not boots:
        raise PolicyError("there is no evidence to learn from")
    return _Learner(boots, options).proposal()


class _Learner:
    def __init__(self, boots: Mapping[str, ProvenClaims], options: LearnOptions) -> None:
        self._boots = boots
        self._options = options
        self._references: dict[str, dict[str, Any]] = {}
        for name, claims in boots.items():
            if options.bank not in claims.quote.pcrs:
                raise PolicyError(f"{name} has no quoted {options.bank.label} PCRs")
        shared = set.intersection(*(set(c.quote.pcrs[options.bank]) for c in boots.values()))
        if not shared:
            raise PolicyError("these boots have no quoted PCR in common")
        self._pcrs = sorted(shared)

    def proposal(self) -> Proposal:
        unjudged: list[dict[str, Any]] = []
        rules = [*self._secure_boot(), *self._command_line()]
        for pcr in self._pcrs:
            rule, why = self._pcr(pcr)
            if rule is not None:
                rules.append(rule)
            else:
                unjudged.append({"pcrs": [pcr], "why": why})
        policy: dict[str, Any] = {
            "schema": document.POLICY_SCHEMA,
            "id": self._options.id,
            "description": self._options.description,
            "validity": self._options.validity,
            "quote": {"bank": self._options.bank.label, "pcrs": self._pcrs},
            "boot_log": "required" if any("sequence" in rule for rule in rules) else "optional",
            "rules": rules,
        }
        if unjudged:
            policy["unjudged"] = unjudged
        references = {
            "schema": document.REFERENCE_SCHEMA,
            "id": self._options.id,
            "description": "Digests of what the image ships; an update adds or replaces them.",
            "values": self._references,
        }
        return Proposal(_dump(policy), _dump(references) if self._references else "")

    def _secure_boot(self) -> list[dict[str, Any]]:
        states = {claims.boot.secure_boot.enabled if claims.boot else None for claims in self._boots.values()}
        if states != {True}:
            return []
        return [
            self._head("secure-boot", Claim.CONFIGURATION, "Secure Boot must be on")
            | {"secure_boot": "enabled"}
        ]

    def _command_line(self) -> list[dict[str, Any]]:
        lines = {claims.boot.kernel_command_line if claims.boot else None for claims in self._boots.values()}
        known = sorted(line for line in lines if line is not None)
        if len(known) != len(lines):
            return []
        head = self._head("command-line", Claim.CONFIGURATION, "the kernel was told something else")
        return [head | {"command_line": {"any_of": known}}]

    def _pcr(self, pcr: int) -> tuple[dict[str, Any] | None, str]:
        if pcr == IMA_PCR:
            return None, _WHY_IMA
        values = {claims.quote.pcrs[self._options.bank][pcr]: None for claims in self._boots.values()}
        sequences = [self._events(claims, pcr) for claims in self._boots.values()]
        head = self._head(f"pcr-{pcr}", _CLAIMS.get(pcr, Claim.CONFIGURATION), _MEANING.get(pcr))
        if all(sequence for sequence in sequences):
            return head | {
                "sequence": {"pcr": pcr, "steps": self._steps(pcr, [s for s in sequences if s])}
            }, ""
        untouched = {bytes(self._options.bank.size)}
        if set(values) == untouched or all(sequence is not None for sequence in sequences):
            return head | {"pcr": {"index": pcr, "any_of": [value.hex() for value in values]}}, ""
        return None, _WHY_UNLOGGED

    def _events(self, claims: ProvenClaims, pcr: int) -> list[EventFact] | None:
        """Measured events of a PCR; empty when none; None when the log does not explain the PCR."""
        boot = claims.boot
        if boot is None or self._options.bank not in boot.banks or pcr in boot.unlogged_pcrs:
            return None
        return [event for event in boot.events if event.pcr == pcr and self._options.bank in event.digests]

    def _steps(self, pcr: int, sequences: Sequence[Sequence[EventFact]]) -> list[dict[str, Any]]:
        places = [
            _Place(_label(event), {event.digests[self._options.bank]: None}, 1) for event in sequences[0]
        ]
        for sequence in sequences[1:]:
            places = self._merge(places, sequence)
        return [self._step(pcr, number, place, len(sequences)) for number, place in enumerate(places)]

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

    def _step(self, pcr: int, number: int, place: _Place, boots: int) -> dict[str, Any]:
        step: dict[str, Any] = {"label": place.label}
        digests = [digest.hex() for digest in place.digests]
        if pcr in _SHIPPED_PCRS:
            name = f"pcr{pcr}-{number:02d}"
            self._references[name] = {"digests": digests, "note": place.label}
            step["any_of"] = [f"ref:{self._options.id}/{name}"]
        else:
            step["any_of"] = digests
        if place.boots < boots:
            step["optional"] = True
        return step

    def _head(self, rule_id: str, claim: Claim, message: str | None) -> dict[str, Any]:
        head: dict[str, Any] = {"id": rule_id, "severity": self._options.severity, "claim": claim.value}
        if message:
            head["message"] = message
        return head


_MEANING: Final = {
    0: "the firmware is another one",
    1: "the firmware's configuration changed",
    2: "option ROMs or firmware drivers changed",
    3: "their configuration changed",
    4: "another boot loader or kernel ran",
    5: "the boot manager's configuration or the partition table changed",
    6: "the host platform's measurements changed",
    7: "the Secure Boot policy or the keys it trusts changed",
    8: "the boot loader was told something else",
    9: "the boot loader read other files",
    11: "the unified kernel image is another one",
    12: "the command line was overridden or credentials were added",
    13: "system extensions were added",
    14: "the machine owner keys changed",
    15: "the machine's own measurements changed",
}


def _label(event: EventFact) -> str:
    """What a person calls this event: its proven name and text, or its type where neither is proven."""
    text = _short(event.text)
    if event.name:
        return f"{event.name}: {text}" if text else event.name
    return f"{event.type_name} {text}" if text else event.type_name


def _short(text: str | None) -> str:
    if text is None:
        return ""
    line = " ".join(text.split())
    limit = 80
    return line if len(line) <= limit else line[: limit - 1] + "…"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _dump(document_: dict[str, Any]) -> str:
    text: str = yaml.dump(document_, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
