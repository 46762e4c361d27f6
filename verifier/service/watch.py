"""What is known, in memory, of verdicts that somebody asks for again and again; and who waits for another one.

A mark says which verdict an attester has. It is believed for two seconds after it was read, and not at all after
this process has changed the attester: so a change shows at once here, and within two seconds on every other replica.
As long as somebody asks for an attester, its mark is read again every second, many in one statement, and at once when
another replica tells of events.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from verifier.errors import VerifierFault
from verifier.ports import AttesterState, Clock, Lifecycle, holds_at
from verifier.ports_queries import MAX_BULK, Mark, QueryStore
from verifier.service.events import Change
from verifier.service.rate import RateLimitedError

LIFE: Final = timedelta(seconds=2)
"""How long another replica's change may go unnoticed."""
_POLL: Final = 1.0
_TOGETHER: Final = 0.1
"""Seconds between two times that marks are read: a storm of events is looked at in few pieces."""
_AFTER_FAULT: Final = 2.0
_ASKED: Final = timedelta(seconds=60)
"""How long an attester is watched after somebody asked for it."""
_MOST: Final = 5_000
"""Attesters watched at once; whoever asks for more of them asks the database."""
_RETRY: Final = 5.0
_log = structlog.get_logger("vtpm_attest.watch")


@dataclass(slots=True)
class _Watched:
    """One attester. `version` counts what this process changed, so that an older reading is not kept."""

    version: int = 0
    mark: Mark | None = None
    read_at: datetime | None = None
    asked_at: datetime | None = None
    waiters: set[asyncio.Event] = field(default_factory=set)

    def wake(self) -> None:
        for waiter in self.waiters:
            waiter.set()


class VerdictWatch:
    """Marks of attesters that are asked for, and whoever waits for them to change.

    Args:
        store: where marks are read.
        clock: for how old they are.
        max_waiting: how many may wait at once in this process.
    """

    def __init__(self, store: QueryStore, clock: Clock, max_waiting: int) -> None:
        self._store = store
        self._clock = clock
        self._max_waiting = max_waiting
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._woken = asyncio.Event()
        self.waiting = 0
        self.closed = False

    def mark(self, tenant: str, attester_id: str) -> Mark | None:
        """What is known without asking the database; None where that is nothing, or too old. From now on it is watched."""
        one = self._watched.get(attester_id)
        now = self._clock.now()
        if one is None:
            return None
        one.asked_at = now
        if one.mark is None or one.read_at is None or not timedelta(0) <= now - one.read_at < LIFE:
            return None
        return one.mark if one.mark.tenant == tenant else None

    def reading(self, attester_id: str) -> int:
        """Say that an attester is about to be read; what is returned belongs into `keep`."""
        one = self._watched.get(attester_id)
        if one is None:
            one = self._watched[attester_id] = _Watched()
            self._forget_oldest()
        self._watched.move_to_end(attester_id)
        return one.version

    def keep(self, state: AttesterState, version: int, read_at: datetime) -> None:
        """Keep what was read, unless this process has changed it meanwhile."""
        one = self._watched.get(state.attester.id)
        if one is not None and one.version == version:
            one.mark, one.read_at = mark_of(state), read_at

    def changed(self, change: Change) -> None:
        """This process has changed it: nothing that was read before counts, and whoever waits looks again."""
        one = self._watched.get(change.attester_id)
        if one is not None:
            one.version += 1
            one.mark = None
            one.wake()

    @contextmanager
    def waiter(self, attester_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the attester may be other than before; it may be set without reason.

        Raises:
            RateLimitedError: too many wait already.
        """
        if self.waiting >= self._max_waiting:
            raise RateLimitedError(_RETRY, "as many calls as allowed wait for a verdict already")
        self.reading(attester_id)
        one, event = self._watched[attester_id], asyncio.Event()
        one.waiters.add(event)
        self.waiting += 1
        try:
            yield event
        finally:
            self.waiting -= 1
            one.waiters.discard(event)

    def close(self) -> None:
        """Let everybody go who waits: the service ends."""
        self.closed = True
        for one in self._watched.values():
            one.wake()

    async def run(self) -> None:
        """Read again what is asked for, for ever."""
        while True:
            try:
                self._woken.clear()
                await self.refresh()
                await asyncio.sleep(_TOGETHER)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL - _TOGETHER):
                        await self._woken.wait()
            except Exception as error:  # noqa: BLE001 - a bug too: nobody waits for this task
                _log.error(
                    "watch.not-read", problem=str(error), exc_info=not isinstance(error, VerifierFault)
                )
                await asyncio.sleep(_AFTER_FAULT)

    def wake(self) -> None:
        """Another replica may have changed something: look now."""
        self._woken.set()

    async def refresh(self) -> None:
        """Read the marks of everything that is asked for or waited for, once."""
        now = self._clock.now()
        asked = [key for key, one in self._watched.items() if _is_asked(one, now)]
        for start in range(0, len(asked), MAX_BULK):
            await self._read(asked[start : start + MAX_BULK])

    async def _read(self, attester_ids: list[str]) -> None:
        now = self._clock.now()
        before = {key: self._watched[key].version for key in attester_ids if key in self._watched}
        for mark in await self._store.marks(attester_ids):
            one = self._watched.get(mark.attester_id)
            if one is None or one.version != before.get(mark.attester_id):
                continue
            if mark != one.mark:
                one.wake()
            one.mark, one.read_at = mark, now

    def _forget_oldest(self) -> None:
        if len(self._watched) <= _MOST:
            return
        oldest = next((key for key, one in self._watched.items() if not one.waiters), None)
        if oldest is not None:
            del self._watched[oldest]


def _is_asked(one: _Watched, now: datetime) -> bool:
    return bool(one.waiters) or (one.asked_at is not None and now - one.asked_at < _ASKED)


def lifecycle_of(mark: Mark, now: datetime) -> Lifecycle:
    """Where the attester stands at `now`, as `verdicts.lifecycle_at` has it."""
    if mark.lifecycle is not Lifecycle.ENROLLED or mark.judged_at is None or mark.valid_until is None:
        return mark.lifecycle
    return mark.lifecycle if holds_at(mark.judged_at, mark.valid_until, now) else Lifecycle.STALE


def mark_of(state: AttesterState) -> Mark:
    """The mark of an attester as `attester_state` reads it."""
    attester, latest = state.attester, state.latest
    return Mark(
        attester_id=attester.id,
        tenant=attester.tenant,
        lifecycle=attester.lifecycle,
        sequence=0 if latest is None else latest.sequence,
        tier=None if latest is None else latest.tier,
        judged_at=None if latest is None else latest.judged_at,
        valid_until=None if latest is None else latest.valid_until,
    )
