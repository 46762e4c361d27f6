"""Whether an expression can come out both ways: tautologies, contradictions, and parts that decide nothing.

Every comparison of a term with literals is tried at every point where its outcome can change; everything else that
is true or false is taken to be either, whatever the rest is. That covers every case that can occur (and some that
cannot), so ALWAYS and NEVER are certain, and DEPENDS is not. Faults, such as a missing key, are neither: an
expression that is ALWAYS true can still fail to be computed, but it cannot be false.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from verifier.policy.catalogue import CATALOGUE, Kind
from verifier.policy.cel_text import code
from verifier.policy.cel_tree import Call, Const, Ident, ListOf, Loop, Node, walk

MAX_CASES: Final = 4096
_INT: Final = (-(2**63), 2**63 - 1)
_UINT: Final = (0, 2**64 - 1)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}
_MIRRORED: Final = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}
_LOGIC: Final = frozenset({"_&&_", "_||_", "!_", "_?_:_", "@in", *_COMPARE})
_TESTS: Final = frozenset({"matches", "contains", "startsWith", "endsWith"})

Case = Sequence[object]
"""A value for every variable, in their order."""
Formula = Callable[[Case], bool]


class Verdict(enum.Enum):
    """What an expression can be."""

    ALWAYS = enum.auto()
    NEVER = enum.auto()
    DEPENDS = enum.auto()


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is certain of an expression.

    Attributes:
        idle: parts (terms or conditions) whose value never changes the outcome, as code; only where it DEPENDS.
    """

    verdict: Verdict
    idle: tuple[str, ...] = ()


def analyse(tree: Node, max_cases: int = MAX_CASES) -> Analysis:
    """Try every case; DEPENDS where there are more than `max_cases`."""
    cases = _Cases()
    formula = cases.formula(tree)
    domains = cases.domains()
    count = 1
    for domain in domains:
        count *= len(domain)
        if count > max_cases:
            return Analysis(Verdict.DEPENDS)
    outcomes = {case: formula(case) for case in product(*domains)}
    if all(outcomes.values()):
        return Analysis(Verdict.ALWAYS)
    if not any(outcomes.values()):
        return Analysis(Verdict.NEVER)
    idle = [name for place, name in enumerate(cases.names()) if _is_idle(place, outcomes)]
    return Analysis(Verdict.DEPENDS, tuple(idle))


def _is_idle(place: int, outcomes: dict[tuple[object, ...], bool]) -> bool:
    seen: dict[tuple[object, ...], bool] = {}
    return all(
        seen.setdefault(case[:place] + case[place + 1 :], outcome) == outcome
        for case, outcome in outcomes.items()
    )


