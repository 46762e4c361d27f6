"""What follows from very objects that come again and again: worked out once for them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

KEPT: Final = 256


def of_these(work: Callable[[tuple[T, ...]], R], kept: int = KEPT) -> Callable[[tuple[T, ...]], R]:
    """`work`, remembered for the very objects it was given, in their order. They must be immutable, as its result is.

    Most attestations end with findings that others had before: constants, and what `Memo` keeps. To compare objects
    costs nothing, to compare what they hold does. Whatever is remembered holds on to its objects, so that none of them
    makes room for another with its identity.
    """
    known: dict[tuple[int, ...], tuple[tuple[T, ...], R]] = {}

    def remembered(items: tuple[T, ...]) -> R:
        key = tuple(map(id, items))
        found = known.get(key)
        if found is not None:
            return found[1]
        made = work(items)
        if len(known) >= kept:
            known.clear()  # findings made for one guest alone come never again: nothing worth an order is lost
        known[key] = (items, made)
        return made

    return remembered


def of_this(work: Callable[[T], R], kept: int = KEPT) -> Callable[[T], R]:
    """`of_these` of a single object."""
    known: dict[int, tuple[T, R]] = {}

    def remembered(item: T) -> R:
        found = known.get(id(item))
        if found is not None:
            return found[1]
        made = work(item)
        if len(known) >= kept:
            known.clear()
        known[id(item)] = (item, made)
        return made

    return remembered
