"""Prometheus metrics of one application, in a registry of its own; labels have few, known values (docs/metrics.md)."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import prometheus_client as prom
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from verifier.appraisal.stages import Stage
from verifier.ports_announcements import AnnouncementState
from verifier.ports_observe import CacheState, Observation, QueueState, RetentionState
from verifier.web.acceptor import Door
from verifier.web.connections import Connections
from verifier.web.tallies import Tally, Timings

METRICS_MEDIA_TYPE: Final = prom.CONTENT_TYPE_LATEST
UNMATCHED: Final = "unmatched"
"""Operation of a request that no route answers."""
_PREFIX: Final = "vtpm_attest_"
_OUTCOMES: Final = ("delivered", "failed", "dead")
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STAGE_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)

_CLASSES: Final = tuple(f"{number}xx" for number in range(10))
"""Of status codes, by their first digit."""
_GIVEN_UP: Final = ("handshake-slow", "handshake-broken", "head", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What others count, from the start of the process; asked whenever the metrics are."""

    queues: Callable[[], Mapping[str, QueueState]]
    caches: Callable[[], Mapping[str, CacheState]]
    attempts: Callable[[], Mapping[str, int]]
    """To deliver to webhooks, by outcome."""
    streams: Callable[[], int]
    """Of events, open now."""
    announced: AnnouncementState
    retention: RetentionState
    connections: Connections
    rates: Callable[[], Mapping[str, int]]
    """Calls that were turned away, by limit."""
    door: Door


