"""The client asks about many attesters, and waits for a change, of a real verifier."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.e2e.test_client import answering, asking
from tests.harness import Guest, boot_log
from verifier.client import Lifecycle, ReplyError, Tier
from verifier.ports import Scope


async def labelled(verifier, guest, **labels):
    answer = await verifier.call(
        "PUT", f"/v1/attesters/{guest.attester_id}/labels", scope=Scope.OPERATOR, json={"labels": labels}
    )
    assert answer.status == 200, answer.content


async def test_many_at_once_each_is_answered_for_and_the_unknown_are_none(verifier):
    good, bad, silent = [await verifier.guest(seed) for seed in (1, 2, 3)]
    await good.attest()
    bad.reboot(boot_log(secure=False))
    await bad.attest()
    ids = [bad.attester_id, "att-nobody", good.attester_id, silent.attester_id, good.attester_id]
    async with asking(verifier) as client:
        found = await client.verdicts(ids)
        assert list(found) == [bad.attester_id, "att-nobody", good.attester_id, silent.attester_id]
        now = verifier.clock.now()
        tiers = {key: None if one is None else one.tier(now) for key, one in found.items()}
        assert list(tiers.values()) == [Tier.CONTRAINDICATED, None, Tier.AFFIRMING, Tier.NONE]
        assert found[bad.attester_id].reasons == ("secure-boot-off",)
        affirmed = found[good.attester_id]
        assert affirmed.affirming(now)
        assert not affirmed.affirming(affirmed.valid_until)
        assert not found[silent.attester_id].affirming(now)
        assert await client.verdicts([]) == {}


async def test_more_than_a_thousand_are_asked_for_in_parts(verifier):
    guest = await verifier.guest()
    await guest.attest()
    ids = [f"att-{number}" for number in range(2100)]
    async with asking(verifier) as client:
        found = await client.verdicts([*ids, guest.attester_id])
    assert list(found) == [*ids, guest.attester_id]
    assert [key for key, one in found.items() if one is not None] == [guest.attester_id]


@pytest.mark.parametrize("reply", ['{"verdicts": []}', '{"verdicts": [], "unknown": ["another"]}'])
async def test_an_answer_that_leaves_somebody_out_is_none(verifier, reply):
    async def handler(_request):
        return web.Response(text=reply, content_type="application/json")

    async with answering(verifier, handler) as url, asking(verifier, url) as client:
        with pytest.raises(ReplyError):
            await client.verdicts(["att-1"])


async def test_by_label_ek_and_uuid(verifier):
    guests = [await verifier.guest(seed) for seed in (1, 2, 3)]
    for guest in guests:
        await guest.attest()
    for guest in guests[:2]:
        await labelled(verifier, guest, role="web")
    async with asking(verifier) as client:
        found = [one.attester_id async for one in client.by_label("role", "web")]
        assert sorted(found) == sorted(guest.attester_id for guest in guests[:2])
        assert [one async for one in client.by_label("role", "db")] == []
        one = (await client.verdicts([guests[0].attester_id]))[guests[0].attester_id]
        assert await client.by_ek(one.ek_sha256) == one
        assert await client.by_ek("00" * 32) is None


async def test_by_label_follows_every_page(verifier):
    asked = []

    async def handler(request):
        asked.append(request.query.get("cursor"))
        line = {"status": "none", "lifecycle": "enrolled", "ek_sha256": "00" * 32}
        more = {} if len(asked) == 3 else {"cursor": f"c{len(asked)}"}
        return web.json_response({"verdicts": [line | {"attester_id": f"att-{len(asked)}"}], **more})

    async with answering(verifier, handler) as url, asking(verifier, url) as client:
        found = [one.attester_id async for one in client.by_label("a", "b")]
    assert (found, asked) == (["att-1", "att-2", "att-3"], [None, "c1", "c2"])


async def test_a_change_ends_the_wait_and_no_change_ends_it_in_time(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
        assert await client.wait_for_change(verdict, within=1) == verdict
        waiting = asyncio.ensure_future(client.wait_for_change(verdict, within=30))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
        changed = await asyncio.wait_for(waiting, 10)
        assert (changed.lifecycle, changed.status) == (Lifecycle.REVOKED, Tier.CONTRAINDICATED)


async def test_a_change_that_came_before_the_wait_is_not_missed(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
        await guest.attest()
        async with asyncio.timeout(10):
            assert (await client.wait_for_change(verdict, within=60)).sequence == verdict.sequence + 1


async def test_the_end_of_a_verdict_is_a_change(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
        waiting = asyncio.ensure_future(client.wait_for_change(verdict, within=30))
        await asyncio.sleep(0.2)
        verifier.clock.advance(minutes=11)
        changed = await asyncio.wait_for(waiting, 10)
    assert (changed.lifecycle, changed.status) == (Lifecycle.STALE, Tier.NONE)


async def test_by_uuid_finds_who_claimed_it(verifier):
    claimed = "4c4c4544-0042-3510-8052-b4c04f4d3432"
    guest = Guest.booted(verifier, 1)
    guest.identity["smbios_uuid"] = claimed
    await guest.enroll()
    await verifier.guest(2)
    async with asking(verifier) as client:
        assert [one.attester_id for one in await client.by_uuid(claimed.upper())] == [guest.attester_id]
        assert await client.by_uuid("00000000-0000-0000-0000-000000000001") == ()
