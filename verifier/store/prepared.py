"""Core's statements of the hot path as the drivers take them: text, compiled once, and rows by position.

By position costs SQLite's driver half of what it costs by name; one statement for many rows was measured there too, and is
slower, since it has to be able to undo itself alone. PostgreSQL is a round trip away: it takes the rows as arrays, one for
each column, in one statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ClauseElement, Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert

from verifier.store.rows import Values
from verifier.store.statements import Insert

_ONE_ROW: Final = re.compile(r"VALUES \([^()]*\)")
POSTGRESQL: Final = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Prepared:
    """A statement for one row."""

    text: str
    names: tuple[str, ...]

    @cached_property
    def row(self) -> Callable[[Values], tuple[Any, ...]]:
        """A row's values in the order of the parameters."""
        if len(self.names) == 1:
            (name,) = self.names
            return lambda row: (row[name],)
        return itemgetter(*self.names)


def prepared(statement: ClauseElement, dialect: Dialect) -> Prepared:
    """`dialect` has to name parameters by position. Constants must be literal columns: nobody would bind them."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what dialects of SQL make
    return Prepared(compiled.string, tuple(compiled.positiontup or ()))


@dataclass(frozen=True)
class Unnested:
    """An insert of as many rows as there are in its arrays, for PostgreSQL."""

    before: str
    types: tuple[str, ...]
    after: str
    row: Callable[[Values], tuple[Any, ...]]

    def text(self, first: int = 1) -> str:
        """The arrays are its parameters, numbered from `first`."""
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(self.types, first))
        return f"{self.before}SELECT * FROM unnest({arrays}){self.after}"  # noqa: S608 - names of columns and types

    def arrays(self, rows: Sequence[Values]) -> list[tuple[Any, ...]]:
        """The rows as columns."""
        return list(zip(*map(self.row, rows), strict=True))


def unnested(statement: Insert | ReturningInsert[Any]) -> Unnested:
    """An insert of many rows, from that of one.

    Raises:
        ValueError: something but the row has parameters: it could not be repeated.
    """
    one = prepared(statement, POSTGRESQL)
    parts = _ONE_ROW.split(one.text)
    if len(parts) != len(("before", "after")) or "$" in "".join(parts):
        raise ValueError(f"not an insert of one row: {one.text}")
    names = one.names
    types = tuple(statement.table.c[name].type.compile(POSTGRESQL) for name in names)
    return Unnested(parts[0], types, parts[1], one.row)


def together(*inserts: Unnested) -> str:
    """One statement for all: the parameters of the first, then those of the second, and so on."""
    starts = accumulate((len(one.types) for one in inserts), initial=1)
    texts = [one.text(start) for one, start in zip(inserts, starts, strict=False)]
    named = ", ".join(f"part{number} AS ({text})" for number, text in enumerate(texts[:-1]))
    return f"WITH {named} {texts[-1]}"