class _Cases:
    """The variables of an expression, each with the values at which something can change."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._literals: list[set[object]] = []
        self._kinds: list[str] = []
        self._names: list[str] = []

    def domains(self) -> list[Sequence[object]]:
        """Values to try, per variable."""
        return [_samples(kind, found) for kind, found in zip(self._kinds, self._literals, strict=True)]

    def names(self) -> list[str]:
        """The variables as code."""
        return self._names

    def formula(self, node: Node) -> Formula:
        """The truth of `node` as a function of a case."""
        if isinstance(node, Const) and isinstance(node.value, bool):
            return _constant(value=node.value)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Loop):
            return self._loop(node)
        return self._opaque(node)

    def _call(self, node: Call) -> Formula:
        match node.function, node.arguments:
            case "_&&_" | "_||_" | "!_" | "_?_:_" as function, parts:
                return _connected(function, [self.formula(part) for part in parts])
            case "@in", (term, ListOf(elements=elements)) if _all_plain(elements):
                return self._among(term, elements)
            case function, (left, right) if function in _COMPARE:
                return self._comparison(function, left, right)
        return self._opaque(node)

    def _comparison(self, function: str, left: Node, right: Node) -> Formula:
        if _is_truth(left) or _is_truth(right):
            first, second, test = self.formula(left), self.formula(right), _COMPARE[function]
            return lambda case: test(first(case), second(case))
        if _is_plain(left) and not _is_plain(right):
            left, right, function = right, left, _MIRRORED.get(function, function)
        compare = _COMPARE[function]
        if isinstance(right, Const) and _is_plain(right):
            return self._with_literal(left, right, compare)
        if _may_be_nan(left) or _may_be_nan(right):
            return self._opaque(Call(function, (left, right)))
        if left == right and repr(left) == repr(right):
            return _constant(value=compare(0, 0))
        low, high = sorted((left, right), key=repr)
        place = self._place(f"{low!r} <=> {high!r}", "order", f"{code(left)} against {code(right)}")
        sign = 1 if low is left else -1
        return lambda case: compare(sign * _number(case[place]), 0)

    def _with_literal(self, term: Node, literal: Const, compare: Callable[[Any, Any], bool]) -> Formula:
        value = literal.value
        if isinstance(term, Const):
            return _constant(value=compare(term.value, value))
        place = self._place(repr(term), _domain(term, literal), code(term))
        self._literals[place].add(value)
        return lambda case: compare(case[place], value)

    def _among(self, term: Node, elements: Sequence[Node]) -> Formula:
        literals = [each for each in elements if isinstance(each, Const)]
        if not literals:
            return _constant(value=False)
        values = frozenset(each.value for each in literals)
        if isinstance(term, Const):
            return _constant(value=term.value in values)
        place = self._place(repr(term), _domain(term, literals[0]), code(term))
        self._literals[place] |= values
        return lambda case: case[place] in values

    def _loop(self, node: Loop) -> Formula:
        """`all` and `exists` over a body that can come out one way only; every other loop may be either."""
        if isinstance(node.step, Call) and isinstance(node.start, Const) and len(node.step.arguments) > 1:
            body = analyse(node.step.arguments[1]).verdict
            if node.step.function == "_&&_" and node.start.value is True and body is Verdict.ALWAYS:
                return _constant(value=True)
            if node.step.function == "_||_" and node.start.value is False and body is Verdict.NEVER:
                return _constant(value=False)
        return self._opaque(node)

    def _opaque(self, node: Node) -> Formula:
        place = self._place(repr(node), "truth", code(node))
        return lambda case: bool(case[place])

    def _place(self, key: str, kind: str, name: str) -> int:
        key = f"{kind} {key}"
        if key not in self._places:
            self._places[key] = len(self._kinds)
            self._kinds.append(kind)
            self._literals.append(set())
            self._names.append(name)
        return self._places[key]


def _connected(function: str, parts: Sequence[Formula]) -> Formula:
    first = parts[0]
    if function == "_&&_":
        return lambda case: first(case) and parts[1](case)
    if function == "_||_":
        return lambda case: first(case) or parts[1](case)
    if function == "_?_:_":
        return lambda case: parts[1](case) if first(case) else parts[2](case)
    return lambda case: not first(case)


def _constant(*, value: bool) -> Formula:
    return lambda case: value  # noqa: ARG005 - the same in every case


def _samples(kind: str, literals: set[object]) -> Sequence[object]:
    """Every literal, and a value in each gap between them."""
    if kind == "truth":
        return [False, True]
    if kind == "order":
        return [-1, 0, 1]
    if kind == "text":
        texts = [text for text in literals if isinstance(text, str)]
        return sorted({"", *texts, *(text + "\0" for text in texts)})
    low, high = {"int": _INT, "uint": _UINT, "size": (0, _INT[1])}[kind]
    numbers = [_number(number) for number in literals]
    near = {number + step for number in numbers for step in (-1, 0, 1)}
    return sorted(number for number in near if low <= number <= high) or [low]


def _domain(term: Node, literal: Const) -> str:
    if isinstance(literal.value, str):
        return "text"
    if isinstance(term, Call) and term.function == "size":
        return "size"
    return "uint" if literal.unsigned else "int"


def _is_plain(node: Node) -> bool:
    """A literal whose gaps are known: text or a whole number."""
    return isinstance(node, Const) and isinstance(node.value, str | int) and not isinstance(node.value, bool)


def _all_plain(nodes: Iterable[Node]) -> bool:
    return all(_is_plain(node) for node in nodes)


def _is_truth(node: Node) -> bool:
    """Whether a node is certainly of type bool; where it is not certain, comparing it is opaque."""
    match node:
        case Const(value=value):
            return isinstance(value, bool)
        case Ident(name=name):
            return name in CATALOGUE and CATALOGUE[name].kind is Kind.BOOL
        case Call(function=function):
            return function in _LOGIC or function in _TESTS
    return False


def _may_be_nan(node: Node) -> bool:
    return any(
        (isinstance(each, Call) and each.function == "double")
        or (isinstance(each, Const) and isinstance(each.value, float))
        for each in walk(node)
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("only numbers stand in a numeric domain")
    return value
