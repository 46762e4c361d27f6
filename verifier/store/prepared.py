"""Core's statements of the hot path as the drivers take them: text, compiled once, and rows by position.

By position costs SQLite's driver half of what it costs by name; one statement for many rows was measured there too, and is
slower, since it has to be able to undo itself alone. PostgreSQL is a round trip away: one statement takes many rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ClauseElement, Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert

from verifier.store.rows import Row, Values
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


CommonRow = tuple[Values, Values, bool, Row]
"""A row of the first insert, what holds the second's other columns, whether the second takes it, and what is beside."""


@dataclass(frozen=True, eq=False)
class Common:
    """Two inserts of which the second takes some of the first's rows, and more columns of them: sent once.

    What most columns hold is the same in both, and to encode a value for PostgreSQL costs more than to read it there.
    """

    first: Rows
    second: Rows
    beside: Mapping[str, str] = field(default_factory=dict)
    """Names and types of what is sent with each row and inserted nowhere."""

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
        """Of the first, of the second alone, whether the second takes the row, and what is beside."""
        own = {name: self.second.columns[name] for name in self.more}
        return {**self.first.columns, **own, _TAKEN: "BOOLEAN", **self.beside}

    def values(self, rows: Sequence[CommonRow], places: int) -> list[object]:
        """What the parameters of so many places are."""
        more = itemgetter(*self.more)
        found = ((*self.first.row(one), *more(other), taken, *beside) for one, other, taken, beside in rows)
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
    """Inserts in one statement: some of rows of their own, one of a single row, and two of common rows.

    What it answers counts the rows of the last.
    """

    own: tuple[Rows, ...]
    single: Rows
    common: Common
    found: str | None = None
    """A query that must find as many rows as `common` has, or nothing is inserted. What it locks it locks first."""

    def __post_init__(self) -> None:
        if self.found is not None and "$" in self.found:
            raise ValueError("the query has parameters, which are the rows'")

    @cache  # noqa: B019 - there are two of them
    def text(self, places: int) -> str:
        """With so many places for the rows of each; the parameters are as `values` gives them."""
        sure = "" if self.found is None else " AND (SELECT sure.all_found FROM sure)"
        first = 1
        placed, inserts = [], []
        for number, own in enumerate(self.own):
            placed.append(_placed(f"own{number}", own.columns, places, first))
            inserts.append(own.taken_from(f"own{number}", sure))
            first += places * len(own.columns)
        placed.append(_placed("single", self.single.columns, 1, first))
        placed.append(_placed("common", self.common.columns, places, first + len(self.single.columns)))
        placed += self._sure()
        inserts.append(self.single.taken_from("single", sure))
        inserts.append(self.common.first.taken_from("common", sure))
        parts = [f"part{number} AS ({insert})" for number, insert in enumerate(inserts)]
        last = self.common.second.taken_from("common", f" AND {_TAKEN}{sure}")
        return f"WITH {', '.join(placed + parts)} {last}"

    def _sure(self) -> list[str]:
        if self.found is None:
            return []
        key = _quoted(next(iter(self.common.columns)))
        wanted = f"SELECT count(*) FROM common WHERE {key} IS NOT NULL"  # noqa: S608 - a name of a column
        return [
            f"found AS MATERIALIZED ({self.found})",
            f"sure AS MATERIALIZED (SELECT count(*) = ({wanted}) AS all_found FROM found)",  # noqa: S608
        ]

    def values(
        self,
        own: Sequence[Sequence[Values]],
        single: Sequence[Values],
        common: Sequence[CommonRow],
        places: int,
    ) -> list[object]:
        """What the parameters of so many places are. Any of the rows may be fewer, or none."""
        pairs = zip(self.own, own, strict=True)
        found = [value for part, rows in pairs for value in part.values(rows, places)]
        return found + self.single.values(single, 1) + self.common.values(common, places)
