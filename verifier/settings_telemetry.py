"""Settings of traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from verifier.durations import Duration
from verifier.settings_section import Section


class TelemetrySettings(Section, frozen=True):
    """Traces by OpenTelemetry; needs the extra `telemetry`."""

    endpoint: str = ""
    """Base URL of an OTLP/HTTP receiver, as `http://127.0.0.1:4318`; empty: no traces."""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the requests that are traced, by trace id."""
    service_name: str = "vtpm-attest"
    """`service.name` of the spans."""
    ca: Path | None = None
    """PEM file with CA certificates of the receiver; unset: the usual roots."""
    headers_file: Path | None = None
    """File of headers to send along, `Name: value` one a line: whatever the receiver knows us by."""
    timeout: Duration = Duration(seconds=10)
    """Of one attempt to send."""
