"""Relations between rules on the events and the value of one PCR."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from verifier.policy import model
from verifier.policy.cel_logic import Verdict
from verifier.policy.lint.relation import Relation
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import extend_all, initial_value

MAX_PATHS: Final = 64
_LOCALITY_PCR: Final = 0
_PHASES_PCR: Final = 11
"""PCR 0 may start at a locality, and systemd extends PCR 11 after the log: their values say less."""
_REQUIRED: Final = frozenset({model.Occurs.ONCE, model.Occurs.AT_LEAST_ONCE})


def event_given(event: model.EventRule, sequence: model.SequenceRule) -> Verdict:
    """What an event rule comes to where the sequence of its PCR passes."""
    measured = {digest for step in sequence.steps for digest in step.accepted.digests}
    certain = [set(step.accepted.digests) for step in sequence.steps if not step.optional]
    accepted = None if event.accepted is None else set(event.accepted.digests)
    if accepted is None:
        return Verdict.DEPENDS  # a name that must not occur: digests do not tell names
    if event.occurs is model.Occurs.NEVER:
        if any(step <= accepted for step in certain):
            return Verdict.NEVER
        return Verdict.DEPENDS if measured & accepted else Verdict.ALWAYS
    if event.occurs in _REQUIRED and not measured & accepted:
        return Verdict.NEVER
    if event.name is not None:
        optional = event.occurs is model.Occurs.OPTIONAL
        return Verdict.ALWAYS if optional and measured <= accepted else Verdict.DEPENDS
    return _unnamed(event, sequence, accepted)


def _unnamed(event: model.EventRule, sequence: model.SequenceRule, accepted: set[bytes]) -> Verdict:
    touching = [step for step in sequence.steps if accepted & set(step.accepted.digests)]
    sure = [step for step in touching if not step.optional and set(step.accepted.digests) <= accepted]
    if event.occurs is model.Occurs.AT_LEAST_ONCE:
        return Verdict.ALWAYS if sure else Verdict.DEPENDS
    if len(sure) > 1:
        return Verdict.NEVER
    return Verdict.ALWAYS if sure and len(touching) == 1 else Verdict.DEPENDS


def pcr_given(rule: model.PcrRule, sequence: model.SequenceRule, bank: HashAlg) -> Verdict:
    """What a golden PCR value comes to where the sequence of that PCR passes, which determines the value."""
    paths = _paths(sequence)
    if paths is None or rule.pcr in (_LOCALITY_PCR, _PHASES_PCR):
        return Verdict.DEPENDS
    start = initial_value(rule.pcr, bank)
    values = {extend_all(start, list(path), bank) for path in paths}
    if values <= set(rule.accepted.digests):
        return Verdict.ALWAYS
    return Verdict.DEPENDS if values & set(rule.accepted.digests) else Verdict.NEVER


def compare_sequences(first: model.SequenceRule, second: model.SequenceRule) -> Relation:
    """Two sequences of one PCR, where both have few ways to pass."""
    left, right = _paths(first), _paths(second)
    return Relation.NONE if left is None or right is None else Relation.of_sets(left, right)


def compare_events(first: model.EventRule, second: model.EventRule) -> Relation:
    """Two event rules of one PCR."""
    if _excludes(first, second) or _excludes(second, first) or _disjoint(first, second):
        return Relation.EXCLUSIVE
    return Relation.of_implications(
        first_second=_implies(first, second), second_first=_implies(second, first)
    )


def _excludes(never: model.EventRule, wanted: model.EventRule) -> bool:
    """One forbids whatever the other demands."""
    if never.occurs is not model.Occurs.NEVER or wanted.occurs not in _REQUIRED or wanted.accepted is None:
        return False
    if never.accepted is None:
        return never.name == wanted.name
    return set(wanted.accepted.digests) <= set(never.accepted.digests)


def _disjoint(first: model.EventRule, second: model.EventRule) -> bool:
    """Both want other digests of the events of one name, and one of them wants such an event to be there."""
    if first.name is None or first.name != second.name or first.accepted is None or second.accepted is None:
        return False
    wanted = {first.occurs, second.occurs}
    if model.Occurs.NEVER in wanted or not wanted & _REQUIRED:
        return False
    return not set(first.accepted.digests) & set(second.accepted.digests)


def _implies(strict: model.EventRule, lax: model.EventRule) -> bool:
    if strict.accepted is None or lax.accepted is None:
        return False
    narrow, wide = set(strict.accepted.digests), set(lax.accepted.digests)
    if strict.occurs is model.Occurs.NEVER or lax.occurs is model.Occurs.NEVER:
        return strict.occurs is lax.occurs and wide <= narrow
    if lax.name is None:
        # One of these events under any name; `once` counts, so more digests may be one too many.
        return lax.occurs is model.Occurs.AT_LEAST_ONCE and strict.occurs in _REQUIRED and narrow <= wide
    weaker = {
        model.Occurs.ONCE: {model.Occurs.ONCE, model.Occurs.AT_LEAST_ONCE, model.Occurs.OPTIONAL},
        model.Occurs.AT_LEAST_ONCE: {model.Occurs.AT_LEAST_ONCE, model.Occurs.OPTIONAL},
        model.Occurs.OPTIONAL: {model.Occurs.OPTIONAL},
    }[strict.occurs]
    return strict.name == lax.name and lax.occurs in weaker and narrow <= wide


def _paths(sequence: model.SequenceRule) -> set[tuple[bytes, ...]] | None:
    """Every list of digests the sequence accepts; None where there are too many."""
    count = 1
    for step in sequence.steps:
        count *= len(step.accepted.digests) + step.optional
        if count > MAX_PATHS:
            return None
    return set(_walk(sequence))


def _walk(sequence: model.SequenceRule) -> Iterator[tuple[bytes, ...]]:
    choices: list[list[bytes | None]] = [
        [*step.accepted.digests, *([None] if step.optional else [])] for step in sequence.steps
    ]
    for chosen in product(*choices):
        yield tuple(digest for digest in chosen if digest is not None)
