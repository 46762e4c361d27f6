"""Prometheus metrics of one application, in a registry of its own; labels have few, known values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import prometheus_client as prom

from verifier.ports_trust import Ending, EndingKind, ExpiryAlarm, LostEndorsement
from verifier.service.expiry import THRESHOLDS
from verifier.service.inventory import Standing

METRICS_MEDIA_TYPE: Final = prom.CONTENT_TYPE_LATEST
_SHOWN: Final = 16
"""Hexadecimal digits of a fingerprint, as in the tables of `attest-verifier anchors`."""
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_INVENTORY: Final = {
    "age_seconds": "Seconds since an inventory's content was last known to be whole and current; infinite: never",
    "machines": "Machines that an inventory lists",
    "failing": "1 while an inventory cannot be read",
    "stale": "1 while nothing rests on what an inventory says, because that is too old",
    "warnings": "Kinds of things that cannot be read of an inventory while the rest can",
}


class Metrics:
    """Counts verdicts and refusals, times requests. Label children are made once: looking them up is slow."""

    def __init__(self, operations: Iterable[str], tiers: Iterable[str]) -> None:
        self._registry = prom.CollectorRegistry()
        verdicts = prom.Counter(
            "vtpm_attest_verdicts", "Verdicts recorded, by tier", ("status",), registry=self._registry
        )
        self._verdicts = {tier: verdicts.labels(tier) for tier in tiers}
        self._problems = prom.Counter(
            "vtpm_attest_problems",
            "Requests answered by a problem document, by code",
            ("code",),
            registry=self._registry,
        )
        self._days = prom.Gauge(
            "vtpm_attest_expiry_days",
            "Days until a trust anchor, revocation list or own certificate ends; negative: it has",
            ("kind", "holder", "sha256", "subject"),
            registry=self._registry,
        )
        self._alarms = prom.Gauge(
            "vtpm_attest_expiry_alarms",
            "How many of them end within 90, 30 or 7 days (each counted at the closest), or have ended (0)",
            ("kind", "within_days"),
            registry=self._registry,
        )
        self._lost = prom.Gauge(
            "vtpm_attest_endorsements_lost",
            "Enrolled machines whose EK certificate would not be accepted now, as last reviewed by this process",
            ("code",),
            registry=self._registry,
        )
        self._inventory = {
            what: prom.Gauge(f"vtpm_attest_inventory_{what}", text, ("source",), registry=self._registry)
            for what, text in _INVENTORY.items()
        }
        self._deliveries = prom.Gauge(
            "vtpm_attest_webhook_deliveries",
            "Events for webhooks that are kept, by status: pending is the queue",
            ("status",),
            registry=self._registry,
        )
        self._attempts = prom.Counter(
            "vtpm_attest_webhook_attempts",
            "Attempts to deliver of this process: delivered, failed (to be tried again), dead (given up)",
            ("outcome",),
            registry=self._registry,
        )
        for outcome in ("delivered", "failed", "dead"):
            self._attempts.labels(outcome)
        self._streams = prom.Gauge(
            "vtpm_attest_event_streams", "Streams of events open in this process", registry=self._registry
        )
        self._attempts_seen: Counter[str] = Counter()
        seconds = prom.Histogram(
            "vtpm_attest_request_seconds",
            "Time from the request's head to its reply",
            ("operation",),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._seconds = {name: seconds.labels(name) for name in (*operations, "unmatched")}

    def verdict(self, tier: str) -> None:
        """A verdict was recorded."""
        self._verdicts[tier].inc()

    def problem(self, code: str) -> None:
        """A request was refused."""
        self._problems.labels(code).inc()

    def request(self, operation: str, seconds: float) -> None:
        """A request was answered."""
        self._seconds[operation].observe(seconds)

    def endings(self, endings: Iterable[Ending], alarms: Iterable[ExpiryAlarm], now: datetime) -> None:
        """What ends, and which alarms stand. Replaces what was said before."""
        self._days.clear()
        for ending in endings:
            days = (ending.ends_at - now).total_seconds() / 86400
            labels = (ending.kind.value, ending.holder, ending.sha256[:_SHOWN], ending.subject)
            self._days.labels(*labels).set(round(days, 3))
        counts = Counter((alarm.ending.kind, alarm.threshold_days) for alarm in alarms)
        for kind in EndingKind:
            for threshold in (*THRESHOLDS, 0):
                self._alarms.labels(kind.value, threshold).set(counts[kind, threshold])

    def lost(self, lost: Iterable[LostEndorsement]) -> None:
        """Machines whose EK certificate no longer holds. Replaces what was said before."""
        counts = Counter(one.reason.value for one in lost)
        self._lost.clear()
        for code, count in counts.items():
            self._lost.labels(code).set(count)

    def inventory(self, sources: Iterable[Standing], now: datetime) -> None:
        """How the inventories stand. Replaces what was said before."""
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

    def events(self, deliveries: Mapping[str, int], attempts: Counter[str], streams: int) -> None:
        """How events fare on their way out; `attempts` counts from the start of the process."""
        for status, count in deliveries.items():
            self._deliveries.labels(status).set(count)
        for outcome, count in (attempts - self._attempts_seen).items():
            self._attempts.labels(outcome).inc(count)
        self._attempts_seen = attempts.copy()
        self._streams.set(streams)

    def render(self) -> bytes:
        """Prometheus text exposition."""
        return prom.generate_latest(self._registry)
