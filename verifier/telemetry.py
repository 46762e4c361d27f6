"""Traces by OpenTelemetry over OTLP/HTTP: the extra `telemetry`. Without an endpoint nothing of it is imported.

A span for each request (kind SERVER, semantic conventions for HTTP, v1.23 and later), below it the stages of an
attestation, below those what the store and the worker processes did. Spans are made when the request is over, from what
was noted while it went on: the work itself knows nothing of tracing. Paths, queries and headers are left out, though the
conventions would have them: clients put secrets there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from verifier.errors import VerifierFault
from verifier.ports_observe import Observation, RequestHead, RequestTrace, StageSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from verifier.settings_telemetry import TelemetrySettings

_SERVER_FAULT: Final = 500
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_PROPAGATED: Final = ("traceparent", "tracestate")


class Telemetry:
    """The `RequestTracer` of one process. `exporter` is shut down with it."""

    def __init__(self, settings: TelemetrySettings, version: str, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import (  # noqa: PLC0415
            ALWAYS_OFF,
            ParentBased,
            TraceIdRatioBased,
        )
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        # A stranger's `traceparent` can ask not to be sampled; that it asks to be decides nothing.
        ours = TraceIdRatioBased(settings.sample)
        sampler = ParentBased(ours, remote_parent_sampled=ours, remote_parent_not_sampled=ALWAYS_OFF)
        resource = Resource.create({"service.name": settings.service_name, "service.version": version})
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("vtpm-attest", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, head: RequestHead, headers: Mapping[str, str], observation: Observation) -> RequestTrace:
        """The span of a request, in the trace its `traceparent` names (W3C Trace Context), or a new one."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra; imported already

        carrier = {name: headers[name] for name in _PROPAGATED if name in headers}
        wall = time.time_ns() - observation.elapsed() - observation.started
        method = head.method if head.method in _METHODS else "HTTP"
        span = self._tracer.start_span(
            method if head.route is None else f"{method} {head.route}",
            context=self._propagator.extract(carrier) if carrier else None,
            kind=SpanKind.SERVER,
            start_time=observation.started + wall,
        )
        observation.trace_id = f"{span.get_span_context().trace_id:032x}"
        return _Trace(self, span, head, observation, wall)

    def child(
        self, parent: Context, name: str, span: tuple[int, int], attributes: Mapping[str, float]
    ) -> Span:
        """A span that is over."""
        begun, ended = span
        made = self._tracer.start_span(name, context=parent, start_time=begun, attributes=attributes)
        made.end(ended)
        return made

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)

    def flush(self) -> None:
        """Send what there is now. Blocks."""
        self._provider.force_flush()


class _Trace:
    """The span of one request, until its reply."""

    def __init__(
        self, telemetry: Telemetry, span: Span, head: RequestHead, observation: Observation, wall: int
    ) -> None:
        self._telemetry = telemetry
        self._span = span
        self._head = head
        self._observation = observation
        self._wall = wall
        """Nanoseconds from `perf_counter_ns` to the wall clock."""

    def end(self, status: int | None) -> None:
        """The reply is made; None: nobody waited for one."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra; imported already

        span, ended = self._span, self._observation.started + self._observation.elapsed()
        if not span.is_recording():
            return
        for name, value in self._attributes(status).items():
            span.set_attribute(name, value)
        if status is not None and status >= _SERVER_FAULT:
            span.set_status(Status(StatusCode.ERROR))
        self._children(ended)
        span.end(ended + self._wall)

    def _attributes(self, status: int | None) -> dict[str, str | int]:
        head, observation = self._head, self._observation
        known = head.method in _METHODS
        found: dict[str, str | int | None] = {
            "http.request.method": head.method if known else "_OTHER",
            "http.route": head.route,
            "http.response.status_code": status,
            "url.scheme": head.scheme,
            "network.protocol.version": head.version,
            "client.address": head.peer,
            "error.type": str(status) if status is not None and status >= _SERVER_FAULT else None,
            "vtpm_attest.request_id": observation.id,
            "vtpm_attest.tenant": observation.tenant,
            "vtpm_attest.attester": observation.attester,
            "vtpm_attest.verdict": observation.status,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _children(self, ended: int) -> None:
        """Stages below the request, and below each the store's and the workers' parts that began within it."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra; imported already

        root = set_span_in_context(self._span)
        stages: list[tuple[StageSpan, Context]] = []
        for one in self._observation.spans(ended):
            begun, over = one.begun + self._wall, one.ended + self._wall
            made = self._telemetry.child(root, f"attestation.{one.stage.value}", (begun, over), {})
            stages.append((one, set_span_in_context(made)))
        for part in self._observation.parts:
            above = next((context for one, context in stages if one.begun <= part.asked < one.ended), root)
            waited = {"vtpm_attest.queue.wait": round((part.begun - part.asked) / 1e9, 9)}
            self._telemetry.child(
                above, part.name, (part.asked + self._wall, part.ended + self._wall), waited
            )


def open_telemetry(settings: TelemetrySettings, version: str) -> Telemetry | None:
    """What the settings say; None where no endpoint is set, and then nothing is imported and nothing measured.

    Raises:
        VerifierFault: the extra is not installed, or a file cannot be read.
    """
    if not settings.endpoint:
        return None
    try:
        return Telemetry(settings, version, otlp(settings))
    except ImportError as error:
        raise VerifierFault(
            f"telemetry.endpoint is set, and {error.name or error} is not installed:"
            " pip install 'vtpm-attest[telemetry]'"
        ) from error


def otlp(settings: TelemetrySettings) -> SpanExporter:
    """Sends spans to an OTLP/HTTP receiver."""
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415 - an extra
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(
        endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces",
        certificate_file=None if settings.ca is None else str(settings.ca),
        headers=_headers(settings.headers_file),
        timeout=settings.timeout.total_seconds(),
        compression=Compression.Gzip,
    )


def _headers(path: Path | None) -> dict[str, str]:
    """`Name: value`, one a line; secrets, so in a file of their own."""
    if path is None:
        return {}
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise VerifierFault(f"telemetry.headers_file {path} cannot be read: {error}") from error
    pairs = [line.partition(":") for line in lines]
    for number, (name, colon, _) in enumerate(pairs, start=1):
        if not colon or not name.strip().isascii():
            raise VerifierFault(f"telemetry.headers_file {path}, line {number}: expected `Name: value`")
    return {name.strip(): value.strip() for name, _, value in pairs}
