"""Fixtures of the HTTP tests."""

from __future__ import annotations

import io

import pytest

from tests.harness import FakeClock, running, settings_for
from verifier.logs import configure_logs


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def verifier(tmp_path, clock):
    async with running(settings_for(tmp_path), clock) as harness:
        yield harness


@pytest.fixture(autouse=True)
def log():
    """What the service logs, as JSON lines; also keeps it out of the terminal."""
    stream = io.StringIO()
    configure_logs("json", "debug", stream)
    return stream
