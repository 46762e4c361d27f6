"""What follows from very objects that come again and again: worked out once for them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar, TypeVarTuple

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

KEPT: Final = 256


def of_this(work: Callable[[T], R], kept: int = KEPT) -> Callable[[T], R]:
    """`work`, remembered for the very object it was given, which must be immutable, as its result is.

    Most attestations end with findings that others had before: constants, and what `Memo` keeps. To compare objects
    costs nothing, to compare what they hold does. Whatever is remembered holds on to its objects, so that none of them
    makes room for another with its identity.
    """
    return _remembering(id, work, kept)


def of_these(work: Callable[[tuple[T, ...]], R], kept: int = KEPT) -> Callable[[tuple[T, ...]], R]:
    """The same of several objects, in their order, whatever tuple they come in."""
    return _remembering(_ids, work, kept)


def of_all_these(work: Callable[[*Ts], R], kept: int = KEPT) -> Callable[[*Ts], R]:
    """The same of any arguments; where one is a plain `dict`, which may have been changed since, it is worked out anew."""
    remembered = _remembering(_ids_of_all, work, kept)

    def found(*given: *Ts) -> R:
        return work(*given) if dict in map(type, given) else remembered(*given)

    return found


def _ids(items: tuple[object, ...]) -> tuple[int, ...]:
    return tuple(map(id, items))


def _ids_of_all(*items: object) -> tuple[int, ...]:
    return tuple(map(id, items))


def _remembering(
    identity: Callable[[*Ts], Hashable], work: Callable[[*Ts], R], kept: int
) -> Callable[[*Ts], R]:
    known: dict[Hashable, tuple[tuple[*Ts], R]] = {}

    def remembered(*given: *Ts) -> R:
        key = identity(*given)
        found = known.get(key)
        if found is not None:
            return found[1]
        made = work(*given)
        if len(known) >= kept:
            known.clear()  # findings made for one guest alone come never again: nothing worth an order is lost
        known[key] = (given, made)
        return made

    return remembered
