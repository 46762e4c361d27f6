"""What is counted and timed with every request, as plain numbers; made metrics of when somebody asks for them.

The library's own children take a lock and five calls for each bucket, 10 us an attestation. These take none: only the
event loop counts, and who renders in a thread at worst misses the last request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally(Collector):
    """A counter by labels. What was never counted is not told, but for what is `known` from the start."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], known: Iterable[tuple[str, ...]] = ()
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts = dict.fromkeys(known, 0)

    def add(self, labels: tuple[str, ...]) -> None:
        """One more with these values."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """All of them as they are now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in tuple(self._counts.items()):
            family.add_metric(labels, count)
        yield family


class _Times:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Timings(Collector):
    """A histogram of seconds for each value of one label; all values are known from the start."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], label: str, values: Iterable[str]
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = bounds
        """Upper ones, included in their bucket, ascending; what is longer than the last is counted too."""
        self._edges = [*map(floatToGoString, bounds), "+Inf"]
        self._times = {value: _Times(len(self._edges)) for value in values}

    def add(self, value: str, seconds: float) -> None:
        """It took this long."""
        times = self._times[value]
        times.counts[bisect_left(self._bounds, seconds)] += 1
        times.total += seconds

    def collect(self) -> Iterator[Metric]:
        """All of them as they are now."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        for value, times in self._times.items():
            counts = [float(count) for count in accumulate(times.counts)]
            family.add_metric([value], list(zip(self._edges, counts, strict=True)), times.total)
        yield family
