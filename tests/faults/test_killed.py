"""SIGKILL of a worker, and of everything at once, in the middle of a fleet's attestations."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import children, site

SLOW = pytest.mark.slow


@pytest.fixture
def cluster(request):
    """None: SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("durable_cluster")


@pytest.mark.parametrize("cluster", [pytest.param("sqlite", marks=SLOW), "postgresql"], indirect=True)
async def test_workers_killed_one_after_the_other(tmp_path, cluster):
    async with site(tmp_path, workers=2, cluster=cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=8, hostile=2)
        async with crowd.attesting():
            for _ in range(3):
                await crowd.several_rounds(1)
                # The oldest: after two of them every connection of the beginning is gone.
                os.kill(min(verifier.replicas[0].processes()), signal.SIGKILL)
            await crowd.several_rounds()
        assert crowd.cut, "nobody noticed"
        check(crowd)


@pytest.mark.parametrize("cluster", ["sqlite", pytest.param("postgresql", marks=SLOW)], indirect=True)
async def test_a_whole_replica_killed_while_another_goes_on_and_then_both(tmp_path, cluster):
    async with site(tmp_path, replicas=2, cluster=cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=8, hostile=2)
        first, second = verifier.replicas
        async with crowd.attesting():
            await crowd.several_rounds(1)
            first.kill()
            await first.ended()
            await crowd.several_rounds(1)
            second.kill()
            await second.ended()
            await asyncio.gather(first.start(), second.start())
            await crowd.several_rounds()
        assert crowd.cut, "nobody noticed"
        check(crowd)


@SLOW
@pytest.mark.parametrize("cluster", ["sqlite", "postgresql"], indirect=True)
async def test_parent_and_workers_killed_at_once(tmp_path, cluster):
    async with site(tmp_path, workers=2, cluster=cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=6, hostile=1)
        (replica,) = verifier.replicas
        async with crowd.attesting():
            await crowd.several_rounds(1)
            for pid in [*children(replica.process.pid), replica.process.pid]:
                os.kill(pid, signal.SIGKILL)
            await replica.ended()
            await replica.start()
            await crowd.several_rounds()
        check(crowd)
