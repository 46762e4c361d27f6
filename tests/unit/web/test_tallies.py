"""Plain numbers come out as the library's own counters and histograms do."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client as prom
import pytest

from verifier.appraisal.stages import Stage
from verifier.web.tallies import Tally, Timings

BOUNDS = (0.00005, 0.001, 0.25, 1.0)
SECONDS = (0.0, 0.00005, 0.0009, 0.001, 0.0010001, 0.25, 0.9, 1.0, 1.0001, 60.0)


@pytest.fixture(autouse=True)
def _without_times_of_creation() -> Iterator[None]:
    prom.disable_created_metrics()
    yield
    prom.enable_created_metrics()


def rendered(collector: Tally | Timings) -> str:
    registry = prom.CollectorRegistry()
    registry.register(collector)
    return prom.generate_latest(registry).decode()


def test_timings_are_the_histogram_of_the_library() -> None:
    registry = prom.CollectorRegistry()
    theirs = prom.Histogram("x_seconds", "How long", ("stage",), registry=registry, buckets=BOUNDS)
    ours = Timings("x_seconds", "How long", BOUNDS, "stage", Stage)
    for stage in Stage:
        theirs.labels(stage)
    for number, seconds in enumerate(SECONDS):
        for stage in (Stage.LOOKUP, Stage.SIGN)[: 1 + number % 2]:
            theirs.labels(stage).observe(seconds)
            ours.add(stage, seconds)
    assert rendered(ours) == prom.generate_latest(registry).decode()


def test_a_tally_is_the_counter_of_the_library() -> None:
    registry = prom.CollectorRegistry()
    theirs = prom.Counter("x", "How many", ("operation", "status"), registry=registry)
    ours = Tally("x", "How many", ("operation", "status"), [("get_y", "2xx")])
    theirs.labels("get_y", "2xx")
    for labels in (("get_x", "2xx"), ("get_x", "5xx"), ("get_x", "2xx"), ('"odd"\n', "2xx")):
        theirs.labels(*labels).inc()
        ours.add(labels)
    assert rendered(ours) == prom.generate_latest(registry).decode()
    assert 'x_total{operation="get_y",status="2xx"} 0.0' in rendered(ours)
