"""What is known of a vCenter's machines from one session to the next: their signals, and who must be read anew."""

from __future__ import annotations

from collections.abc import Iterable

from verifier.inventory.vsphere.session import Update


class Mirror:
    """Signals per machine. A new session begins with a full listing, which is compared with what was known."""

    def __init__(self) -> None:
        self._signals: dict[str, dict[str, object]] = {}
        self._dirty: dict[str, None] = {}

    @property
    def dirty(self) -> tuple[str, ...]:
        """Machines whose details are not those of their signals, in the order they changed."""
        return tuple(self._dirty)

    @property
    def known(self) -> frozenset[str]:
        """Every machine that was told of and is not gone."""
        return frozenset(self._signals)

    def take(self, updates: Iterable[Update], *, listing: bool) -> tuple[str, ...]:
        """Take over what a session told; `listing`: it is all there is. Returns the machines that are gone."""
        told: set[str] = set()
        gone: list[str] = []
        for update in updates:
            told.add(update.moid)
            if update.gone:
                gone.append(update.moid)
                told.discard(update.moid)
                continue
            known = self._signals.get(update.moid)
            signals = dict(update.signals) if update.entered else {**(known or {}), **update.signals}
            if signals != known:
                self._dirty[update.moid] = None
            self._signals[update.moid] = signals
        if listing:
            gone += [moid for moid in self._signals if moid not in told]
        for moid in gone:
            self._signals.pop(moid, None)
            self._dirty.pop(moid, None)
        return tuple(dict.fromkeys(gone))

    def read(self, moids: Iterable[str]) -> None:
        """The details of these were read."""
        for moid in moids:
            self._dirty.pop(moid, None)

    def read_all_again(self) -> None:
        """Take no machine's details for granted."""
        self._dirty = dict.fromkeys(self._signals)
