"""Problems of the `runtime` part: what lets more through than anyone means."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from verifier.policy.lint.problem import Problem, ProblemId
from verifier.policy.model import Policy
from verifier.policy.runtime.breadth import Breadth, breadth
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import Handling
from verifier.policy.runtime.section import RuntimeSection


def check_runtime(policy: Policy) -> Iterator[Problem]:
    """Excludes that leave nothing to judge, and handling that holds nothing against anyone."""
    section = policy.runtime
    if section is None:
        return
    yield from _excludes(section)
    options = section.options
    if options.unknown_path is Handling.ALLOW:
        yield Problem(ProblemId.UNKNOWN_ALLOWED, "runtime.unknown_files", "a file that no set has passes")
    if options.unknown_module is not Handling.DENY:
        yield Problem(
            ProblemId.UNKNOWN_ALLOWED,
            "runtime.unknown_modules",
            "a kernel module that no set has is not denied",
        )


def _excludes(section: RuntimeSection) -> Iterator[Problem]:
    together, example = breadth(Patterns(chain.from_iterable(each.paths.texts for each in section.excludes)))
    alone = False
    for number, each in enumerate(section.excludes):
        where, (found, name) = f"runtime.excludes[{number}]", breadth(each.paths)
        if found is Breadth.EVERYTHING:
            alone = True
            yield Problem(ProblemId.EXCLUDES_EVERYTHING, where, f"{name} is excluded, as any name is")
        elif found is Breadth.PROGRAMS and together is not Breadth.EVERYTHING:
            yield Problem(ProblemId.EXCLUDES_PROGRAMS, where, f"{name} is excluded")
    if together is Breadth.EVERYTHING and not alone:
        yield Problem(
            ProblemId.EXCLUDES_EVERYTHING,
            "runtime.excludes",
            f"{example} is excluded, as any name is, by all of them together",
        )
