"""What is kept for a time and no longer: history, evidence, events, and the credentials and nonces that have expired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from verifier.ports import Clock, Store
from verifier.ports_events import Outbox
from verifier.ports_observe import RetentionState
from verifier.service.recorder import Recorder

_AT_LEAST: Final = timedelta(days=1)
"""Of history: no verdict that is being recorded is already too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """For how long. Latest verdicts and their evidence stay whatever their age."""

    history: timedelta
    evidence: timedelta
    events: timedelta


class Retention:
    """Keeps the database in bounds; every replica does, and those that come second find nothing to do."""

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
        await self._recorder.purge(self._clock.now())

    async def evidence(self) -> None:
        """Drop evidence that newer verdicts have replaced."""
        self.state.blobs += await self._recorder.purge_evidence(self._clock.now(), self._rules.evidence)

    async def history(self) -> None:
        """Make room for the verdicts to come, and drop old ones."""
        now = self._clock.now()
        await self._recorder.prepare_history(now)
        purged = await self._recorder.purge_history(now - max(self._rules.history, _AT_LEAST))
        self.state.verdicts += purged.rows
        self.state.partitions += purged.partitions
        self.state.partition_bytes += purged.size
        self.state.judgements += purged.judgements
        begins: datetime | None = await self._store.history_begins()
        self.state.history_begins = begins

    async def events(self) -> None:
        """Drop events that can be read again no longer."""
        self.state.events += await self._outbox.purge_events(self._clock.now() - self._rules.events)
