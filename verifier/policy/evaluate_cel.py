"""Judge CEL rules: no claim unproven, no fault taken for an answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from verifier.findings import Finding, Status
from verifier.policy.catalogue import CATALOGUE, Value, View
from verifier.policy.cel import Outcome, run, unfit
from verifier.policy.model import CelRule
from verifier.policy.rule_finding import rule_finding
from verifier.reasons import Reason

_MAX_VALUE: Final = 256
_MAX_ACTUAL: Final = 1024
_MAX_ITEMS: Final = 8


class CelJudge:
    """One view of proven claims; each claim is read off it once, when the first rule asks for it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, Value | None] = {}

    def finding(self, rule: CelRule) -> Finding:
        """What the rule concludes; NOT_EVALUATED where a claim is unproven or the expression fails."""
        names = rule.program.references
        values = {name: self._read(name) for name in names}
        unproven = [name for name in names if values[name] is None]
        if unproven:
            message = f"{', '.join(unproven)} {'is' if len(unproven) == 1 else 'are'} not proven"
            return rule_finding(
                rule.head, Reason.CLAIM_UNPROVEN, Status.NOT_EVALUATED, message, pcr=_pcr(unproven)
            )
        proven = {name: value for name, value in values.items() if value is not None}
        outcome, problem = self._run(rule, proven)
        if outcome is Outcome.HOLDS:
            message = "the expression holds"
            return rule_finding(rule.head, Reason.RULE_HOLDS, Status.PASSED, message, pcr=_pcr(names))
        return self._wrong(rule, outcome, problem, proven)

    def _wrong(self, rule: CelRule, outcome: Outcome, problem: str, values: Mapping[str, Value]) -> Finding:
        faulty = outcome is Outcome.FAULTY
        return rule_finding(
            rule.head,
            Reason.RULE_FAULTY if faulty else Reason.RULE_BROKEN,
            Status.NOT_EVALUATED if faulty else Status.FAILED,
            f"the expression cannot be computed: {problem}" if faulty else "the expression does not hold",
            pcr=_pcr(values),
            expected=_clipped(" ".join(rule.program.text.split()), _MAX_ACTUAL),
            actual=_shown(values),
        )

    def _read(self, name: str) -> Value | None:
        if name not in self._known:
            self._known[name] = CATALOGUE[name].read(self._view)
        return self._known[name]

    def _run(self, rule: CelRule, values: Mapping[str, Value]) -> tuple[Outcome, str]:
        for name, value in values.items():
            if unfit(value):
                return Outcome.FAULTY, f"{name} has a NUL or a lone surrogate in it"
        return run(rule.program, values)


def _pcr(names: Iterable[str]) -> int | None:
    """The PCR to look at, where all these claims come from the same one."""
    pcrs = {pcr for name in names for pcr in CATALOGUE[name].pcrs or (None,)}
    return pcrs.pop() if len(pcrs) == 1 else None


def _shown(values: Mapping[str, Value]) -> str:
    parts = [f"{name} = {_clipped(_text(value), _MAX_VALUE)}" for name, value in values.items()]
    return _clipped("; ".join(parts), _MAX_ACTUAL)


def _text(value: Value) -> str:
    """As CEL would write it; of long lists and maps the beginning."""
    if isinstance(value, Mapping):
        shown = [f"{_text(key)}: {_text(item)}" for key, item in list(value.items())[:_MAX_ITEMS]]
        return "{" + ", ".join([*shown, *_more(len(value))]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([*(_text(item) for item in value[:_MAX_ITEMS]), *_more(len(value))]) + "]"
    return json.dumps(value, ensure_ascii=False)


def _more(count: int) -> tuple[str, ...]:
    return (f"{count - _MAX_ITEMS} more",) if count > _MAX_ITEMS else ()


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
