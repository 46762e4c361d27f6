"""Problems between two rules: the same thing twice, one that follows from another, two that exclude each other.

A rule that follows from another one is reported only where that other one is at least as grave and speaks for the
same AR4SI claim: else it can still change a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from typing import Final

from verifier.findings import Severity
from verifier.policy import model
from verifier.policy.cel_logic import Verdict
from verifier.policy.lint.events import compare_events, compare_sequences, event_given, pcr_given
from verifier.policy.lint.expressions import compare_expressions, expression_of
from verifier.policy.lint.problem import Problem, ProblemId
from verifier.policy.lint.relation import Relation
from verifier.tcg.algorithms import HashAlg

MAX_PAIRS: Final = 20_000
_OnPcr = model.SequenceRule | model.EventRule | model.PcrRule
_GRAVITY: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CONTRAINDICATED: 2}


def check_overlap(policy: model.Policy) -> Iterator[Problem]:
    """Problems of every pair of rules that read the same thing, as far as `MAX_PAIRS` go."""
    bank = policy.quote.bank
    expressions = {rule.head.id: expression_of(rule) for rule in policy.rules}
    for first, second in islice(combinations(policy.rules, 2), MAX_PAIRS):
        if _same_question(first, second):
            if first.head.claim is second.head.claim:
                where = f"rule {second.head.id}"
                yield Problem(ProblemId.DUPLICATE_RULE, where, f"asks the same as rule {first.head.id}")
            continue
        left, right = expressions[first.head.id], expressions[second.head.id]
        if left is not None and right is not None:
            relation = compare_expressions(left, right)
        else:
            relation = _relate(first, second, bank)
        yield from _report(first, second, relation)


def _relate(first: model.Rule, second: model.Rule, bank: HashAlg) -> Relation:
    if isinstance(first, model.RevocationsRule) and isinstance(second, model.RevocationsRule):
        return Relation.of_implications(
            first_second=_requires_all_of(first, second), second_first=_requires_all_of(second, first)
        )
    if isinstance(first, _OnPcr) and isinstance(second, _OnPcr) and first.pcr == second.pcr:
        if isinstance(second, model.SequenceRule):
            return _on_pcr(second, first, bank).swapped
        return _on_pcr(first, second, bank)
    return Relation.NONE


def _requires_all_of(strict: model.RevocationsRule, lax: model.RevocationsRule) -> bool:
    return lax.required.digests.keys() <= strict.required.digests.keys() and all(
        strict.sbat.get(component, 0) >= least for component, least in lax.sbat.items()
    )


def _on_pcr(first: _OnPcr, second: _OnPcr, bank: HashAlg) -> Relation:
    match first, second:
        case model.SequenceRule(), model.EventRule():
            return _given(event_given(second, first))
        case model.SequenceRule(), model.PcrRule():
            return _given(pcr_given(second, first, bank))
        case model.SequenceRule(), model.SequenceRule():
            return compare_sequences(first, second)
        case model.EventRule(), model.EventRule():
            return compare_events(first, second)
        case model.PcrRule(), model.PcrRule():
            return Relation.of_sets(set(first.accepted.digests), set(second.accepted.digests))
    return Relation.NONE  # a golden value says nothing of one event


def _given(verdict: Verdict) -> Relation:
    return {
        Verdict.ALWAYS: Relation.FIRST_IMPLIES_SECOND,
        Verdict.NEVER: Relation.EXCLUSIVE,
        Verdict.DEPENDS: Relation.NONE,
    }[verdict]


def _same_question(first: model.Rule, second: model.Rule) -> bool:
    return type(first) is type(second) and replace(first, head=second.head) == second


def _report(first: model.Rule, second: model.Rule, relation: Relation) -> Iterator[Problem]:
    if relation is Relation.EXCLUSIVE:
        if Severity.INFO not in (first.head.severity, second.head.severity):
            message = f"no boot passes both this and rule {first.head.id}"
            yield Problem(ProblemId.CONTRADICTION, f"rule {second.head.id}", message)
    elif relation in (Relation.FIRST_IMPLIES_SECOND, Relation.EQUIVALENT):
        yield from _implied(first, second)
    elif relation is Relation.SECOND_IMPLIES_FIRST:
        yield from _implied(second, first)


def _implied(strict: model.Rule, lax: model.Rule) -> Iterator[Problem]:
    graver = _GRAVITY[lax.head.severity] > _GRAVITY[strict.head.severity]
    if not graver and strict.head.claim is lax.head.claim:
        message = f"passes wherever rule {strict.head.id} passes, and is no graver"
        yield Problem(ProblemId.IMPLIED_RULE, f"rule {lax.head.id}", message)
