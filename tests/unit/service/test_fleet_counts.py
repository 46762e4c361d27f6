"""The fleet in numbers is not counted for everybody who asks, and never older than it may be."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import FakeClock
from verifier.errors import StoreUnavailable
from verifier.service.fleet_counts import FleetCounts


class CountingStore:
    """Answers with how often it was asked, each time later than it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.meanwhile = lambda: None
        self.fault: Exception | None = None

    async def status_counts(self, tenant, now):
        self.asked.append(tenant)
        await asyncio.sleep(0)
        self.meanwhile()
        if self.fault is not None:
            raise self.fault
        return {"affirming": len(self.asked)}


class Setup:
    def __init__(self) -> None:
        self.store, self.clock, self.head = CountingStore(), FakeClock(), 7
        self.counts = FleetCounts(self.store, self.clock, lambda: self.head)

    async def seen(self, tenant: str = "default") -> int:
        return (await self.counts.get(tenant))["affirming"]


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_however_many_ask_it_is_counted_once(setup):
    assert await asyncio.gather(*(setup.seen() for _ in range(20))) == [1] * 20
    assert (await setup.seen("other"), setup.store.asked) == (2, ["default", "other"])


@pytest.mark.parametrize(
    ("head", "good", "old"), [(7, 9.9, 10.0), (None, 1.9, 2.0)], ids=["follows", "alone"]
)
async def test_numbers_are_good_for_ten_seconds_where_events_are_followed_and_for_two_where_not(
    setup, head, good, old
):
    setup.head = head
    await setup.seen()
    setup.clock.advance(seconds=good)
    assert await setup.seen() == 1
    setup.clock.advance(seconds=old - good)
    assert await setup.seen() == 2


async def test_what_another_replica_tells_of_ends_them_after_two_seconds(setup):
    await setup.seen()
    setup.clock.advance(seconds=1)
    setup.head += 1
    assert await setup.seen() == 1
    setup.clock.advance(seconds=1)
    assert await setup.seen() == 2


async def test_events_that_are_no_longer_followed_vouch_for_nothing(setup):
    await setup.seen()
    setup.head = None
    setup.clock.advance(seconds=2)
    assert await setup.seen() == 2


async def test_what_this_process_changes_counts_at_once(setup):
    assert (await setup.seen(), await setup.seen("other")) == (1, 2)
    setup.counts.changed("default")
    assert (await setup.seen(), await setup.seen("other")) == (3, 2)


async def test_numbers_that_were_overtaken_while_they_were_counted_are_not_kept(setup):
    setup.store.meanwhile = lambda: setup.counts.changed("default")
    assert (await setup.seen(), await setup.seen()) == (1, 2)


async def test_a_clock_that_is_set_back_makes_nothing_last_longer(setup):
    await setup.seen()
    setup.clock.advance(hours=-1)
    assert await setup.seen() == 2


async def test_who_asks_again_and_again_does_not_wait_for_counting(setup):
    await setup.seen()
    for second in range(1, 60):
        setup.clock.advance(seconds=1)
        await setup.counts.warm()
        before = len(setup.store.asked)
        await setup.seen()
        assert len(setup.store.asked) == before, second
    assert len(setup.store.asked) < 9


async def test_what_nobody_has_asked_for_in_ten_minutes_is_counted_no_more(setup):
    await setup.seen()
    setup.clock.advance(minutes=10)
    await setup.counts.warm()
    assert setup.store.asked == ["default"]


async def test_a_sample_for_the_plot_alone_keeps_nothing_warm(setup):
    await setup.counts.current("default")
    setup.clock.advance(seconds=9)
    await setup.counts.warm()
    assert setup.store.asked == ["default"]


async def test_a_database_that_does_not_answer_is_asked_by_the_next_one_again(setup):
    setup.store.fault = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await setup.seen()
    setup.store.fault = None
    assert await setup.seen() == 2
