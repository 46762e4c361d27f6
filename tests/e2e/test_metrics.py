"""What Prometheus reads: all of it documented, all of it bounded, and true."""

from __future__ import annotations

import math
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.harness import Guest, Here, boot_log, running, settings_for
from verifier.appraisal.stages import Stage
from verifier.errors import StoreUnavailable
from verifier.ports import Scope

TYPE = re.compile(r"^# TYPE (\S+) (\w+)$", re.MULTILINE)
DOCUMENTED = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram|summary) \|([^|]*)\|", re.MULTILINE)


async def scrape(verifier) -> str:
    answer = await verifier.get("/metrics", Scope.DASHBOARD)
    assert answer.status == 200
    return answer.content.decode()


async def samples(verifier) -> dict[tuple[str, ...], float]:
    """Name and label values, in the order of the labels' names, to value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(await scrape(verifier))
        for sample in family.samples
    }


async def test_what_is_exported_is_documented_and_what_is_documented_is_exported(verifier):
    guest = await verifier.guest()
    await guest.attest()
    await verifier.get("/nowhere")
    text = await scrape(verifier)
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in DOCUMENTED.findall((ROOT / "docs/metrics.md").read_text())
    }
    assert dict(TYPE.findall(text)) == {name: kind for name, (kind, _) in documented.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            base = re.sub(r"_(bucket|sum|count)$", "", sample.name)
            name = sample.name if sample.name in documented else base
            assert set(sample.labels) - {"le"} == documented[name][1], sample.name


async def test_no_client_can_add_a_series_of_its_own_making(verifier):
    """Paths, methods, headers, bodies: whatever strangers send lands in labels that were there before."""
    guest = await verifier.guest()
    await guest.attest()
    operator = await verifier.token(Scope.OPERATOR)
    hostile = ["/%00%ff", '/v1/attesters/\'"\\}{le="1"}', "/metrics/../x\u2028y", "/" + "a" * 4000]
    for _ in range(2):
        for path in hostile:
            await verifier.call("GET", path, token=operator)
            await verifier.call("GET", f"/v1/attesters/{path[1:60]}/verdict", token=operator)
        for method in ("PROPFIND", "X" * 60, "get"):
            await verifier.call(method, "/v1/status", token=operator)
            await verifier.call(method, "/no/such", token=operator)
        await verifier.post("/v1/challenges", {"attester_id": 'x"} 1\n# TYPE own counter'})
        await guest.attest(identity={"hostname": 'evil"} 1', "smbios_uuid": "\n"})
    await scrape(verifier)
    first = set(await samples(verifier))
    for number in range(40):
        await verifier.call("GET", f"/v1/attesters/{number}/verdict", token=operator)
        await verifier.call(("GET", "PROPFIND")[number % 2], f"/path-{number}", token=operator)
        await verifier.call(
            "GET", "/v1/status", headers={"X-Request-Id": f"a-request-{number}"}, token=operator
        )
    assert set(await samples(verifier)) == first
    text = await scrape(verifier)
    for told in (guest.attester_id, "evil", "a-request", operator, "path-1", "PROPFIND", "127.0.0.1"):
        assert told not in text


async def test_where_the_time_of_an_attestation_goes(verifier):
    guest = await verifier.guest()
    await guest.attest()
    await guest.attest()
    found = await samples(verifier)
    for stage in Stage:
        assert found["vtpm_attest_stage_seconds_count", stage.value] == (0 if stage is Stage.IMA else 2)
    spent = sum(found["vtpm_attest_stage_seconds_sum", stage.value] for stage in Stage)
    assert 0 < spent < found["vtpm_attest_request_seconds_sum", "post_v1_attestations"]
    assert found["vtpm_attest_responses_total", "post_v1_attestations", "2xx"] == 2


async def test_verdicts_by_tier_and_family_of_reasons(verifier):
    good = await verifier.guest(1)
    await good.attest()
    bad = await verifier.guest(2, log=boot_log(secure=False))
    await bad.attest()
    refused = await good.attest(await good.challenge(), signature="AAAA")
    assert refused.status == 400
    found = await samples(verifier)
    assert found["vtpm_attest_verdicts_total", "affirming"] == 1
    assert found["vtpm_attest_verdicts_total", "contraindicated"] == 1
    assert found["vtpm_attest_verdict_reasons_total", "secure", "contraindicated"] == 1
    assert not [key for key in found if key[0] == "vtpm_attest_verdict_reasons_total" and "affirming" in key]
    assert found["vtpm_attest_responses_total", "post_v1_attestations", "4xx"] == 1


async def test_the_fleet_stale_ones_and_what_waits_for_a_person(verifier, clock):
    guest = await verifier.guest(1)
    copy = guest.copied(smbios_uuid="uuid-of-the-copy")
    for one in (guest, guest, copy, guest):
        await one.attest()
    found = await samples(verifier)
    assert found["vtpm_attest_open_incidents", "clone-proven"] == 1
    assert found["vtpm_attest_open_incidents", "rollback"] == 0
    assert found["vtpm_attest_pending_enrollments",] == 0
    clock.advance(days=1)
    found = await samples(verifier)
    assert found["vtpm_attest_attesters", "stale"] == 1
    assert found["vtpm_attest_attesters", "contraindicated"] == 0


async def test_enrolments_that_wait_are_counted(tmp_path, clock):
    settings = settings_for(tmp_path, ENROLLMENT_METHODS="certificate,approve")
    async with running(settings, clock) as verifier:
        guest = Guest.booted(verifier)
        begun = await verifier.post("/v1/enrollments", guest.enrollment(None))
        assert (await guest.activate(begun.json)).json["status"] == "pending"
        assert (await samples(verifier))["vtpm_attest_pending_enrollments",] == 1
        clock.advance(days=30)
        assert (await samples(verifier))["vtpm_attest_pending_enrollments",] == 0


async def test_queues_and_caches_are_counted(tmp_path, clock):
    async with running(settings_for(tmp_path), clock, Here()) as verifier:
        guest = await verifier.guest()
        before = await samples(verifier)
        for _ in range(3):
            await guest.attest()
        found = await samples(verifier)

        def grown(name: str, label: str) -> float:
            return found[f"vtpm_attest_{name}", label] - before[f"vtpm_attest_{name}", label]

        assert grown("queue_wait_seconds_count", "store-write") == 3
        assert grown("queue_wait_seconds_sum", "store-write") > 0
        assert grown("queue_batches_total", "store-write") == 3
        assert found["vtpm_attest_queue_waiting", "store-write"] == 0
        for cache, hits in (("outcomes", 2), ("boot-outcomes", 0), ("evaluations", 0)):
            assert grown("cache_misses_total", cache) == 1, cache
            assert grown("cache_hits_total", cache) == hits, cache
        assert grown("cache_hits_total", "policies") >= 2
        assert grown("cache_hits_total", "keys") >= 2
        assert found["vtpm_attest_queue_wait_seconds_count", "workers"] == 0


@pytest.mark.parametrize("question", ["status", "open_counts"])
async def test_counters_are_told_even_when_the_database_is_gone(verifier, monkeypatch, question):
    await (await verifier.guest()).attest()

    async def gone(*_):
        raise StoreUnavailable("gone")

    assert (await samples(verifier))["vtpm_attest_store_up",] == 1
    monkeypatch.setattr(verifier.service.services.fleet, question, gone)
    found = await samples(verifier)
    assert found["vtpm_attest_store_up",] == 0
    assert found["vtpm_attest_verdicts_total", "affirming"] == 1
    assert math.isnan(found["vtpm_attest_pending_enrollments",])
    assert not [key for key in found if key[0] in {"vtpm_attest_attesters", "vtpm_attest_open_incidents"}]


@pytest.mark.parametrize(("life", "same"), [("1h", True), ("0s", False)])
async def test_one_rendering_serves_whoever_asks_within_its_life(tmp_path, clock, life, same):
    async with running(settings_for(tmp_path, METRICS_CACHE=life), clock) as verifier:
        first = await scrape(verifier)
        await verifier.get("/v1/status")
        assert (await scrape(verifier) == first) is same
