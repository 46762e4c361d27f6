"""How the outcomes of two rules hang together."""

from __future__ import annotations

import enum


class Relation(enum.Enum):
    """Over every boot that either rule can be judged on."""

    NONE = enum.auto()
    """Nothing is certain."""
    FIRST_IMPLIES_SECOND = enum.auto()
    SECOND_IMPLIES_FIRST = enum.auto()
    EQUIVALENT = enum.auto()
    EXCLUSIVE = enum.auto()
    """No boot passes both."""

    @property
    def swapped(self) -> Relation:
        """The same, seen from the second rule."""
        return {
            Relation.FIRST_IMPLIES_SECOND: Relation.SECOND_IMPLIES_FIRST,
            Relation.SECOND_IMPLIES_FIRST: Relation.FIRST_IMPLIES_SECOND,
        }.get(self, self)

    @classmethod
    def of_sets(
        cls, first: set[bytes] | set[tuple[bytes, ...]], second: set[bytes] | set[tuple[bytes, ...]]
    ) -> Relation:
        """Of two rules that each accept one value out of a set."""
        if not first & second:
            return cls.EXCLUSIVE
        return cls.of_implications(first_second=first <= second, second_first=second <= first)

    @classmethod
    def of_implications(cls, *, first_second: bool, second_first: bool) -> Relation:
        """From what is known in either direction."""
        if first_second and second_first:
            return cls.EQUIVALENT
        if first_second:
            return cls.FIRST_IMPLIES_SECOND
        return cls.SECOND_IMPLIES_FIRST if second_first else cls.NONE
