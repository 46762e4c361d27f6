"""Work with runtime sets: merge, compare, prune. Nothing is changed in place; every result is a set of its own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from verifier.policy.diff import Change
from verifier.policy.runtime.entry import Entry, Source
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.runtime_set import MAX_ENTRIES, Assembly, Head, RuntimeSet
from verifier.tcg.algorithms import HashAlg

_KEY: Final = attrgetter("key")


def merge(head: Head, sets: Sequence[RuntimeSet]) -> RuntimeSet:
    """What any of the sets has; the sources of an entry are those of all."""
    return _rebuilt(head, lambda: heapq.merge(*map(iter, sets), key=_KEY))


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """A path whose digests differ between two sets; one of the tuples may be empty, not both.

    Attributes:
        before, after: the entries of the path in each set, all of them.
    """

    change: Change
    path: bytes
    before: tuple[Entry, ...]
    after: tuple[Entry, ...]


def diff(before: RuntimeSet, after: RuntimeSet) -> Iterator[PathChange]:
    """Paths whose digests differ, in order. Where only sources differ, nothing has changed."""
    tagged = heapq.merge(
        ((entry, False) for entry in before), ((entry, True) for entry in after), key=lambda pair: pair[0].key
    )
    for path, group in itertools.groupby(tagged, key=lambda pair: pair[0].path):
        sides: tuple[list[Entry], list[Entry]] = ([], [])
        for entry, later in group:
            sides[later].append(entry)
        old, new = sides
        if [entry.key for entry in old] != [entry.key for entry in new]:
            change = Change.CHANGED if old and new else Change.REMOVED if old else Change.ADDED
            yield PathChange(change=change, path=path, before=tuple(old), after=tuple(new))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What to leave out; an entry stays only where every part lets it stay.

    Attributes:
        path: whether entries with this path go.
        source: whether this source goes; an entry goes with the last of its sources.
        algorithms: the only ones that stay; empty: all.
        seen: sets of what was really measured; entries whose path is in none of them go.
    """

    path: Callable[[bytes], bool] = lambda _path: False
    source: Callable[[Source], bool] = lambda _source: False
    algorithms: Collection[HashAlg] = ()
    seen: Sequence[RuntimeSet] = ()


def prune(head: Head, whole: RuntimeSet, pruning: Pruning) -> RuntimeSet:
    """The set without what `pruning` leaves out. Raises `RuntimeSetError` where nothing is left."""
    gone = frozenset(source for source in whole.sources if pruning.source(source))
    left = _rebuilt(head, lambda: _left(whole, pruning, gone))
    if not len(left):
        raise RuntimeSetError("nothing is left, so nothing could ever be known", where=head.name)
    return left


def _left(whole: RuntimeSet, pruning: Pruning, gone: frozenset[Source]) -> Iterator[Entry]:
    for entry in whole:
        if pruning.algorithms and entry.kind.alg not in pruning.algorithms:
            continue
        sources = entry.sources
        if gone and sources:
            sources = tuple([source for source in sources if source not in gone])
            if not sources:
                continue
        if pruning.path(entry.path):
            continue
        if pruning.seen and not any(seen.has_path(entry.path) for seen in pruning.seen):
            continue
        yield entry._replace(sources=sources)


def _rebuilt(head: Head, entries: Callable[[], Iterable[Entry]]) -> RuntimeSet:
    """A set from entries in order, which are asked for twice: once for their sources, once for themselves."""
    named: set[Source] = set()
    last: tuple[Source, ...] | None = None
    for count, entry in enumerate(entries()):
        if count >= MAX_ENTRIES:
            raise RuntimeSetError(f"more than {MAX_ENTRIES} entries", where=head.name)
        if entry.sources is not last:
            named.update(entry.sources)
            last = entry.sources
    sources = tuple(sorted(named))
    number = {source: place for place, source in enumerate(sources)}
    assembly = Assembly(head, sources)
    for _, group in itertools.groupby(entries(), key=_KEY):
        first, *others = group
        origin = {number[source] for each in (first, *others) for source in each.sources}
        assembly.add(first.path, first.kind, first.digest, tuple(sorted(origin)))
    return assembly.finish()
