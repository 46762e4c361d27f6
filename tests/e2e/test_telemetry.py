"""Traces: one span for a request, its stages and the store's work below it, as OpenTelemetry's own SDK reads them."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from tests.harness import Guest, running, settings_for
from verifier import telemetry
from verifier.appraisal.stages import Stage
from verifier.errors import StoreUnavailable, VerifierFault
from verifier.ports import Scope
from verifier.settings import SettingsError
from verifier.settings_telemetry import TelemetrySettings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = "vm-42.boot_7-a1b2c3"


class Memory(SpanExporter):
    """Keeps spans, as the SDK hands them to whoever sends them."""

    def __init__(self) -> None:
        self.spans = []

    def export(self, spans):
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@asynccontextmanager
async def traced(tmp_path, clock, monkeypatch, **changes):
    """A verifier, and a way to ask for the spans of one operation."""
    memory, made = Memory(), []
    monkeypatch.setattr(telemetry, "otlp", lambda _: memory)
    init = telemetry.Telemetry.__init__
    monkeypatch.setattr(
        telemetry.Telemetry, "__init__", lambda self, *given: (init(self, *given), made.append(self))[0]
    )
    settings = settings_for(tmp_path, TELEMETRY_ENDPOINT="http://127.0.0.1:1", **changes)
    async with running(settings, clock) as verifier:

        async def spans(name=None):
            await asyncio.to_thread(made[0].flush)
            return [one for one in memory.spans if name is None or one.name == name]

        yield verifier, spans


async def test_an_attestation_is_one_trace_from_the_request_to_the_store(tmp_path, clock, monkeypatch, log):
    async with traced(tmp_path, clock, monkeypatch) as (verifier, spans):
        guest = await verifier.guest()
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": GIVEN}
        evidence = guest.evidence(await guest.challenge())
        assert (await verifier.post("/v1/attestations", evidence, headers=headers)).status == 200
        (root,) = await spans("POST /v1/attestations")
        assert (root.kind, root.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
        assert f"{root.context.trace_id:032x}" == TRACE
        assert f"{root.parent.span_id:016x}" == PARENT
        assert dict(root.attributes) == {
            "http.request.method": "POST",
            "http.route": "/v1/attestations",
            "http.response.status_code": 200,
            "url.scheme": "http",
            "network.protocol.version": "1.1",
            "client.address": "127.0.0.1",
            "vtpm_attest.request_id": GIVEN,
            "vtpm_attest.tenant": "default",
            "vtpm_attest.attester": guest.attester_id,
            "vtpm_attest.verdict": "affirming",
        }
        family = [one for one in await spans() if one.context.trace_id == root.context.trace_id]
        stages = {one.name: one for one in family if one.name.startswith("attestation.")}
        passed = [stage for stage in Stage if stage is not Stage.IMA]  # no list was sent
        assert set(stages) == {f"attestation.{stage.value}" for stage in passed}
        assert all(one.parent.span_id == root.context.span_id for one in stages.values())
        in_order = [stages[f"attestation.{stage.value}"] for stage in passed]
        assert root.start_time <= in_order[0].start_time
        assert all(a.end_time == b.start_time for a, b in itertools.pairwise(in_order))
        assert in_order[-1].end_time <= root.end_time
        (write,) = [one for one in family if one.name == "store-write"]
        assert write.parent.span_id == stages["attestation.commit"].context.span_id
        assert write.start_time >= stages["attestation.commit"].start_time
        assert 0 <= write.attributes["vtpm_attest.queue.wait"] < (write.end_time - write.start_time) / 1e9
        reads = [one for one in family if one.name == "store-read"]
        assert {one.parent.span_id for one in reads} == {stages["attestation.lookup"].context.span_id}
        told = [json.loads(line) for line in log.getvalue().splitlines()]
        assert {line["trace_id"] for line in told if line.get("request_id") == GIVEN} == {TRACE}
        assert root.resource.attributes["service.name"] == "vtpm-attest"


async def test_refusals_faults_and_strangers(tmp_path, clock, monkeypatch):
    async with traced(tmp_path, clock, monkeypatch) as (verifier, spans):
        token = await verifier.token(Scope.OPERATOR)
        await verifier.call("GET", f"/no/{token}?x={token}", token=token)
        await verifier.call("GET", f"/v1/attesters?search={token}", token=token)
        await verifier.call("PROPFIND", "/healthz")

        async def gone(*_):
            raise StoreUnavailable("gone")

        monkeypatch.setattr(verifier.service.store, "attester_state", gone)
        await verifier.post("/v1/challenges", {"attester_id": "att-x"})
        (nowhere,) = await spans("GET")
        assert nowhere.attributes["http.response.status_code"] == 404
        assert nowhere.status.status_code is StatusCode.UNSET
        assert "http.route" not in nowhere.attributes
        (strange,) = await spans("HTTP")
        assert strange.attributes["http.request.method"] == "_OTHER"
        (fault,) = await spans("POST /v1/challenges")
        assert fault.status.status_code is StatusCode.ERROR
        assert fault.attributes["error.type"] == "503"
        everything = " ".join(one.to_json() for one in await spans())
        assert token not in everything
        assert "PROPFIND" not in everything


@pytest.mark.parametrize(
    ("sample", "traceparent", "kept"),
    [
        ("1", f"00-{TRACE}-{PARENT}-00", False),
        ("1", f"00-{TRACE}-{PARENT}-01", True),
        ("1", "00-rubbish-01", True),
        ("1", f"00-{'0' * 32}-{PARENT}-01", True),
        ("0", f"00-{TRACE}-{PARENT}-01", False),
        ("0", None, False),
    ],
)
async def test_who_decides_what_is_traced(tmp_path, clock, monkeypatch, sample, traceparent, kept):
    """A caller can spare itself a trace; nobody outside can have more of them than we want."""
    async with traced(tmp_path, clock, monkeypatch, TELEMETRY_SAMPLE=sample) as (verifier, spans):
        headers = {} if traceparent is None else {"traceparent": traceparent}
        assert (await verifier.call("GET", "/healthz", headers=headers)).status == 200
        assert bool(await spans("GET /healthz")) is kept


@pytest.mark.parametrize("bound", [1, 256])
async def test_what_is_noted_of_one_request_is_bounded(tmp_path, clock, monkeypatch, bound):
    """A stream may stay open for days, and asks the database all along."""
    monkeypatch.setattr("verifier.ports_observe.MAX_PARTS", bound)
    async with traced(tmp_path, clock, monkeypatch) as (verifier, spans):
        await (await verifier.guest()).attest()
        (root,) = await spans("POST /v1/attestations")
        noted = [
            one
            for one in await spans()
            if one.name.startswith("store-") and one.context.trace_id == root.context.trace_id
        ]
        assert (len(noted) > 1) is (bound > 1)


async def test_spans_arrive_at_an_otlp_receiver(tmp_path, clock):
    received, headers = [], []

    async def take(request: web.Request) -> web.Response:
        headers.append(request.headers.copy())
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        received.append(ExportTraceServiceRequest.FromString(body))
        return web.Response(content_type="application/x-protobuf")

    receiver = web.Application()
    receiver.router.add_post("/v1/traces", take)
    runner = web.AppRunner(receiver)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "headers").write_text("X-Scope: one\n\nAuthorization: Basic c2VjcmV0\n")
    settings = settings_for(
        tmp_path,
        TELEMETRY_ENDPOINT=f"http://127.0.0.1:{runner.addresses[0][1]}/",
        TELEMETRY_HEADERS_FILE=str(tmp_path / "headers"),
        TELEMETRY_SERVICE_NAME="verifier-eu",
    )
    try:
        async with running(settings, clock) as verifier:
            guest = Guest.booted(verifier)
            await guest.enroll()
            await guest.attest()
        # Closed: whatever was not sent yet was sent then.
    finally:
        await runner.cleanup()
    resources = [one for message in received for one in message.resource_spans]
    names = {span.name for one in resources for scope in one.scope_spans for span in scope.spans}
    assert names >= {"POST /v1/enrollments", "POST /v1/attestations", "attestation.verify", "store-write"}
    (service,) = {
        each.value.string_value
        for one in resources
        for each in one.resource.attributes
        if each.key == "service.name"
    }
    assert service == "verifier-eu"
    assert {(one["X-Scope"], one["Authorization"]) for one in headers} == {("one", "Basic c2VjcmV0")}


async def test_a_receiver_that_is_away_disturbs_no_attestation(tmp_path, clock):
    settings = settings_for(tmp_path, TELEMETRY_ENDPOINT="http://127.0.0.1:1", TELEMETRY_TIMEOUT="1s")
    async with running(settings, clock) as verifier:
        guest = await verifier.guest()
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"


async def test_without_an_endpoint_nothing_of_it_is_imported(tmp_path):
    code = (
        "import sys, asyncio; from tests.harness import *; from pathlib import Path\n"
        "async def go():\n"
        f"    async with running(settings_for(Path({str(tmp_path)!r}))) as v: await (await v.guest()).attest()\n"
        "asyncio.run(go()); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


def test_without_the_extra_the_service_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(VerifierFault, match=r"pip install 'vtpm-attest\[telemetry\]'"):
        telemetry.open_telemetry(TelemetrySettings(endpoint="http://127.0.0.1:4318"), "1")


def test_settings_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"telemetry\.endpoint 'localhost:4318'"):
        settings_for(tmp_path, TELEMETRY_ENDPOINT="localhost:4318")
    with pytest.raises(SettingsError, match="sample"):
        settings_for(tmp_path, TELEMETRY_SAMPLE="1.5")
    headers = tmp_path / "headers"
    for content, problem in (("no colon here", "line 1"), (None, "cannot be read")):
        if content is None:
            headers.unlink()
        else:
            headers.write_text(content)
        given = TelemetrySettings(
            endpoint="http://127.0.0.1:1", headers_file=headers, timeout=timedelta(seconds=1)
        )
        with pytest.raises(VerifierFault, match=problem):
            telemetry.open_telemetry(given, "1")
