"""Samples of the fleet, on each store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


async def test_one_sample_a_minute_whoever_takes_it_and_old_ones_go(store):
    for minute in range(3):
        at = NOON + timedelta(minutes=minute)
        await store.add_fleet_sample("default", at, {"affirming": minute})
        await store.add_fleet_sample("default", at, {"affirming": 99})
    await store.add_fleet_sample("other", NOON, {"affirming": 7})
    found = await store.fleet_samples("default", NOON + timedelta(minutes=1))
    assert [(one.at.minute, one.counts) for one in found] == [(1, {"affirming": 1}), (2, {"affirming": 2})]
    assert await store.purge_fleet_samples(NOON + timedelta(minutes=2)) == 3
    assert len(await store.fleet_samples("default", NOON)) == 1
