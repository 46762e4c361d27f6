"""What runs by itself goes on after a fault, and starts when it should."""

from __future__ import annotations

import asyncio
import io
from datetime import timedelta

import pytest

from tests import pki
from tests.harness import FakeClock, running, settings_for
from verifier import background
from verifier.errors import StoreUnavailable
from verifier.logs import configure_logs


async def test_a_fault_is_not_the_end():
    log = io.StringIO()
    configure_logs("json", "error", log)
    done = asyncio.Event()
    calls = []

    async def work():
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("down")
        done.set()

    task = asyncio.create_task(background.repeat(0.001, work, "test.failed", at_once=True))
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    assert len(calls) >= 2
    assert '"event": "test.failed"' in log.getvalue()


async def test_a_fault_of_the_code_is_not_swallowed():
    async def work():
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        await asyncio.wait_for(background.repeat(0, work, "test.failed"), 10)


async def test_a_service_that_starts_looks_at_once_what_ends(tmp_path):
    clock = FakeClock()
    settings = settings_for(tmp_path)
    end = pki.time(clock.now().replace(year=clock.now().year - 1))
    (tmp_path / "anchors" / "old.der").write_bytes(pki.Ca.root("Old", not_after=end).der)
    async with running(settings, clock) as verifier:
        tasks = background.start(
            verifier.service.services, lambda: None, timedelta(days=30), timedelta(days=7)
        )
        try:
            for _ in range(200):
                entries = (await verifier.get("/v1/audit")).json["entries"]
                if entries:
                    break
                await asyncio.sleep(0.05)
            assert [(one["action"], one["detail"]["certificate"]) for one in entries] == [
                ("expiry.ended", "CN=Old")
            ]
        finally:
            for task in tasks:
                task.cancel()


async def test_a_service_that_runs_drops_what_a_newer_verdict_has_replaced(tmp_path):
    clock = FakeClock()
    async with running(settings_for(tmp_path, EVIDENCE_KEEP="latest"), clock) as verifier:
        guest = await verifier.guest()
        for _ in range(3):
            await guest.attest()
            clock.advance(days=2)
        assert verifier.rows()["blob"] == 4  # three quotes, one log
        tasks = background.start(
            verifier.service.services,
            lambda: None,
            verifier.service.settings.evidence.keep,
            timedelta(days=7),
        )
        try:
            for _ in range(200):
                if verifier.rows()["blob"] == 2:
                    break
                await asyncio.sleep(0.05)
            assert verifier.rows()["blob"] == 2
        finally:
            for task in tasks:
                task.cancel()
