"""Answers that are given again for a moment, without asking the database.

What this process changes is seen at once; what another replica changes, and what the passing of time changes, within
two seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, TypeVar

from verifier.ports import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LIFE: Final = timedelta(seconds=2)
_MOST: Final = 4_096


class Asked(NamedTuple):
    """When the database was asked, and what this process had changed by then."""

    at: datetime
    version: int


class Remembered(Generic[K, V]):
    """Answers by tenant and question, the least recently used forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[str, int] = {}
        self._known: OrderedDict[tuple[str, K], tuple[Asked, V]] = OrderedDict()

    def get(self, tenant: str, key: K) -> V | None:
        """The answer, if it still counts."""
        found = self._known.get((tenant, key))
        if found is None:
            return None
        asked, value = found
        current = asked.version == self._version(tenant)
        if not current or not timedelta(0) <= self._clock.now() - asked.at < LIFE:
            del self._known[tenant, key]
            return None
        self._known.move_to_end((tenant, key))
        return value

    def asking(self, tenant: str) -> Asked:
        """To be taken before the database is asked: `keep` then knows how old the answer is, and whether it counts."""
        return Asked(self._clock.now(), self._version(tenant))

    def keep(self, tenant: str, key: K, value: V, asked: Asked) -> None:
        """Remember an answer. It counts only if nothing has changed since it was asked for."""
        self._known[tenant, key] = (asked, value)
        self._known.move_to_end((tenant, key))
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def changed(self, tenant: str) -> None:
        """No answer about this tenant counts any more."""
        self._versions[tenant] = self._version(tenant) + 1

    def _version(self, tenant: str) -> int:
        return self._versions.get(tenant, 0)