class Metrics:
    """Counts and times requests, verdicts and what is behind them.

    What somebody else counts (queues, caches) is read when the metrics are.
    """

    def __init__(
        self,
        operations: Iterable[str],
        tiers: Iterable[str],
        version: str,
        counted: Counted,
    ) -> None:
        self._registry = prom.CollectorRegistry()
        self._registry.register(_Pulled(counted))
        prom.ProcessCollector(registry=self._registry)
        self._build(version)
        self._verdicts = self._tally(
            "verdicts", "Verdicts recorded, by tier", ("status",), ((tier,) for tier in tiers)
        )
        self._reasons = self._tally(
            "verdict_reasons",
            "Verdicts that are not affirming, by tier and family of reasons (first word of the code)",
            ("status", "family"),
        )
        self._problems = self._tally(
            "problems", "Requests answered by a problem document, by code", ("code",)
        )
        self._responses = self._tally(
            "responses", "Replies, by operation and class of status (2xx to 5xx)", ("operation", "status")
        )
        self._seconds = self._timings(
            "request_seconds",
            "Time from the request's head to its reply",
            _REQUEST_BUCKETS,
            "operation",
            (*operations, UNMATCHED),
        )
        self._stages = self._timings(
            "stage_seconds",
            "Time in one stage of an attestation that led to a verdict",
            _STAGE_BUCKETS,
            "stage",
            Stage,
        )

    def verdict(self, observation: Observation, status: str, ended: int) -> None:
        """A verdict was recorded: its tier, why it is not better, and where the time went until `ended`."""
        self._verdicts.add((status,))
        for family in observation.families:
            self._reasons.add((status, family))
        for stage, nanoseconds in observation.spent(ended).items():
            self._stages.add(stage, nanoseconds / 1e9)

    def problem(self, code: str) -> None:
        """A request was refused."""
        self._problems.add((code,))

    def request(self, operation: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._responses.add((operation, _CLASSES[status // 100]))
        self._seconds.add(operation, seconds)

    def render_own(self) -> bytes:
        """What this process counts, as Prometheus text exposition."""
        return prom.generate_latest(self._registry)

    def _build(self, version: str) -> None:
        text = "1; the version of the verifier and of Python"
        build = prom.Gauge(_PREFIX + "build_info", text, ("version", "python"), registry=self._registry)
        build.labels(version, platform.python_version()).set(1)

    def _tally(
        self, name: str, text: str, labels: Sequence[str], known: Iterable[tuple[str, ...]] = ()
    ) -> Tally:
        made = Tally(_PREFIX + name, text, labels, known)
        self._registry.register(made)
        return made

    def _timings(
        self, name: str, text: str, bounds: Sequence[float], label: str, values: Iterable[str]
    ) -> Timings:
        made = Timings(_PREFIX + name, text, bounds, label, values)
        self._registry.register(made)
        return made


class _Pulled(Collector):
    """What others count, read when the metrics are."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the registry would ask for everything to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of it as it is now."""
        yield from self._queues()
        yield from self._caches()
        attempts = CounterMetricFamily(
            _PREFIX + "webhook_attempts",
            "Attempts to deliver of this process: delivered, failed (to be tried again), dead (given up)",
            labels=["outcome"],
        )
        found = self._counted.attempts()
        for outcome in _OUTCOMES:
            attempts.add_metric([outcome], found.get(outcome, 0))
        streams = GaugeMetricFamily(
            _PREFIX + "event_streams", "Streams of events open in this process", value=self._counted.streams()
        )
        yield from (attempts, streams)
        yield from _announcements(self._counted.announced)
        yield from _retention(self._counted.retention)
        limited = CounterMetricFamily(
            _PREFIX + "rate_limited",
            "Calls turned away because there were too many, by limit",
            labels=["limit"],
        )
        for name, count in self._counted.rates().items():
            limited.add_metric([name], count)
        yield limited
        yield from _connections(self._counted.connections, self._counted.door)

    def _queues(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(_PREFIX + "queue_waiting", "Items in a queue", labels=["queue"])
        waits = SummaryMetricFamily(
            _PREFIX + "queue_wait_seconds", "How long items waited for their turn", labels=["queue"]
        )
        batches = CounterMetricFamily(
            _PREFIX + "queue_batches", "Batches taken from a queue at once", labels=["queue"]
        )
        for name, queue in self._counted.queues().items():
            waiting.add_metric([name], queue.waiting)
            waits.add_metric([name], count_value=queue.taken, sum_value=queue.waited)
            batches.add_metric([name], queue.batches)
        yield from (waiting, waits, batches)

    def _caches(self) -> Iterator[Metric]:
        hits = CounterMetricFamily(_PREFIX + "cache_hits", "Answers found in a cache", labels=["cache"])
        misses = CounterMetricFamily(_PREFIX + "cache_misses", "Answers worked out", labels=["cache"])
        entries = GaugeMetricFamily(_PREFIX + "cache_entries", "Entries of a cache", labels=["cache"])
        for name, cache in self._counted.caches().items():
            hits.add_metric([name], cache.hits)
            misses.add_metric([name], cache.misses)
            entries.add_metric([name], cache.entries)
        yield from (hits, misses, entries)


def _announcements(state: AnnouncementState) -> Iterator[Metric]:
    """How this process hears of the changes of others."""
    yield GaugeMetricFamily(
        _PREFIX + "replicas_told",
        "1 while other replicas' changes are told to this process; 0: it looks for them by itself",
        value=state.told,
    )
    counts = {"sent": state.sent, "received": state.received, "lost": state.losses}
    told = CounterMetricFamily(
        _PREFIX + "announcements",
        "Changes told to other replicas (sent) and by them (received), and connections for it that went away (lost)",
        labels=["outcome"],
    )
    for outcome, count in counts.items():
        told.add_metric([outcome], count)
    yield told


def _retention(state: RetentionState) -> Iterator[Metric]:
    """What this process has dropped."""
    dropped = CounterMetricFamily(
        _PREFIX + "dropped",
        "What this process has dropped because it was kept long enough; verdicts of whole partitions are estimated",
        labels=["kind"],
    )
    counts = {
        "verdicts": state.verdicts,
        "partitions": state.partitions,
        "judgements": state.judgements,
        "blobs": state.blobs,
        "events": state.events,
        "leaves": state.leaves,
    }
    for kind, count in counts.items():
        dropped.add_metric([kind], count)
    yield dropped
    yield CounterMetricFamily(
        _PREFIX + "dropped_partition_bytes",
        "Disk space of the partitions that this process has dropped",
        value=state.partition_bytes,
    )
    begins = state.history_begins
    yield GaugeMetricFamily(
        _PREFIX + "history_begins_timestamp_seconds",
        "When history begins, as this process saw last; NaN: there is none, or it has not looked yet",
        value=math.nan if begins is None else begins.timestamp(),
    )


def _connections(kept: Connections, door: Door) -> Iterator[Metric]:
    yield GaugeMetricFamily(_PREFIX + "connections", "Connections open to this process", value=len(kept))
    yield CounterMetricFamily(
        _PREFIX + "connections_shed", "Idle connections that were closed to make room", value=kept.shed
    )
    yield GaugeMetricFamily(
        _PREFIX + "connections_waiting",
        "Connections that the kernel holds for this process",
        value=door.waiting,
    )
    yield GaugeMetricFamily(_PREFIX + "handshakes", "TLS handshakes under way", value=door.handshakes)
    given_up = CounterMetricFamily(
        _PREFIX + "connections_given_up",
        "Connections given up for what the client did not do in time, or not well (handshake-broken)",
        labels=["what"],
    )
    found = kept.slow + door.failed
    for what in _GIVEN_UP:
        given_up.add_metric([what], found[what])
    yield given_up
