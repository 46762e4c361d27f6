"""The syntax tree of a checked CEL expression, read from the library's `CheckedExpr` (cel-spec, checked.proto).

The library gives its tree only as a serialized protocol buffer; the few message types it is made of are read here,
which costs less than another dependency. The bytes come from the library itself, never from a guest.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from verifier.errors import PolicyError
from verifier.policy.protobuf import Message

MAX_DEPTH: Final = 120
"""Levels of one expression; text of the allowed length can nest deeper only by repeating `!` or `-`."""


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: bool | int | float | str | bytes | None
    unsigned: bool = False
    """`1u` and `1` are different things in CEL."""


@dataclass(frozen=True, slots=True)
class Ident:
    """A claim (its whole dotted name), or a variable of a macro."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)`."""

    operand: Node
    field: str
    test_only: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator, which CEL spells `_&&_`, `!_`, `_[_]` and so on. A receiver is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A map, or a message when it has a name."""

    name: str
    entries: tuple[tuple[Node | str, Node], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What `all`, `exists`, `exists_one`, `map` and `filter` are rewritten to."""

    variable: str
    over: Node
    start: Node
    condition: Node
    step: Node
    result: Node


Node = Const | Ident | Select | Call | ListOf | Struct | Loop


class _Expr(enum.IntEnum):
    """Fields of cel.expr.Expr that hold its kind."""

    CONST = 3
    IDENT = 4
    SELECT = 5
    CALL = 6
    LIST = 7
    STRUCT = 8
    LOOP = 9


class _Constant(enum.IntEnum):
    """Fields of cel.expr.Constant."""

    NULL = 1
    BOOL = 2
    INT64 = 3
    UINT64 = 4
    DOUBLE = 5
    STRING = 6
    BYTES = 7


class _Type(enum.IntEnum):
    """Fields of cel.expr.Type that matter here."""

    DYN = 1
    LIST = 6
    MAP = 7


def read_tree(serialized: bytes) -> tuple[Node, bool]:
    """The tree, and whether any part of it escapes type checking (type `dyn`).

    Raises `PolicyError` when the expression is nested too deeply.
    """
    checked = Message(serialized).message(2)  # google.protobuf.Any: type_url, value
    dynamic = any(_is_dynamic(entry.message(2)) for entry in checked.messages(3))
    return _node(checked.message(4), 0), dynamic


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    match node:
        case Const() | Ident():
            return ()
        case Select(operand=operand):
            return (operand,)
        case Call(arguments=arguments):
            return arguments
        case ListOf(elements=elements):
            return elements
        case Struct(entries=entries):
            return tuple(part for entry in entries for part in entry if not isinstance(part, str))
        case Loop():
            return (node.over, node.start, node.condition, node.step, node.result)


def _node(message: Message, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise PolicyError(f"the expression is nested more than {MAX_DEPTH} levels deep")
    kind = next(_Expr(number) for number in message.numbers if number >= _Expr.CONST)
    return _READERS[kind](message.message(kind), depth + 1)


def _ident(message: Message, depth: int) -> Ident:
    del depth
    return Ident(message.text(1).lstrip("."))


def _select(message: Message, depth: int) -> Select:
    return Select(_node(message.message(1), depth), message.text(2), message.flag(3))


def _call(message: Message, depth: int) -> Call:
    return Call(message.text(2), _nodes(message, 1, depth) + _nodes(message, 3, depth))


def _list(message: Message, depth: int) -> ListOf:
    return ListOf(_nodes(message, 1, depth))


def _nodes(message: Message, number: int, depth: int) -> tuple[Node, ...]:
    return tuple([_node(each, depth) for each in message.messages(number)])


def _struct(message: Message, depth: int) -> Struct:
    entries: list[tuple[Node | str, Node]] = []
    for entry in message.messages(2):
        field, key, value = 2, 3, 4
        named = field in entry.numbers
        entries.append(
            (
                entry.text(field) if named else _node(entry.message(key), depth),
                _node(entry.message(value), depth),
            )
        )
    return Struct(message.text(1), tuple(entries))


def _loop(message: Message, depth: int) -> Loop:
    over, start, condition, step, result = (_node(message.message(n), depth) for n in (2, 4, 5, 6, 7))
    return Loop(message.text(1), over, start, condition, step, result)


def _const(message: Message, depth: int) -> Const:
    del depth
    number = message.numbers[0]
    if number == _Constant.UINT64:
        return Const(message.number(number), unsigned=True)
    if number == _Constant.INT64:
        value = message.number(number)
        return Const(value - (1 << 64) if value >> 63 else value)
    read = _LITERALS.get(number)
    return Const(None if read is None else read(message, number))


_LITERALS: Final[Mapping[int, Callable[[Message, int], bool | float | str | bytes]]] = {
    _Constant.BOOL: Message.flag,
    _Constant.DOUBLE: lambda message, number: float(struct.unpack("<d", message.raw(number))[0]),
    _Constant.STRING: Message.text,
    _Constant.BYTES: Message.raw,
}
_READERS: Final[Mapping[_Expr, Callable[[Message, int], Node]]] = {
    _Expr.CONST: _const,
    _Expr.IDENT: _ident,
    _Expr.SELECT: _select,
    _Expr.CALL: _call,
    _Expr.LIST: _list,
    _Expr.STRUCT: _struct,
    _Expr.LOOP: _loop,
}


def _is_dynamic(message: Message) -> bool:
    """Whether a type is `dyn`, or a list or map of it."""
    kind = message.numbers[0] if message.numbers else 0
    if kind in (_Type.LIST, _Type.MAP):
        inner = message.message(kind)
        return any(_is_dynamic(inner.message(number)) for number in inner.numbers)
    return kind == _Type.DYN
