"""What ends, how soon, and which alarms are due: trust anchors, revocation lists, the verifier's own certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.certificate import Certificate
from verifier.crypto.revocation import RevocationList, parse_crl
from verifier.ports import DEFAULT_TENANT, Clock
from verifier.ports_trust import Ending, EndingKind, ExpiryAlarm
from verifier.service.anchor_import import TrustedSet
from verifier.service.recorder import Recorder
from verifier.service.trust import TrustService

THRESHOLDS: Final = (90, 30, 7)
"""Days before the end at which somebody is told."""

OwnEndings = Callable[[], Sequence[Ending]]
"""Reads the verifier's own certificates; blocks."""


def threshold(remaining: timedelta, thresholds: Iterable[int] = THRESHOLDS) -> int | None:
    """The closest threshold that was passed, in days, or 0 when it has ended; None: none yet."""
    if remaining < timedelta(0):
        return 0
    return min((days for days in thresholds if remaining <= timedelta(days=days)), default=None)


def anchor_ending(anchor: Certificate, holder: str) -> Ending:
    """When a trust anchor ends."""
    return Ending(
        kind=EndingKind.ANCHOR,
        holder=holder,
        sha256=anchor.fingerprint.hex(),
        subject=anchor.subject_text,
        ends_at=anchor.not_after,
        thresholds=THRESHOLDS,
    )


def endings_of(one: TrustedSet) -> tuple[Ending, ...]:
    """Every anchor of a set, and every revocation list that says when the next is due.

    Of a list nothing is said beforehand: most are made for a few days.
    """
    anchors = (anchor_ending(anchor, one.name) for anchor in one.content.anchors)
    lists = (_list_ending(parse_crl(crl), one.name) for crl in one.content.crls)
    return (*anchors, *(ending for ending in lists if ending is not None))


def _list_ending(crl: RevocationList, holder: str) -> Ending | None:
    if crl.next_update is None:
        return None
    return Ending(
        kind=EndingKind.CRL,
        holder=holder,
        sha256=crl.sha256.hex(),
        subject=crl.issuer_text,
        ends_at=crl.next_update,
        thresholds=(),
    )


def alarms(tenant: str, endings: Iterable[Ending], now: datetime) -> tuple[ExpiryAlarm, ...]:
    """Those within a threshold, soonest to end first; those that have ended come last."""
    due = []
    for ending in endings:
        remaining = ending.ends_at - now
        days = threshold(remaining, ending.thresholds)
        if days is not None:
            due.append(ExpiryAlarm(tenant=tenant, ending=ending, remaining=remaining, threshold_days=days))
    return tuple(sorted(due, key=lambda alarm: (alarm.remaining < timedelta(0), abs(alarm.remaining))))


class ExpiryWatch:
    """Knows what ends, and tells of each threshold once, whichever replica notices first.

    Args:
        own: the verifier's own certificates, which belong to no tenant.
    """

    def __init__(self, *, trust: TrustService, recorder: Recorder, clock: Clock, own: OwnEndings) -> None:
        self._trust = trust
        self._recorder = recorder
        self._clock = clock
        self._own = own
        self._told: dict[str, frozenset[tuple[Ending, int]]] = {}

    async def endings(self, tenant: str) -> tuple[Ending, ...]:
        """Everything that ends of the tenant's sets; of the verifier itself it is told to the default tenant."""
        own = await asyncio.to_thread(self._own) if tenant == DEFAULT_TENANT else ()
        sets = await self._trust.sets(tenant)
        return tuple(ending for one in sets for ending in endings_of(one)) + tuple(own)

    async def alarms(self, tenant: str) -> tuple[ExpiryAlarm, ...]:
        """What is within a threshold now."""
        return alarms(tenant, await self.endings(tenant), self._clock.now())

    async def tell(self, tenant: str) -> tuple[ExpiryAlarm, ...]:
        """Raise the alarms that nobody raised before: log, audit log, event. Gives those."""
        due = {(one.ending, one.threshold_days): one for one in await self.alarms(tenant)}
        told = self._told.get(tenant, frozenset())
        new = [alarm for key, alarm in due.items() if key not in told]
        fresh = await self._recorder.expiring(new, self._clock.now())
        self._told[tenant] = frozenset(due)
        return fresh
