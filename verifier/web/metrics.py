"""Prometheus metrics of one application, in a registry of its own; labels have few, known values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

METRICS_MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Counts verdicts and refusals, times requests. Label children are made once: looking them up is slow."""

    def __init__(self, operations: Iterable[str], tiers: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        verdicts = Counter(
            "vtpm_attest_verdicts", "Verdicts recorded, by tier", ("status",), registry=self._registry
        )
        self._verdicts = {tier: verdicts.labels(tier) for tier in tiers}
        self._problems = Counter(
            "vtpm_attest_problems",
            "Requests answered by a problem document, by code",
            ("code",),
            registry=self._registry,
        )
        seconds = Histogram(
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

    def render(self) -> bytes:
        """Prometheus text exposition."""
        return generate_latest(self._registry)
