"""Gauges of one tenant's fleet: what the database, the trust store and the inventories say, the same from every worker."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import prometheus_client as prom

from verifier.ports_observe import OpenCounts
from verifier.ports_rejudge import RejudgingRecord
from verifier.ports_trust import Ending, EndingKind, ExpiryAlarm, LostEndorsement
from verifier.service.expiry import THRESHOLDS
from verifier.service.inventory import Standing
from verifier.web.log_metrics import LogGauges

_PREFIX: Final = "vtpm_attest_"
_SHOWN: Final = 16
"""Hexadecimal digits of a fingerprint, as in the tables of `attest-verifier anchors`."""
_INVENTORY: Final = {
    "age_seconds": "Seconds since an inventory's content was last known to be whole and current; infinite: never",
    "machines": "Machines that an inventory lists",
    "failing": "1 while an inventory cannot be read",
    "stale": "1 while nothing rests on what an inventory says, because that is too old",
    "warnings": "Kinds of things that cannot be read of an inventory while the rest can",
}


class FleetMetrics:
    """Each method replaces what was said before.

    Args:
        whole: also what is of all tenants together.
    """

    def __init__(self, *, whole: bool) -> None:
        self._registry = prom.CollectorRegistry()
        self.log = LogGauges(self._registry) if whole else None
        self._store_up = self._gauge("store_up", "1 while the database answers the questions of the metrics")
        self._attesters = self._gauge(
            "attesters",
            "Attesters by tier of their current verdict, or by lifecycle: stale, revoked",
            "status",
        )
        self._pending = self._gauge(
            "pending_enrollments", "Enrolments that wait for a person; NaN: the database did not say"
        )
        self._incidents = self._gauge(
            "open_incidents", "Clones and rollbacks that nobody has resolved, by kind", "kind"
        )
        self._rejudging = self._gauge(
            "rejudging_share",
            "Of the fleet that is judged again in the background after a change of a policy, the share already looked at",
            "policy",
        )
        self._expiry = self._gauge(
            "expiry_seconds",
            "Seconds until a trust anchor, revocation list or own certificate ends; negative: it has",
            "kind",
            "holder",
            "sha256",
            "subject",
        )
        self._alarms = self._gauge(
            "expiry_alarms",
            "How many of them end within 90, 30 or 7 days (each counted at the closest), or have ended (0)",
            "kind",
            "within_days",
        )
        self._lost = self._gauge(
            "endorsements_lost",
            "Enrolled machines whose certificate, of EK or AK, would not be accepted now, as last reviewed by this process",
            "code",
        )
        self._inventory = {
            what: self._gauge(f"inventory_{what}", text, "source") for what, text in _INVENTORY.items()
        }
        self._deliveries = self._gauge(
            "webhook_deliveries",
            "Events for webhooks that are kept, by status: pending is the queue",
            "status",
        )

    def fleet(
        self,
        attesters: Mapping[str, int] | None,
        waiting: OpenCounts | None,
        rejudgings: Sequence[RejudgingRecord],
    ) -> None:
        """How the fleet stands; None: the store did not say, and nothing old is told in its place."""
        self._store_up.set(attesters is not None)
        self._attesters.clear()
        self._incidents.clear()
        self._rejudging.clear()
        self._pending.set(math.nan if waiting is None else waiting.pending_enrollments)
        for status, count in (attesters or {}).items():
            self._attesters.labels(status).set(count)
        for kind, count in ({} if waiting is None else waiting.incidents).items():
            self._incidents.labels(kind).set(count)
        for one in rejudgings:
            self._rejudging.labels(one.policy_id).set(one.share(sum((attesters or {}).values())))

    def endings(self, endings: Iterable[Ending], alarms: Iterable[ExpiryAlarm], now: datetime) -> None:
        """What ends, and which alarms stand."""
        self._expiry.clear()
        for ending in endings:
            left = (ending.ends_at - now).total_seconds()
            labels = (ending.kind.value, ending.holder, ending.sha256[:_SHOWN], ending.subject)
            self._expiry.labels(*labels).set(round(left))
        counts = Counter((alarm.ending.kind, alarm.threshold_days) for alarm in alarms)
        for kind in EndingKind:
            for threshold in (*THRESHOLDS, 0):
                self._alarms.labels(kind.value, threshold).set(counts[kind, threshold])

    def lost(self, lost: Iterable[LostEndorsement]) -> None:
        """Machines whose EK certificate no longer holds."""
        counts = Counter(one.reason.value for one in lost)
        self._lost.clear()
        for code, count in counts.items():
            self._lost.labels(code).set(count)

    def inventory(self, sources: Iterable[Standing], now: datetime) -> None:
        """How the inventories stand."""
        for source in sources:
            status = source.status
            age = math.inf if status.synced_at is None else (now - status.synced_at).total_seconds()
            told = {
                "age_seconds": age,
                "machines": status.machines,
                "failing": status.problem is not None,
                "stale": source.stale,
                "warnings": len(status.warnings),
            }
            for what, value in told.items():
                self._inventory[what].labels(status.name).set(value)

    def deliveries(self, counts: Mapping[str, int]) -> None:
        """Events on their way to webhooks."""
        for status, count in counts.items():
            self._deliveries.labels(status).set(count)

    def render(self) -> bytes:
        """As Prometheus text exposition."""
        return prom.generate_latest(self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> prom.Gauge:
        return prom.Gauge(_PREFIX + name, text, labels, registry=self._registry)
