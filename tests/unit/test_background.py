"""What runs by itself goes on after a fault, and starts when it should."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
from datetime import timedelta

import pytest

from tests import pki
from tests.eventually import eventually
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


async def test_a_fault_of_the_code_is_told_with_its_place_and_is_not_the_end_either():
    log = io.StringIO()
    configure_logs("json", "error", log)
    calls = []

    async def work():
        calls.append(1)
        raise TypeError("a bug")

    task = asyncio.create_task(background.repeat(0, work, "test.failed"))
    await eventually(lambda: len(calls) > 2)
    task.cancel()
    (first, *_) = map(json.loads, log.getvalue().splitlines())
    assert (first["event"], first["problem"]) == ("test.failed", "a bug")
    assert first["exception"][0]["exc_type"] == "TypeError"


@pytest.mark.parametrize("part", ["feed", "watch", "deliveries"])
async def test_a_bug_in_one_round_does_not_end_what_runs_for_ever(tmp_path, monkeypatch, part):
    module = importlib.import_module(f"verifier.service.{part}")
    for pause in ("_AFTER_FAULT", "_LOOK_EVERY"):
        monkeypatch.setattr(module, pause, 0.01, raising=False)
    async with running(settings_for(tmp_path)) as verifier:
        services, calls = verifier.service.services, []
        work = {"feed": "publish", "watch": "refresh", "deliveries": "start_due"}[part]

        async def broken():
            calls.append(1)
            raise TypeError("a bug")

        monkeypatch.setattr(getattr(services, part), work, broken)
        arguments = (services.deliveries.wake,) if part == "feed" else ()
        task = asyncio.create_task(getattr(services, part).run(*arguments))
        await eventually(lambda: len(calls) > 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_that_starts_looks_at_once_what_ends(tmp_path):
    clock = FakeClock()
    settings = settings_for(tmp_path)
    end = pki.time(clock.now().replace(year=clock.now().year - 1))
    (tmp_path / "anchors" / "old.der").write_bytes(pki.Ca.root("Old", not_after=end).der)
    async with running(settings, clock) as verifier:
        tasks = background.start(verifier.service.services, lambda: None)
        try:
            for _ in range(200):
                entries = await verifier.decisions()
                if entries:
                    break
                await asyncio.sleep(0.05)
            assert [(one["action"], one["detail"]["certificate"]) for one in entries] == [
                ("expiry.ended", "CN=Old")
            ]
        finally:
            for task in tasks:
                task.cancel()


async def _metrics(verifier, name, value) -> bool:
    text = (await verifier.get("/metrics")).content.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(lines[name]) == value


async def test_a_service_that_runs_drops_old_history_and_says_how_much(tmp_path):
    clock = FakeClock()
    async with running(settings_for(tmp_path, HISTORY_KEEP="10d"), clock) as verifier:
        guest = await verifier.guest()
        for _ in range(4):
            await guest.attest()
            clock.advance(days=4)
        tasks = background.start(verifier.service.services, lambda: None)
        try:
            dropped = 'vtpm_attest_dropped_total{kind="verdicts"}'
            await eventually(lambda: _metrics(verifier, dropped, 2.0))
            history = (await verifier.get(f"/v1/attesters/{guest.attester_id}/history")).json
            assert [one["sequence"] for one in history["verdicts"]] == [4, 3]
            begins = (clock.now() - timedelta(days=8)).timestamp()
            assert await _metrics(verifier, "vtpm_attest_history_begins_timestamp_seconds", begins)
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
        tasks = background.start(verifier.service.services, lambda: None)
        try:
            for _ in range(200):
                if verifier.rows()["blob"] == 2:
                    break
                await asyncio.sleep(0.05)
            assert verifier.rows()["blob"] == 2
        finally:
            for task in tasks:
                task.cancel()
