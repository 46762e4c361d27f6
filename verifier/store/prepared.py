"""Core's statements of the hot path as SQLite's driver takes them: text, compiled once, and rows by position.

One statement for many rows was measured too, and is slower: it has to be able to undo itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Dialect, Update

from verifier.store.rows import Values
from verifier.store.statements import Insert


@dataclass(frozen=True)
class Prepared:
    """A statement for one row; `row` puts a row's values in the order of its parameters."""

    text: str
    row: Callable[[Values], tuple[Any, ...]]


def prepared(statement: Insert | Update, dialect: Dialect) -> Prepared:
    """`dialect` has to name parameters by question marks. Constants must be literal columns: nobody would bind them."""
    compiled = statement.compile(dialect=dialect)
    return Prepared(compiled.string, _getter(compiled.positiontup or ()))


def _getter(names: Sequence[str]) -> Callable[[Values], tuple[Any, ...]]:
    if len(names) == 1:
        (name,) = names
        return lambda row: (row[name],)
    return itemgetter(*names)
