"""PostgreSQL restarted, cut off, stopped for a while, read-only and full, in the middle of a fleet's attestations."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import site


@pytest.mark.parametrize("mode", [pytest.param("fast", marks=pytest.mark.slow), "immediate"])
async def test_the_server_restarts(tmp_path, own_cluster, mode):
    async with site(tmp_path, workers=2, cluster=own_cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=8, hostile=2)
        async with crowd.attesting():
            await crowd.several_rounds(1)
            await asyncio.to_thread(own_cluster.stop, mode)
            await asyncio.sleep(1)
            await asyncio.to_thread(own_cluster.start)
            await crowd.several_rounds()
        assert crowd.refusals["verifier-unavailable"], "nobody noticed"
        check(crowd)


@pytest.mark.slow
async def test_every_connection_is_cut_again_and_again(tmp_path, durable_cluster):
    async with site(tmp_path, replicas=2, cluster=durable_cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=8, hostile=2)
        async with crowd.attesting():
            for _ in range(5):
                await crowd.several_rounds(1)
                await asyncio.to_thread(durable_cluster.disconnect, verifier.database)
            await crowd.several_rounds()
        check(crowd)


@pytest.mark.slow
async def test_the_server_stops_answering_for_a_while(tmp_path, own_cluster):
    """Every process of it stands still: connections stay open, nothing comes back."""
    async with site(tmp_path, replicas=2, cluster=own_cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=8, hostile=2)
        async with crowd.attesting():
            await crowd.several_rounds(1)
            own_cluster.pause()
            try:
                await asyncio.sleep(30)
                assert crowd.refusals["verifier-unavailable"], "they wait in vain"
            finally:
                own_cluster.go_on()
            await crowd.several_rounds()
        check(crowd)


@pytest.mark.slow
async def test_the_database_may_only_be_read_for_a_while(tmp_path, durable_cluster):
    async with site(tmp_path, replicas=2, cluster=durable_cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=6, hostile=2)

        async def turn(state):
            await asyncio.to_thread(
                durable_cluster.sql,
                f"ALTER DATABASE {verifier.database} SET default_transaction_read_only = {state}",
            )
            await asyncio.to_thread(durable_cluster.disconnect, verifier.database)

        async with crowd.attesting():
            await crowd.several_rounds(1)
            await turn("on")
            await asyncio.sleep(1.5)
            await turn("off")
            await crowd.several_rounds()
        assert crowd.refusals["verifier-unavailable"], "nobody noticed"
        check(crowd)
