"""CEL expressions over the catalogue of claims: compiled once per policy revision, run without side effects.

The language is Google's Common Expression Language (cel-spec) in its C++ runtime: not Turing complete, every claim
a typed variable, regular expressions in linear time (RE2), at most 10,000 loop steps a run. What the runtime would
leave to run time is refused when a policy is parsed, as far as it can be seen there.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from cel_expr_python import cel

from verifier.errors import PolicyError
from verifier.policy.catalogue import CATALOGUE, Kind, Value
from verifier.policy.cel_tree import Call, Const, Ident, Loop, Node, Struct, children, read_tree, walk

MAX_EXPRESSION: Final = 4096
MAX_NESTED_LOOPS: Final = 2
_MAX_MESSAGE: Final = 200
_FAULT: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_CONTAINER: Final = " (in container '')"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")


class Outcome(enum.Enum):
    """What became of an expression."""

    HOLDS = enum.auto()
    BROKEN = enum.auto()
    FAULTY = enum.auto()
    """It could not be computed: a key that is not in a map, a division by zero, too many loop steps."""


@dataclass(frozen=True, slots=True)
class Program:
    """A checked expression of type bool.

    Attributes:
        references: the claims it reads, in the order of the catalogue.
        tree: its syntax tree, for the linter.
        compiled: the runtime's own object.
    """

    text: str
    references: tuple[str, ...] = field(compare=False)
    tree: Node = field(compare=False, repr=False)
    compiled: Any = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """The compiled form belongs to this process; a copy compiles again."""
        return compile_program, (self.text,)


def compile_program(text: str) -> Program:
    """Check and compile one expression.

    Proven on return: every name in it is a claim of the catalogue or a variable of a macro, all types fit, and the
    result is a bool. Not proven: that the claims will be there, or that no key is missing in a map.

    Raises:
        PolicyError: `where` is `line L column C` as far as a place is known.
    """
    if len(text) > MAX_EXPRESSION:
        raise PolicyError(f"the expression has {len(text)} characters; {MAX_EXPRESSION} are allowed")
    odd = _CONTROL.search(text)
    if odd is not None:
        # The runtime takes C strings: what follows a NUL would not be there.
        raise PolicyError(f"the expression has the control character {odd[0]!a} in it")
    try:
        compiled = _environment().compile(text)
    except RuntimeError as error:  # the runtime has no other
        raise _refusal(str(error)) from None
    if compiled.return_type() != cel.Type.BOOL:
        raise PolicyError(
            f"the expression has type {compiled.return_type().name().lower()}; a rule has type bool"
        )
    tree, dynamic = read_tree(compiled.serialize())
    if dynamic:
        raise PolicyError(
            "the expression mixes types (dyn), so that a wrong one would be seen only at run time"
        )
    _refuse_costly(tree)
    used = {node.name for node in walk(tree) if isinstance(node, Ident)}
    return Program(text, tuple(name for name in CATALOGUE if name in used), tree, compiled)


def run(program: Program, values: Mapping[str, Value]) -> tuple[Outcome, str]:
    """Compute the expression over `values`, which holds every claim it references; with what went wrong, if so.

    Only True holds. A fault is no answer: it is neither True nor False.
    """
    try:
        result = program.compiled.eval(data=values).value()
    except RuntimeError as error:  # the loop budget, or a value the runtime cannot take
        result = str(error)
    if result is True:
        return Outcome.HOLDS, ""
    if result is False:
        return Outcome.BROKEN, ""
    return Outcome.FAULTY, _one_line(str(result))


def unfit(value: Value) -> bool:
    """Whether the runtime would see something else than this value.

    It takes text as C strings, so that all behind a NUL would be invisible to a rule, and it takes no lone
    surrogates. Guests choose some texts; a rule must never judge less than what was proven.
    """
    if isinstance(value, str):
        return _UNFIT.search(value) is not None
    if isinstance(value, Mapping):
        return any(unfit(key) or unfit(item) for key, item in value.items())
    return isinstance(value, list) and any(unfit(item) for item in value)


@cache
def _environment() -> Any:  # noqa: ANN401 - the library's objects have no types mypy can see
    return cel.NewEnv(variables={entry.name: cel_type(entry.kind) for entry in CATALOGUE.values()})


def cel_type(kind: Kind) -> Any:  # noqa: ANN401
    """The library's type for a kind of claim."""
    kinds = cel.Type
    return {
        Kind.BOOL: kinds.BOOL,
        Kind.INT: kinds.INT,
        Kind.UINT: kinds.UINT,
        Kind.STRING: kinds.STRING,
        Kind.STRINGS: kinds.List(kinds.STRING),
        Kind.INTS: kinds.List(kinds.INT),
        Kind.TEXT_MAP: kinds.Map(kinds.STRING, kinds.STRING),
        Kind.NUMBER_MAP: kinds.Map(kinds.STRING, kinds.INT),
        Kind.BY_PCR: kinds.Map(kinds.INT, kinds.STRING),
        Kind.LISTS_BY_PCR: kinds.Map(kinds.INT, kinds.List(kinds.STRING)),
        Kind.TEXTS_BY_NAME: kinds.Map(kinds.STRING, kinds.List(kinds.STRING)),
    }[kind]


def _refusal(text: str) -> PolicyError:
    found = _FAULT.search(text)
    if found is None:
        return PolicyError(_one_line(text))
    message = found[3].removesuffix(_CONTAINER)
    undeclared = _UNDECLARED.match(message)
    if undeclared is not None:
        message = _unknown_name(undeclared[1])
    elif "'(uint, int)'" in message or "'(int, uint)'" in message:
        message += "; an unsigned claim is compared with an unsigned number such as 3u"
    return PolicyError(_one_line(message), where=f"line {found[1]} column {int(found[2])}")


def _unknown_name(name: str) -> str:
    close = get_close_matches(name, CATALOGUE, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; docs/claims.md lists the claims"
    return f"{name!r} is neither a claim nor a function{hint}"


def _refuse_costly(tree: Node) -> None:
    if _loop_depth(tree) > MAX_NESTED_LOOPS:
        raise PolicyError(f"loops are nested more than {MAX_NESTED_LOOPS} deep")
    for node in walk(tree):
        if isinstance(node, Struct) and node.name:
            raise PolicyError(f"message {node.name} is made, but claims are no messages")
        if isinstance(node, Call) and node.function == "matches":
            _refuse_pattern(node.arguments[-1])


def _loop_depth(node: Node) -> int:
    deepest = max((_loop_depth(child) for child in children(node)), default=0)
    return deepest + isinstance(node, Loop)


def _refuse_pattern(pattern: Node) -> None:
    if not isinstance(pattern, Const):
        raise PolicyError(
            "matches() takes a literal pattern: one from a claim would be the guest's to choose"
        )
    result = _pattern_check().eval(data={"pattern": pattern.value}).value()
    if not isinstance(result, bool):
        raise PolicyError(_one_line(str(result)))


@cache
def _pattern_check() -> Any:  # noqa: ANN401
    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"
