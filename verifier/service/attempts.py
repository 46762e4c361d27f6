"""How often something may go wrong before it has to wait."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from verifier.errors import RefusedError
from verifier.reasons import Reason

_MAX_KEYS: Final = 10_000
_WINDOW: Final = timedelta(minutes=1)


class TooManyAttemptsError(RefusedError):
    """Come back after `retry_after`."""

    def __init__(self, retry_after: timedelta, what: str = "too many failed attempts") -> None:
        seconds = max(1, round(retry_after.total_seconds()))
        super().__init__(Reason.RATE_LIMITED, f"{what}; try again in {seconds} s")
        self.retry_after = seconds


class AttemptLimiter:
    """Counts failures per key in a window of one minute; memory is bounded by forgetting the oldest key."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._failures: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def admit(self, key: str, now: datetime) -> None:
        """Raises `TooManyAttemptsError` when `key` has used up its failures."""
        started, count = self._failures.get(key, (now, 0))
        elapsed = now - started
        if count >= self._allowed and timedelta(0) <= elapsed < _WINDOW:
            raise TooManyAttemptsError(_WINDOW - elapsed)

    def failed(self, key: str, now: datetime) -> None:
        """Count one failure."""
        started, count = self._failures.pop(key, (now, 0))
        if not timedelta(0) <= now - started < _WINDOW:
            started, count = now, 0
        self._failures[key] = (started, count + 1)
        if len(self._failures) > _MAX_KEYS:
            self._failures.popitem(last=False)
