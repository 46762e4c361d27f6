"""A part of an expression as code again, for people; macros that are not `all` or `exists` are shortened."""

from __future__ import annotations

import json
from typing import Final, assert_never

from verifier.policy.cel_tree import Call, Const, Ident, ListOf, Loop, Node, Select, Struct

_BINARY: Final = {
    "_&&_": "&&",
    "_||_": "||",
    "_==_": "==",
    "_!=_": "!=",
    "_<_": "<",
    "_<=_": "<=",
    "_>_": ">",
    "_>=_": ">=",
    "_+_": "+",
    "_-_": "-",
    "_*_": "*",
    "_/_": "/",
    "_%_": "%",
    "@in": "in",
}
_MEMBERS: Final = frozenset({"contains", "startsWith", "endsWith", "matches"})
_MACROS: Final = {"_&&_": "all", "_||_": "exists"}


def code(node: Node) -> str:
    """`node` as CEL."""
    match node:
        case Const() | Ident() | Struct():
            text = _leaf(node)
        case Select(operand=operand, field=field, test_only=test_only):
            text = f"has({code(operand)}.{field})" if test_only else f"{code(operand)}.{field}"
        case Call():
            text = _call(node)
        case ListOf(elements=elements):
            text = f"[{', '.join(code(each) for each in elements)}]"
        case Loop():
            text = _loop(node)
        case _:
            assert_never(node)
    return text


def _leaf(node: Const | Ident | Struct) -> str:
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Struct):
        return "{…}"
    if isinstance(node.value, bytes):
        return repr(node.value)
    return json.dumps(node.value, ensure_ascii=False) + ("u" if node.unsigned else "")


def _call(node: Call) -> str:
    parts = [code(each) for each in node.arguments]
    if node.function in _BINARY:
        return f" {_BINARY[node.function]} ".join(_grouped(each) for each in node.arguments)
    if node.function == "_[_]":
        return f"{parts[0]}[{parts[1]}]"
    if node.function in {"!_", "-_"}:
        return f"{node.function[0]}{_grouped(node.arguments[0])}"
    if node.function == "_?_:_":
        return "{} ? {} : {}".format(*(_grouped(each) for each in node.arguments))
    if node.function in _MEMBERS:
        return f"{parts[0]}.{node.function}({parts[1]})"
    return f"{node.function}({', '.join(parts)})"


def _grouped(node: Node) -> str:
    compound = isinstance(node, Call) and (node.function in _BINARY or node.function == "_?_:_")
    return f"({code(node)})" if compound else code(node)


def _loop(node: Loop) -> str:
    over, step = code(node.over), node.step
    if isinstance(step, Call) and step.function in _MACROS and isinstance(node.start, Const):
        return f"{over}.{_MACROS[step.function]}({node.variable}, {code(step.arguments[1])})"
    return f"{over}.…({node.variable}, …)"
