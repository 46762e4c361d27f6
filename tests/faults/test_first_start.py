"""Struck during the very first start, while keys, certificate and database are made: the next start works."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.crowd import Crowd
from tests.faults.nursery import fault_of, nursery
from tests.faults.site import prepared
from tests.faults.striking import Strike, Striker
from tests.faults.world import World
from tests.harness import FakeClock

MOST_STARTS = 100
UNAVAILABLE = 69


@pytest.fixture
def cluster(request):
    """None: SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("durable_cluster")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("strike", [Strike.KILL, Strike.TEAR, Strike.FULL], ids=lambda one: one.name.lower())
async def test_a_first_start_that_fails_leaves_nothing_half(tmp_path, cluster, strike):
    """At its first writes one by one, later ever further apart: a start has hundreds."""
    striker = Striker(tmp_path)
    async with nursery(tmp_path / "processes", striker.environment) as children:
        after, starts = 0, 0
        while await struck_at(after, strike, children, striker, tmp_path / str(after), cluster):
            after += 1 + after // 12
            starts += 1
            assert starts < MOST_STARTS, "a start has no end"
        assert starts > 10


async def struck_at(after, strike, children, striker, directory, cluster) -> bool:
    """Whether a first start has as many writes. What it left is taken up by the next one, in which a guest attests."""
    directory.mkdir()
    site = prepared(directory, cluster=cluster)
    arguments = ("serve", "--config", str(site.replicas[0].config))
    striker.arm(strike, after)
    child = await children.start(*arguments)
    listening = await child.listening()
    reached = striker.disarm() > after
    if listening:
        child.kill()
    else:
        assert reached, fault_of(child)
    code = await asyncio.wait_for(child.ended, 60)
    if reached and not listening and strike is Strike.FULL:
        assert (code, "Traceback" in child.err.read_text()) == (UNAVAILABLE, False), (after, fault_of(child))
    world = World(
        None, FakeClock(), site.replicas[0].url, None,
        site=site, nursery=children, striker=striker, crowd=Crowd(site),
    )  # fmt: skip
    try:
        await world.start()
        await world.says(await world.guest(after), "affirming")
        assert world.problems == [], f"at step {after}"
    finally:
        if world.session is not None:
            await world.session.close()
        if world.child is not None:
            world.child.kill()
            await world.child.ended
    return reached
