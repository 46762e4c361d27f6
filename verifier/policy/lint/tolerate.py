"""Problems of tolerated quirks: where they cannot occur, where nothing else judges, what they leave unproven."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.findings import Severity
from verifier.policy import model
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.lint.problem import Problem, ProblemId
from verifier.quirks import Certainty

_WHERE = "tolerate"


def check_tolerated(policy: model.Policy) -> Iterator[Problem]:
    """Each entry on its own, and against the rules."""
    for each in policy.tolerated:
        name = each.quirk.value
        if policy.boot_log is model.LogUse.IGNORED:
            yield Problem(
                ProblemId.LOG_IGNORED, _WHERE, f"{name} is one of the boot log, and boot_log is `ignored`"
            )
        for pcr in sorted(each.pcrs - each.quirk.entry.pcrs):
            yield Problem(ProblemId.IMPOSSIBLE_QUIRK, _WHERE, f"{name} cannot occur in PCR {pcr}")
        if each.quirk.entry.certainty is Certainty.REPAIRED:
            continue  # where it is found, the PCR's events are proven
        unjudged = [
            problem
            for pcr in sorted(each.pcrs & each.quirk.entry.pcrs)
            for problem in _unjudged(policy, name, pcr)
        ]
        yield from unjudged or _unproven(policy, each)


def _unjudged(policy: model.Policy, name: str, pcr: int) -> Iterator[Problem]:
    pinned = any(
        isinstance(rule, model.PcrRule) and rule.pcr == pcr and rule.head.severity is not Severity.INFO
        for rule in policy.rules
    )
    if not pinned and pcr not in policy.unjudged:
        yield Problem(
            ProblemId.TOLERATED_UNJUDGED,
            _WHERE,
            f"{name} leaves the events of PCR {pcr} unproven, and no `pcr` rule judges its value",
        )


def _unproven(policy: model.Policy, toleration: model.Toleration) -> Iterator[Problem]:
    """Rules that such a guest can never pass."""
    left = policy.quote.pcrs - toleration.pcrs if toleration.pcrs else frozenset()
    for rule in policy.rules:
        read = sorted(name for name in model.references(rule) if _lost(name, left))
        if isinstance(rule, (model.EventRule, model.SequenceRule)) and rule.pcr not in left:
            read = [f"the events of PCR {rule.pcr}"]
        if read:
            yield Problem(
                ProblemId.TOLERATED_UNPROVEN,
                f"rule {rule.head.id}",
                f"reads {', '.join(read)}, which no log with {toleration.quirk.value} proves",
            )


def _lost(name: str, left: frozenset[int]) -> bool:
    entry = CATALOGUE[name]
    return entry.reads_log and not (entry.provable(left) if entry.pcrs else bool(left))
