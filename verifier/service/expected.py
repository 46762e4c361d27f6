"""What each attester will most likely be judged by when it comes next: what its last evidence left, in this process.

An entry is an expectation, not knowledge: another replica may have heard the attester since, or revoked it, or given it
other labels. So nothing follows from it but a verdict that the store takes only if it finds the attester to be exactly
this (`Recording.judged_by`), in the transaction that spends the nonce; else it is read, and judged by that.
"""

from __future__ import annotations

from collections import OrderedDict

from verifier.ports import AttesterState
from verifier.ports_observe import CacheState


class ExpectedStates:
    """Bounded; whoever came longest ago goes first. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._states: OrderedDict[str, AttesterState] = OrderedDict()
        self._hits = self._misses = 0

    def take(self, attester_id: str) -> AttesterState | None:
        """What is expected, once: who judges by it either confirms it or has to read."""
        state = self._states.pop(attester_id, None)
        if state is None:
            self._misses += 1
        else:
            self._hits += 1
        return state

    def keep(self, state: AttesterState | None) -> None:
        """To be expected of its attester from now on."""
        if state is None:
            return
        self._states[state.attester.id] = state
        if len(self._states) > self._most:
            self._states.popitem(last=False)

    @property
    def state(self) -> CacheState:
        """Hits and misses so far."""
        return CacheState(self._hits, self._misses, len(self._states))
