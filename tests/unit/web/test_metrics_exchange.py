"""Several workers, one page: nothing is lost, nothing counted twice, and no counter goes back."""

from __future__ import annotations

import os
import time

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from verifier.ports_announcements import AnnouncementState
from verifier.ports_observe import CacheState, QueueState, RetentionState
from verifier.web.acceptor import Door
from verifier.web.connections import Connections
from verifier.web.fleet_metrics import FleetMetrics
from verifier.web.metrics import Counted, Metrics
from verifier.web.metrics_exchange import Exchange, merged
from verifier.web.metrics_page import MetricsPage

HOSTILE = 'a"b\\c\nd {e} # TYPE x counter'


def page(count: int) -> bytes:
    disable_created_metrics()  # the verifier tells no times of creation
    registry = CollectorRegistry()
    Counter("plain", "Without labels", registry=registry).inc(count)
    Counter("told", "A help text with {braces} and # marks", ["who"], registry=registry).labels(HOSTILE).inc(
        count
    )
    Histogram("seconds", "Times", ["what"], registry=registry, buckets=(1, 2)).labels("x").observe(1.5)
    return generate_latest(registry)


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def counted() -> Counted:
    kept = Connections(13, 14)
    return Counted(
        queues=lambda: {"store-write": QueueState(waiting=1, taken=2, waited=3.0, batches=4)},
        caches=lambda: {"keys": CacheState(5, 6, 7)},
        attempts=lambda: {"dead": 8},
        streams=lambda: 9,
        announced=AnnouncementState(told=True, sent=10, received=11, losses=12),
        retention=RetentionState(verdicts=13, partitions=14, partition_bytes=15),
        rates=dict,
        connections=kept,
        door=Door(5, kept),
    )


def test_every_sample_is_there_once_under_its_worker():
    text = merged({"0": page(3), "1": page(4)})
    found = samples(text)
    assert (found["plain_total", "0"], found["plain_total", "1"]) == (3, 4)
    assert (found["told_total", HOSTILE, "0"], found["told_total", HOSTILE, "1"]) == (3, 4)
    assert found["seconds_bucket", "2.0", "x", "1"] == 1
    assert len(found) == 2 * len(samples(page(1)))
    heads = [line for line in text.decode().splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads)) == 3


def test_a_worker_that_is_gone_is_told_of_no_more(tmp_path):
    first, second = Exchange(tmp_path, 0), Exchange(tmp_path, 1)
    first.put(page(1))
    second.put(page(2))
    second.put(page(3))
    assert second.all() == {"0": page(1), "1": page(3)}
    old = time.time() - 3600
    os.utime(tmp_path / "0.prom", (old, old))
    assert second.all() == {"1": page(3)}


async def test_each_worker_tells_of_all_and_never_less_than_before(tmp_path):
    metrics = [Metrics(["get_x"], ["affirming"], "1", counted()) for _ in range(2)]
    pages = [MetricsPage(one, 0.0, Exchange(tmp_path, number)) for number, one in enumerate(metrics)]

    async def refresh(_: FleetMetrics) -> None:
        """Nothing to ask."""

    last = {}
    for turn in range(6):
        metrics[turn % 2].request("get_x", 200, 0.01)
        metrics[1].request("get_x", 200, 0.01)
        found = samples(await pages[turn % 2].text("default", refresh, whole=True))
        now = {key: value for key, value in found.items() if key[0] == "vtpm_attest_responses_total"}
        assert all(value >= last.get(key, 0) for key, value in now.items())
        assert now.keys() >= last.keys()
        last = now
    assert last["vtpm_attest_responses_total", "get_x", "2xx", "0"] == 3
    assert last["vtpm_attest_responses_total", "get_x", "2xx", "1"] == 9
    assert found["vtpm_attest_webhook_attempts_total", "dead", "0"] == 8
    assert found["vtpm_attest_event_streams", "1"] == 9
    assert ("vtpm_attest_store_up",) in found  # what all would say the same of has no worker


async def test_a_directory_that_is_gone_leaves_the_own_counters(tmp_path):
    metrics = Metrics(["get_x"], ["affirming"], "1", counted())
    page = MetricsPage(metrics, 0.0, Exchange(tmp_path / "gone", 0))
    metrics.request("get_x", 200, 0.01)

    async def refresh(_: FleetMetrics) -> None:
        """Nothing to ask."""

    assert (
        samples(await page.text("default", refresh, whole=True))[
            "vtpm_attest_responses_total", "get_x", "2xx"
        ]
        == 1
    )
