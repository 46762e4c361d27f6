"""When trust anchors expire: how soon, and which alarms are due. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.certificate import Certificate
from verifier.ports_trust import AnchorAlarm

THRESHOLDS: Final = (90, 30, 7)
"""Days before the end at which somebody is told."""


def threshold(remaining: timedelta) -> int | None:
    """The closest threshold that was passed, in days: 90, 30, 7, or 0 when it has expired; None: none yet."""
    if remaining < timedelta(0):
        return 0
    passed = [days for days in THRESHOLDS if remaining <= timedelta(days=days)]
    return min(passed, default=None)


def alarms(
    tenant: str, set_name: str, anchors: Iterable[Certificate], now: datetime
) -> tuple[AnchorAlarm, ...]:
    """Anchors within a threshold, soonest to expire first; those that have expired come last."""
    due = []
    for anchor in anchors:
        remaining = anchor.not_after - now
        days = threshold(remaining)
        if days is not None:
            due.append(
                AnchorAlarm(
                    tenant=tenant,
                    set_name=set_name,
                    sha256=anchor.fingerprint.hex(),
                    subject=anchor.subject_text,
                    not_after=anchor.not_after,
                    remaining=remaining,
                    threshold_days=days,
                )
            )
    return tuple(sorted(due, key=lambda alarm: (alarm.remaining < timedelta(0), abs(alarm.remaining))))


class AlarmMemory:
    """Which alarms were raised in this process, so that each threshold is told once."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], int] = {}

    def fresh(self, due: Iterable[AnchorAlarm]) -> tuple[AnchorAlarm, ...]:
        """Those not told before at their threshold; remembers them, and forgets what is due no longer."""
        due = tuple(due)
        before, self._told = self._told, {_key(alarm): alarm.threshold_days for alarm in due}
        return tuple(alarm for alarm in due if before.get(_key(alarm)) != alarm.threshold_days)


def _key(alarm: AnchorAlarm) -> tuple[str, str, str]:
    return alarm.tenant, alarm.set_name, alarm.sha256
