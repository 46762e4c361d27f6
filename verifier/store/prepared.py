"""Core's statements of the hot path as the drivers take them: text, compiled once, and rows by position.

By position costs SQLite's driver half of what it costs by name; one statement for many rows was measured there too, and is
slower, since it has to be able to undo itself alone. PostgreSQL is a round trip away: it takes the rows as arrays, one for
each column, in one statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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

_TAKEN: Final = "taken"
"""Column of those rows of `Common` that the second insert takes."""
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
    columns: Mapping[str, str]
    """Names and types, in the order of the arrays."""
    after: str
    row: Callable[[Values], tuple[Any, ...]]

    def text(self, first: int = 1) -> str:
        """The arrays are its parameters, numbered from `first`."""
        return f"{self.before}{_selected(self.columns.values(), first)}{self.after}"

    def arrays(self, rows: Sequence[Values]) -> list[tuple[Any, ...]]:
        """The rows as columns."""
        return list(zip(*map(self.row, rows), strict=True))

    def taken_from(self, named: str, where: str = "") -> str:
        """The same insert, of rows that the statement around it has under this name."""
        return f"{self.before}SELECT {_listed(self.columns)} FROM {named}{where}{self.after}"  # noqa: S608 - likewise


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(POSTGRESQL.identifier_preparer.quote, names))


def _selected(types: Iterable[str], first: int) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, first))
    return f"SELECT * FROM unnest({arrays})"  # noqa: S608 - names of types


@dataclass(frozen=True)
class Common:
    """Two inserts of which the second takes some of the first's rows, and more columns of them: sent once.

    What most columns hold is the same in both, and to encode a value for PostgreSQL costs more than to read it there.
    """

    first: Unnested
    second: Unnested

    def __post_init__(self) -> None:
        for name in self.first.columns.keys() & self.second.columns.keys():
            if self.first.columns[name] != self.second.columns[name]:
                raise ValueError(f"{name} is of another type in each of the two")

    @cached_property
    def more(self) -> tuple[str, ...]:
        """Columns of the second alone."""
        return tuple(name for name in self.second.columns if name not in self.first.columns)

    @cached_property
    def _columns(self) -> Mapping[str, str]:
        own = {name: self.second.columns[name] for name in self.more}
        return {**self.first.columns, **own, _TAKEN: "BOOLEAN"}

    def parts(self, first: int) -> dict[str, str]:
        """Parts of a statement by name, the last of which stands alone; the arrays are numbered from `first`."""
        rows = f"common ({_listed(self._columns)})"
        return {
            rows: _selected(self._columns.values(), first),
            "begun": self.first.taken_from("common"),
            "": self.second.taken_from("common", f" WHERE {_TAKEN}"),
        }

    def arrays(self, rows: Iterable[tuple[Values, Values, bool]]) -> list[tuple[Any, ...]]:
        """Rows as columns: that of the first, what holds the other columns, and whether the second takes it."""
        more = itemgetter(*self.more)
        found = [(*self.first.row(one), *more(other), taken) for one, other, taken in rows]
        return list(zip(*found, strict=True))


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
    columns = {name: statement.table.c[name].type.compile(POSTGRESQL) for name in names}
    return Unnested(parts[0], columns, parts[1], one.row)


def together(*inserts: Unnested, last: Common) -> str:
    """One statement for all: the parameters of the first, then those of the second, and so on."""
    starts = list(accumulate((len(one.columns) for one in inserts), initial=1))
    texts = [one.text(start) for one, start in zip(inserts, starts, strict=False)]
    parts = {f"part{number}": text for number, text in enumerate(texts)} | last.parts(starts[-1])
    end = parts.pop("")
    return f"WITH {', '.join(f'{name} AS ({text})' for name, text in parts.items())} {end}"
