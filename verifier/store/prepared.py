"""Core's statements of the hot path as the drivers take them: text, compiled once, and rows by position.

By position costs SQLite's driver half of what it costs by name; one statement for many rows was measured there too, and is
slower, since it has to be able to undo itself alone. PostgreSQL is a round trip away: one statement takes many rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
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
_EXACT: Final = 8
_STRIDE: Final = 4
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


@dataclass(frozen=True, eq=False)
class Rows:
    """An insert of as many rows as its statement has places for, or fewer, for PostgreSQL.

    Not arrays: asyncpg asks each value of an array, and the array, whether it is a container. A place that is left over
    holds nothing but NULL, and no row is made of it.
    """

    before: str
    columns: Mapping[str, str]
    """Names and types, in the order of a row's values. The first is never NULL in a row."""
    after: str
    row: Callable[[Values], tuple[Any, ...]]

    @cache  # noqa: B019 - there are some ten of them, made with their modules
    def text(self, places: int) -> str:
        """One statement; its parameters are the rows' values, row by row."""
        return f"WITH {_placed('rows', self.columns, places, 1)} {self.taken_from('rows')}"

    def values(self, rows: Sequence[Values], places: int) -> list[object]:
        """What the parameters of so many places are."""
        return _filled(map(self.row, rows), len(self.columns), len(rows), places)

    def taken_from(self, named: str, also: str = "") -> str:
        """The same insert, of rows that the statement around it has under this name."""
        key = _quoted(next(iter(self.columns)))
        selected = f"SELECT {_listed(self.columns)} FROM {named} WHERE {key} IS NOT NULL{also}"  # noqa: S608 - names of columns
        return f"{self.before}{selected}{self.after}"


def places_for(rows: int) -> int:
    """How many places a statement for so many rows has: few statements are planned, and few places are left over."""
    return rows if rows <= _EXACT else -(-rows // _STRIDE) * _STRIDE


def _quoted(name: str) -> str:
    return str(POSTGRESQL.identifier_preparer.quote(name))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_quoted, names))


def _placed(named: str, columns: Mapping[str, str], places: int, first: int) -> str:
    """Rows under a name, from parameters that are numbered from `first`. The types of the first row are those of all."""
    numbers = count(first)
    head = ", ".join(f"${next(numbers)}::{kind}" for kind in columns.values())
    more = (", ".join(f"${next(numbers)}" for _ in columns) for _ in range(places - 1))
    return f"{named} ({_listed(columns)}) AS (VALUES {', '.join(f'({row})' for row in (head, *more))})"


def _filled(rows: Iterable[Sequence[object]], width: int, given: int, places: int) -> list[object]:
    return [value for row in rows for value in row] + [None] * (width * (places - given))


@dataclass(frozen=True, eq=False)
class Common:
    """Two inserts of which the second takes some of the first's rows, and more columns of them: sent once.

    What most columns hold is the same in both, and to encode a value for PostgreSQL costs more than to read it there.
    """

    first: Rows
    second: Rows

    def __post_init__(self) -> None:
        for name in self.first.columns.keys() & self.second.columns.keys():
            if self.first.columns[name] != self.second.columns[name]:
                raise ValueError(f"{name} is of another type in each of the two")

    @cached_property
    def more(self) -> tuple[str, ...]:
        """Columns of the second alone."""
        return tuple(name for name in self.second.columns if name not in self.first.columns)

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Of the first, of the second alone, and whether the second takes the row."""
        own = {name: self.second.columns[name] for name in self.more}
        return {**self.first.columns, **own, _TAKEN: "BOOLEAN"}

    def values(self, rows: Sequence[tuple[Values, Values, bool]], places: int) -> list[object]:
        """Rows: that of the first, what holds the other columns, and whether the second takes it."""
        more = itemgetter(*self.more)
        found = ((*self.first.row(one), *more(other), taken) for one, other, taken in rows)
        return _filled(found, len(self.columns), len(rows), places)


def several(statement: Insert | ReturningInsert[Any]) -> Rows:
    """An insert of several rows, from that of one.

    Raises:
        ValueError: something but the row has parameters: it could not be repeated. Or its first column may be NULL.
    """
    one = prepared(statement, POSTGRESQL)
    parts = _ONE_ROW.split(one.text)
    if len(parts) != len(("before", "after")) or "$" in "".join(parts):
        raise ValueError(f"not an insert of one row: {one.text}")
    found = [statement.table.c[name] for name in one.names]
    if found[0].nullable:
        raise ValueError(f"{found[0].name} may be NULL, as a place without a row is")
    columns = {column.name: column.type.compile(POSTGRESQL) for column in found}
    return Rows(parts[0], columns, parts[1], one.row)


@dataclass(frozen=True, eq=False)
class Together:
    """Inserts in one statement: of rows of their own, of one row, and two of common rows."""

    own: Rows
    single: Rows
    common: Common

    @cache  # noqa: B019 - there is one of them
    def text(self, places: int) -> str:
        """With so many places for rows; the parameters are those of the first insert, the second, the third."""
        second = 1 + places * len(self.own.columns)
        third = second + len(self.single.columns)
        parts = (
            _placed("own", self.own.columns, places, 1),
            _placed("single", self.single.columns, 1, second),
            _placed("common", self.common.columns, places, third),
            f"part1 AS ({self.own.taken_from('own')})",
            f"part2 AS ({self.single.taken_from('single')})",
            f"part3 AS ({self.common.first.taken_from('common')})",
        )
        return f"WITH {', '.join(parts)} {self.common.second.taken_from('common', f' AND {_TAKEN}')}"
