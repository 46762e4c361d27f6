"""A fleet that is judged again in the background while everything that judges is killed."""

from __future__ import annotations

import aiohttp
import pytest

from tests.bench.rejudging import multiply
from tests.eventually import eventually
from tests.faults.crowd import Crowd
from tests.faults.ledger import check, query
from tests.faults.site import site
from tests.harness import POLICY
from verifier.store import open_store

COPIES = 1500


@pytest.mark.slow
async def test_every_replica_is_killed_in_the_middle_and_nobody_is_left_out(
    tmp_path, durable_cluster, monkeypatch
):
    monkeypatch.setattr("tests.eventually.PATIENCE", 150.0)
    async with site(tmp_path, replicas=2, cluster=durable_cluster) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=4, hostile=1)
        store = await open_store(durable_cluster.url(verifier.database))
        await multiply(store, [member.guest.attester_id for member in crowd.members], COPIES)
        await store.close()
        headers = {"Authorization": f"Bearer {await verifier.token('operator')}"}
        connector = aiohttp.TCPConnector(ssl=verifier.tls(), force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            first, second = verifier.replicas
            path = "/v1/policies/secure-boot"

            async def progress():
                async with session.get(f"{second.url}{path}/rejudging") as reply:
                    assert reply.status == 200, await reply.text()
                    return await reply.json()

            changed = POLICY.replace("validity: 10m", "validity: 9m")
            yaml = {"Content-Type": "application/yaml"}
            async with session.post(f"{first.url}/v1/policies", data=changed, headers=yaml) as reply:
                assert reply.status in {200, 201}, await reply.text()
                revision = (await reply.json())["revision"]
            async with session.post(f"{first.url}{path}/rejudging") as reply:
                assert reply.status == 202, await reply.text()

            async def begun():
                return (await progress())["counts"]["examined"] > 50

            await eventually(begun)
            for replica in verifier.replicas:
                replica.kill()
                await replica.ended()
            for replica in verifier.replicas:
                await replica.start()
            found = await progress()
            assert (found["state"], found["counts"]["examined"] < COPIES) == ("running", True)

            async def done():
                return (await progress())["state"] == "done"

            async with crowd.attesting():
                await eventually(done)
                await crowd.several_rounds(1)
            assert (await progress())["counts"]["examined"] == COPIES + len(crowd.members)
        check(crowd)
        left = query(verifier, f"SELECT count(*) FROM latest WHERE policy_revision <> '{revision}'")
        assert left == [("0",)]
        twice = query(
            verifier, "SELECT count(*) FROM attestation WHERE rejudged_at IS NOT NULL AND sequence > 2"
        )
        assert int(twice[0][0]) <= len(crowd.members)
