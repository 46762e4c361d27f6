"""What is kept for a time and no longer: history, evidence, events, and the credentials and nonces that have expired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from verifier.errors import VerifierFault
from verifier.ports import Clock, Store
from verifier.ports_events import Outbox
from verifier.ports_observe import RetentionState
from verifier.service.recorder import Recorder

_AT_LEAST: Final = timedelta(days=1)
"""Of history: no verdict that is being recorded is already too old."""
_SKEW: Final = timedelta(hours=1)
"""So much may this machine's clock be ahead of the database's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """For how long. Latest verdicts and their evidence stay whatever their age."""

    history: timedelta
    evidence: timedelta
    events: timedelta


class Retention:
    """Keeps the database in bounds; every replica does, and those that come second find nothing to do.

    Nothing is dropped by a clock that is ahead of the database's own: one replica's wrong clock would be the end of what
    all of them keep. SQLite has no clock but this machine's.
    """

    def __init__(
        self, *, store: Store, outbox: Outbox, recorder: Recorder, clock: Clock, rules: RetentionRules
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._recorder = recorder
        self._clock = clock
        self._rules = rules
        self.state = RetentionState()

    async def expired(self) -> None:
        """Drop what nobody can use any more."""
        await self._recorder.purge(await self._now())

    async def evidence(self) -> None:
        """Drop evidence that newer verdicts have replaced."""
        now = await self._now()
        self.state.blobs += await self._recorder.purge_evidence(now, self._rules.evidence)

    async def history(self) -> None:
        """Make room for the verdicts to come, and drop old ones."""
        now = await self._now()
        await self._recorder.prepare_history(now)
        before = now - max(self._rules.history, _AT_LEAST)
        purged = await self._recorder.purge_history(before)
        self.state.verdicts += purged.rows
        self.state.partitions += purged.partitions
        self.state.partition_bytes += purged.size
        self.state.judgements += purged.judgements
        self.state.leaves += await self._recorder.purge_log(before, now)
        self.state.history_begins = await self._store.history_begins()

    async def events(self) -> None:
        """Drop events that can be read again no longer."""
        now = await self._now()
        self.state.events += await self._outbox.purge_events(now - self._rules.events)

    async def _now(self) -> datetime:
        now = self._clock.now()
        ahead = await self._store.ahead_of_database(now)
        if ahead > _SKEW:
            raise VerifierFault(
                f"this machine's clock is {ahead} ahead of the database's, so nothing is dropped: set it right"
            )
        return now
