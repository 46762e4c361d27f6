"""What is wrong with a policy that parses: rules that decide nothing, cannot be met, or read what nobody proves."""

from __future__ import annotations

from verifier.policy.lint.coverage import check_coverage
from verifier.policy.lint.overlap import check_overlap
from verifier.policy.lint.problem import Level, Problem, ProblemId
from verifier.policy.lint.runtime import check_runtime
from verifier.policy.lint.single import check_rules
from verifier.policy.lint.tolerate import check_tolerated
from verifier.policy.model import Policy

__all__ = ["Level", "Problem", "ProblemId", "lint"]


def lint(policy: Policy) -> tuple[Problem, ...]:
    """Every problem, errors first, each with its id, its place and what to do about it.

    An error is reported only where it is certain. That nothing is reported proves no rule right: whether a rule
    asks for the right thing is for people.
    """
    problems = [
        *check_coverage(policy),
        *check_rules(policy),
        *check_overlap(policy),
        *check_tolerated(policy),
        *check_runtime(policy),
    ]
    return tuple(sorted(problems, key=lambda problem: problem.level is not Level.ERROR))
