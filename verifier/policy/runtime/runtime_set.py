"""A runtime set: digests per path with their sources, immutable, ordered, and compact enough to be shared."""

from __future__ import annotations

import heapq
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from verifier.policy.runtime.entry import DIGEST_KINDS, MAX_PATH, DigestKind, Entry, Source
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.table import Columns, DigestTable

MAX_ENTRIES: Final = 8_000_000
MAX_SOURCES: Final = 1_000_000
MAX_PATHS: Final = 2**32 - 1 - MAX_PATH
"""Bytes of all paths of one kind together: offsets are 32 bits wide."""
MAX_DESCRIPTION: Final = 500
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What people know a runtime set by.

    Raises `RuntimeSetError` for a name that is none, and for a description of more than one line.
    """

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RuntimeSetError(
                f"the name {self.name!r} is not 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
                where="name",
            )
        if len(self.description) > MAX_DESCRIPTION or not (self.description or "-").isprintable():
            raise RuntimeSetError(
                f"a description is one line of at most {MAX_DESCRIPTION} printable characters",
                where="description",
            )
        if self.description != self.description.strip():
            raise RuntimeSetError("the description begins or ends with blanks", where="description")


class RuntimeSet:
    """Digests per path, in the order of (path, digest), each once; all of them in columns.

    Proves nothing about who made it: its digest, named by a signed policy, does.

    Attributes:
        head: name and description.
        sources: in ascending order, each once; every one is named by an entry.
        tables: one for every kind of digest in the set.
    """

    __slots__ = ("_origins", "head", "sources", "tables")

    def __init__(
        self,
        head: Head,
        sources: tuple[Source, ...],
        tables: Iterable[DigestTable],
        origins: tuple[tuple[int, ...], ...],
    ) -> None:
        self.head = head
        self.sources = sources
        self.tables: dict[DigestKind, DigestTable] = {table.kind: table for table in tables}
        self._origins = origins

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables.values())

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in order."""
        streams = [self._rows(table) for table in self.tables.values()]
        return streams[0] if len(streams) == 1 else iter(heapq.merge(*streams, key=attrgetter("key")))

    def _rows(self, table: DigestTable) -> Iterator[Entry]:
        for row in range(len(table)):
            yield Entry(table.path(row), table.kind, table.digest(row), self.sources_of(table, row))

    def sources_of(self, table: DigestTable, row: int) -> tuple[Source, ...]:
        """Where a row of one of this set's tables came from."""
        return tuple([self.sources[number] for number in self._origins[table.origin(row)]])

    def find(self, kind: DigestKind, digest: bytes, path: bytes) -> Entry | None:
        """The entry with exactly this digest and path."""
        table = self.tables.get(kind)
        row = -1 if table is None else table.find(digest, path)
        if table is None or row < 0:
            return None
        return Entry(path, kind, digest, self.sources_of(table, row))

    def at_path(self, path: bytes) -> tuple[Entry, ...]:
        """Every entry with this path, whatever the digest."""
        return tuple(
            Entry(path, table.kind, table.digest(row), self.sources_of(table, row))
            for table in self.tables.values()
            for row in table.with_path(path)
        )

    def has_path(self, path: bytes) -> bool:
        """Whether any entry has this path."""
        return any(len(table.with_path(path)) for table in self.tables.values())

    def named(self, head: Head) -> RuntimeSet:
        """The same set under another name."""
        return RuntimeSet(head, self.sources, self.tables.values(), self._origins)


class Assembly:
    """Puts a set together from rows that come in order. `add` wants numbers of sources, ascending."""

    def __init__(self, head: Head, sources: tuple[Source, ...]) -> None:
        self._head = head
        self._sources = sources
        self._columns: dict[DigestKind, Columns] = {}
        self._origins: dict[tuple[int, ...], int] = {}

    def add(self, path: bytes, kind: DigestKind, digest: bytes, sources: tuple[int, ...]) -> None:
        """Append a row; that it comes after the one before is the caller's to see to."""
        columns = self._columns.get(kind)
        if columns is None:
            columns = self._columns[kind] = Columns(kind)
        origin = self._origins.setdefault(sources, len(self._origins))
        if len(columns.paths) > MAX_PATHS:
            raise RuntimeSetError(f"the paths together are longer than {MAX_PATHS} bytes")
        columns.append(path, digest, origin)

    def finish(self) -> RuntimeSet:
        """The set, with its tables indexed."""
        tables = []
        for kind in DIGEST_KINDS:
            columns = self._columns.pop(kind, None)
            if columns is not None:
                tables.append(DigestTable(columns))
        return RuntimeSet(self._head, self._sources, tables, tuple(self._origins))


def assemble(head: Head, entries: Iterable[Entry]) -> RuntimeSet:
    """A set from entries in any order; the same path and digest from several sources is one entry.

    Raises `RuntimeSetError` for paths no kernel logs, and for more than `MAX_ENTRIES` entries.
    """
    known: dict[Source, int] = {}
    rows: list[tuple[bytes, DigestKind, bytes, tuple[int, ...]]] = []
    for path, kind, digest, sources in entries:
        check_path(path)
        if len(rows) >= MAX_ENTRIES:
            raise RuntimeSetError(f"more than {MAX_ENTRIES} entries")
        rows.append((path, kind, digest, tuple([known.setdefault(each, len(known)) for each in sources])))
    rows.sort(key=lambda row: (row[0], row[1].text, row[2]))
    ordered = tuple(sorted(known))
    if len(ordered) > MAX_SOURCES:
        raise RuntimeSetError(f"{len(ordered)} sources are more than {MAX_SOURCES}")
    place = array("I", bytes(4 * len(known)))
    for number, source in enumerate(ordered):
        place[known[source]] = number
    assembly = Assembly(head, ordered)
    for path, kind, digest, numbers in _unique(rows):
        assembly.add(path, kind, digest, tuple(sorted({place[number] for number in numbers})))
    return assembly.finish()


def _unique(
    rows: Iterable[tuple[bytes, DigestKind, bytes, tuple[int, ...]]],
) -> Iterator[tuple[bytes, DigestKind, bytes, tuple[int, ...]]]:
    """Rows in order, equal ones joined with the sources of all."""
    held: tuple[bytes, DigestKind, bytes, tuple[int, ...]] | None = None
    for row in rows:
        if held is not None and held[:3] == row[:3]:
            held = (*held[:3], held[3] + row[3])
            continue
        if held is not None:
            yield held
        held = row
    if held is not None:
        yield held


def check_path(path: bytes, line: int | None = None) -> None:
    """Refuse what no kernel logs: nothing, NUL, blanks (logged as underscores), more than `PATH_MAX`."""
    if not 0 < len(path) <= MAX_PATH:
        raise RuntimeSetError(
            f"a path of {len(path)} bytes; the kernel logs 1 to {MAX_PATH}", line=line, where="path"
        )
    if b"\0" in path or b" " in path:
        raise RuntimeSetError(
            f"the path {path[:80]!r} has a blank or NUL; IMA logs blanks as underscores",
            line=line,
            where="path",
        )
