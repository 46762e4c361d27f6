"""A verdict held against what is expected of it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

Verdict = dict[str, Any]
"""As the verifier answers it, and the attester's `lifecycle`."""
_EVENT = re.compile(r"\(EV_\w+ (.*)\)$")


@dataclass(frozen=True)
class Expected:
    """A verdict: its tier, and every finding that is not passed and more than informative."""

    tier: str
    findings: tuple[str, ...] = ()
    lifecycle: str = "enrolled"


def findings(verdict: Verdict) -> tuple[str, ...]:
    """Each as `code`, `code RULE`, `code RULE: EVENT` or, of IMA, `code PATH`; sorted."""
    named = []
    for finding in verdict["findings"]:
        if finding["status"] == "passed" or finding["severity"] == "info":
            continue
        words = [finding["code"], finding.get("rule", "")]
        if finding["code"].startswith("ima-"):
            words.append(next((word for word in finding["message"].split() if word.startswith("/")), ""))
        name = " ".join(filter(None, words))
        event = _EVENT.search(finding.get("expected", "")) if finding["code"].startswith("event-") else None
        named.append(f"{name}: {event[1]}" if event else name)
    return tuple(sorted(named))


def differences(expected: Expected, verdict: Verdict) -> list[str]:
    """What is wrong with a verdict, in words; one finding more is as wrong as one less."""
    found, wanted = Counter(findings(verdict)), Counter(expected.findings)
    wrong = [f"not found: {name}" for name in sorted((wanted - found).elements())]
    wrong += [f"not expected: {name}" for name in sorted((found - wanted).elements())]
    if verdict["status"] != expected.tier:
        wrong.append(f"{verdict['status']} instead of {expected.tier}")
    if verdict["lifecycle"] != expected.lifecycle:
        wrong.append(f"{verdict['lifecycle']} instead of {expected.lifecycle}")
    return wrong
