"""How proposed policies are written, whoever proposes them: learned from boots, or predicted from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from verifier.policy import document
from verifier.quirks import Quirk
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

SHIPPED_PCRS: Final = frozenset({4, 9, 11})
"""What an image build ships and an update replaces: their digests become named reference values."""
_NEEDS_LOG: Final = frozenset({"sequence", "cel"})
_CLAIMS: Final = {
    0: Claim.HARDWARE,
    2: Claim.HARDWARE,
    4: Claim.EXECUTABLES,
    9: Claim.EXECUTABLES,
    11: Claim.EXECUTABLES,
    13: Claim.EXECUTABLES,
}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyHead:
    """What a proposed policy says about itself."""

    id: str
    description: str
    bank: HashAlg
    severity: str = "contraindicated"
    validity: str = "15m"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Two YAML documents: the policy, and the reference values it names (empty when it names none)."""

    policy: str
    reference_values: str

    @property
    def source(self) -> str:
        """Both in one stream, as `parse_policy` reads them."""
        return f"{self.policy}---\n{self.reference_values}" if self.reference_values else self.policy


@dataclass(slots=True)
class PolicyWriter:
    """Collects rules and reference values, and writes them down."""

    head: PolicyHead
    _rules: list[dict[str, Any]] = field(default_factory=list)
    _unjudged: list[dict[str, Any]] = field(default_factory=list)
    _references: dict[str, dict[str, Any]] = field(default_factory=dict)
    _tolerated: list[dict[str, Any]] = field(default_factory=list)

    def secure_boot(self, *, enabled: bool = True) -> None:
        """Secure Boot must be as stated."""
        state = "enabled" if enabled else "disabled"
        message = f"Secure Boot must be {'on' if enabled else 'off'}"
        self._rule("secure-boot", Claim.CONFIGURATION, message, {"secure_boot": state})

    def command_line(self, lines: Iterable[str]) -> None:
        """The kernel's command line is one of these."""
        rule = {"command_line": {"any_of": sorted(lines)}}
        self._rule("command-line", Claim.CONFIGURATION, "the kernel was told something else", rule)

    def sequence(self, pcr: int, steps: Iterable[Mapping[str, Any]]) -> None:
        """The events of a PCR, in order; each with `label`, `any_of` (hex) and perhaps `optional`."""
        written = [self._step(pcr, number, dict(step)) for number, step in enumerate(steps)]
        self._pcr_rule(pcr, {"sequence": {"pcr": pcr, "steps": written}})

    def values(self, pcr: int, values: Iterable[str]) -> None:
        """A PCR has one of these values, hex."""
        self._pcr_rule(pcr, {"pcr": {"index": pcr, "any_of": list(values)}})

    def cel(self, rule_id: str, claim: Claim, expression: str, message: str) -> None:
        """An expression over claims is true."""
        self._rule(rule_id, claim, message, {"cel": expression})

    def unjudged(self, pcr: int, why: str) -> None:
        """A PCR that is quoted, so that the log can be held against it, and not judged."""
        for entry in self._unjudged:
            if entry["why"] == why:
                entry["pcrs"].append(pcr)
                return
        self._unjudged.append({"pcrs": [pcr], "why": why})

    def tolerate(self, quirk: Quirk, pcrs: Iterable[int], why: str) -> None:
        """A quirk of the boot log that is a warning in these PCRs."""
        self._tolerated.append({"quirk": quirk.value, "pcrs": sorted(pcrs), "why": why})

    def proposal(self, quoted: Iterable[int]) -> Proposal:
        """Both documents, quoting these PCRs."""
        head = self.head
        policy: dict[str, Any] = {
            "schema": document.POLICY_SCHEMA,
            "id": head.id,
            "description": head.description,
            "validity": head.validity,
            "quote": {"bank": head.bank.label, "pcrs": sorted(quoted)},
            "boot_log": "required" if any(_NEEDS_LOG & rule.keys() for rule in self._rules) else "optional",
            "rules": self._rules,
        }
        if self._unjudged:
            policy["unjudged"] = self._unjudged
        if self._tolerated:
            policy["tolerate"] = self._tolerated
        references = {
            "schema": document.REFERENCE_SCHEMA,
            "id": head.id,
            "description": "Digests of what the image ships; an update adds or replaces them.",
            "values": self._references,
        }
        return Proposal(dump(policy), dump(references) if self._references else "")

    def _pcr_rule(self, pcr: int, rule: dict[str, Any]) -> None:
        self._rule(f"pcr-{pcr}", _CLAIMS.get(pcr, Claim.CONFIGURATION), _MEANING.get(pcr), rule)

    def _rule(self, rule_id: str, claim: Claim, message: str | None, rule: dict[str, Any]) -> None:
        head: dict[str, Any] = {"id": rule_id, "severity": self.head.severity, "claim": claim.value}
        if message:
            head["message"] = message
        self._rules.append(head | rule)

    def _step(self, pcr: int, number: int, step: dict[str, Any]) -> dict[str, Any]:
        if pcr in SHIPPED_PCRS:
            name = f"pcr{pcr}-{number:02d}"
            self._references[name] = {"digests": step["any_of"], "note": step["label"]}
            step["any_of"] = [f"ref:{self.head.id}/{name}"]
        return step


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def dump(document_: dict[str, Any]) -> str:
    """A document of a policy source as YAML."""
    text: str = yaml.dump(document_, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
