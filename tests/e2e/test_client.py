"""The client of relying parties against a real verifier over TLS; and against servers that misbehave, over TLS too."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from aiohttp import web

from tests.e2e.test_http_events import live  # noqa: F401 - a fixture
from tests.harness import boot_log
from verifier import main
from verifier.client import (
    AttestationClient,
    EarError,
    EarFault,
    Lifecycle,
    RefusedError,
    ReplyError,
    Retry,
    Tier,
    UnavailableError,
)
from verifier.keys.signer import rotate
from verifier.ports import Scope
from verifier.transparency import checkpoint
from verifier.transparency.bundle import Bundle
from verifier.transparency.notes import VerifierKey

ISSUER = "https://verifier.test"
QUICK = Retry(attempts=3, first=0.01, longest=0.05)


@asynccontextmanager
async def asking(verifier, url=None, **options):
    """A client as a relying party makes it."""
    token = options.pop("token", None) or await verifier.token(Scope.RELYING_PARTY)
    options = {
        "ca": verifier.service.tls.ca,
        "issuer": ISSUER,
        "now": verifier.clock.now,
        "retry": QUICK,
    } | options
    async with AttestationClient(url or verifier.secure_url, token, **options) as client:
        yield client


@asynccontextmanager
async def answering(verifier, handler):
    """A server with the verifier's certificate that answers everything by `handler`; its address."""
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=verifier.service.tls.context()).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_verdict_is_affirming_until_it_ends_and_not_a_second_longer(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
        assert (verdict.status, verdict.lifecycle) == (Tier.AFFIRMING, Lifecycle.ENROLLED)
        assert verdict.policy.id == "secure-boot"
        assert verdict.affirming(verdict.valid_until - timedelta(seconds=1))
        assert not verdict.affirming(verdict.valid_until)
        assert verdict.tier(verdict.valid_until) is Tier.NONE
        verifier.clock.advance(minutes=11)
        stale = await client.verdict(guest.attester_id)
        assert (stale.status, stale.lifecycle) == (Tier.NONE, Lifecycle.STALE)


async def test_a_failed_boot_comes_with_its_reasons_and_remedies(verifier):
    guest = await verifier.guest()
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
    assert verdict.tier(verifier.clock.now()) is Tier.CONTRAINDICATED
    assert "secure-boot-off" in verdict.reasons
    assert all(finding.remedy for finding in verdict.findings if finding.status != "passed")


async def test_a_revoked_attester_is_contraindicated(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        assert (await client.verdict(guest.attester_id)).affirming(verifier.clock.now())
        await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
        verdict = await client.verdict(guest.attester_id)
    assert verdict.tier(verifier.clock.now()) is Tier.CONTRAINDICATED


async def test_refusals_carry_the_verifier_s_code_and_remedy(verifier):
    async with asking(verifier) as client:
        with pytest.raises(RefusedError) as refused:
            await client.verdict("nobody")
    assert (refused.value.status, refused.value.code) == (404, "not-found")
    assert refused.value.remedy
    assert refused.value.request_id
    async with asking(verifier, token="vta1.wrong") as client:
        with pytest.raises(RefusedError) as refused:
            await client.verdict("nobody")
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")


async def test_the_same_question_is_answered_by_304_and_read_from_memory(verifier):
    guest = await verifier.guest()
    await guest.attest()
    seen = []

    async def relay(request):
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Accept", "If-None-Match")
            if name in request.headers
        }
        async with verifier.session.get(verifier.url + request.path_qs, headers=headers) as reply:
            seen.append((reply.status, headers.get("If-None-Match")))
            kept = {name: reply.headers[name] for name in ("ETag", "Content-Type") if name in reply.headers}
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)

    async with answering(verifier, relay) as url, asking(verifier, url) as client:
        first, again = await client.verdict(guest.attester_id), await client.verdict(guest.attester_id)
        assert first == again
        await guest.attest()
        assert (await client.verdict(guest.attester_id)).sequence == first.sequence + 1
    assert [status for status, _ in seen] == [200, 304, 200]
    assert seen[1][1] is not None


async def test_an_answer_about_somebody_else_is_not_taken(verifier):
    one, other = await verifier.guest(1), await verifier.guest(2)
    await other.attest()
    answer = await verifier.get(f"/v1/attesters/{other.attester_id}/verdict")

    async def wrong(_request):
        return web.Response(body=answer.content, content_type="application/json")

    async with answering(verifier, wrong) as url, asking(verifier, url) as client:
        with pytest.raises(ReplyError):
            await client.verdict(one.attester_id)


async def test_it_waits_as_long_as_it_is_asked_to_and_no_longer_than_it_may(verifier):
    guest = await verifier.guest()
    await guest.attest()
    good = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")
    asked = []

    def busy(after):
        async def handler(_request):
            asked.append(asyncio.get_running_loop().time())
            if len(asked) == 1:
                return web.Response(status=503, headers={"Retry-After": after})
            return web.Response(body=good.content, content_type="application/json")

        return handler

    patient = Retry(attempts=2, first=0.01, longest=5)
    async with answering(verifier, busy("1")) as url, asking(verifier, url, retry=patient) as client:
        assert (await client.verdict(guest.attester_id)).status is Tier.AFFIRMING
    assert asked[1] - asked[0] >= 0.9
    asked.clear()
    async with answering(verifier, busy("3600")) as url, asking(verifier, url, retry=patient) as client:
        with pytest.raises(UnavailableError) as unavailable:
            await client.verdict(guest.attester_id)
    assert (unavailable.value.code, unavailable.value.retry_after, len(asked)) == (
        "verifier-unavailable",
        3600,
        1,
    )


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_as_often_as_told(verifier, status):
    asked = []

    async def failing(request):
        asked.append(request.path)
        return web.Response(status=status, body=b"<html>proxy</html>")

    async with answering(verifier, failing) as url, asking(verifier, url) as client:
        with pytest.raises(UnavailableError):
            await client.verdict("x")
    assert len(asked) == QUICK.attempts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"status": "affirming"}',
        b"\xff",
        b'{"attester_id": "x", "sequence": 1, "status": "superb"}',
    ],
)
async def test_an_answer_that_cannot_be_read_is_an_error_and_no_verdict(verifier, body):
    async def handler(_request):
        return web.Response(body=body, content_type="application/json")

    async with answering(verifier, handler) as url, asking(verifier, url) as client:
        with pytest.raises(ReplyError):
            await client.verdict("x")


async def test_the_token_follows_no_redirect(verifier):
    stolen = []

    async def thief(request):
        stolen.append(request.headers.get("Authorization"))
        return web.Response(status=204)

    async with answering(verifier, thief) as elsewhere:

        async def redirecting(_request):
            raise web.HTTPTemporaryRedirect(f"{elsewhere}/v1/here")

        async with answering(verifier, redirecting) as url, asking(verifier, url) as client:
            with pytest.raises(ReplyError):
                await client.verdict("x")
    assert stolen == []


async def test_nobody_is_believed_without_a_trusted_certificate(verifier):
    async with asking(verifier, ca=None, retry=Retry(attempts=1)) as client:
        with pytest.raises(UnavailableError) as unavailable:
            await client.verdict("x")
    assert "CA" in unavailable.value.remedy
    with pytest.raises(ValueError, match="https"):
        AttestationClient(verifier.url)


async def test_an_ear_is_fetched_and_verified_for_its_audience_and_nonce(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        ear = await client.ear(guest.attester_id, audience="payments", nonce="0123456789")
        assert ear.standing.attester_id == guest.attester_id
        assert ear.standing.tier_at(verifier.clock.now()) is Tier.AFFIRMING
        assert ear.standing.policy == (await client.verdict(guest.attester_id)).policy
        assert ear.submodules == {"vtpm": Tier.AFFIRMING, "boot": Tier.AFFIRMING}
        for audience, nonce, fault in (
            ("another", None, EarFault.AUDIENCE),
            (None, None, EarFault.AUDIENCE),
            ("payments", "9876543210", EarFault.NONCE),
        ):
            with pytest.raises(EarError) as refused:
                await client.verify_ear(ear.token, audience=audience, nonce=nonce)
            assert refused.value.fault is fault
        verifier.clock.advance(minutes=10)
        with pytest.raises(EarError) as refused:
            await client.verify_ear(ear.token, audience="payments")
        assert refused.value.fault is EarFault.EXPIRED


async def test_a_proof_of_a_verdict_is_fetched_to_be_kept(verifier):
    guest = await verifier.guest()
    for _ in range(2):
        await guest.attest()
    await verifier.service.services.sequencer.extend()
    keys = [VerifierKey.parse(one.key) for one in main.log_keys_of(verifier.service.settings)]
    async with asking(verifier) as client:
        for sequence, wanted in ((None, 2), (1, 1)):
            kept = await client.log_proof(guest.attester_id, sequence=sequence)
            assert Bundle.parse(kept).proven(keys).entry.sequence == wanted
        assert checkpoint.opened(await client.log_checkpoint(), keys).checkpoint.size > 0
        with pytest.raises(RefusedError) as refused:
            await client.log_proof("nobody")
        assert refused.value.code == "not-found"
        with pytest.raises(RefusedError):
            await client.log_checkpoint(cosigned=True)


@pytest.mark.parametrize(
    "entry", ['{"attester_id":"other","sequence":1}', '{"attester_id":"me","sequence":2}', "[]"]
)
async def test_a_proof_of_another_verdict_is_not_taken(verifier, entry):
    async def answer(_):
        return web.json_response({"entry": entry})

    async with answering(verifier, answer) as url, asking(verifier, url) as client:
        with pytest.raises(ReplyError):
            await client.log_proof("me", sequence=1)


async def test_a_rotated_key_is_noticed_by_its_first_token_and_a_retired_one_goes(verifier):
    guest = await verifier.guest()
    await guest.attest()
    async with asking(verifier) as client:
        before = await client.ear(guest.attester_id)
        verifier.clock.advance(seconds=20)
        rotate(verifier.service.settings.state_dir / "keys", timedelta(minutes=2), verifier.clock.now())
        after = await client.ear(guest.attester_id, audience="x")
        assert before.token.partition(".")[0] != after.token.partition(".")[0]
        await client.verify_ear(before.token, audience=None)
        verifier.clock.advance(minutes=6)
        with pytest.raises(EarError) as refused:
            await client.verify_ear(before.token, audience=None)
        assert refused.value.fault is EarFault.KEY
        await client.verify_ear(after.token, audience="x")


async def test_events_resume_where_a_broken_stream_ended(live, verifier):  # noqa: F811
    guests = [await live.guest(seed) for seed in range(1, 5)]
    cut = []

    async def cutting(request):
        """Passes the stream on, and cuts the connection after the first event, in the middle of the second."""
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Last-Event-ID")
            if name in request.headers
        }
        cut.append(headers.get("Last-Event-ID"))
        async with live.session.get(live.url + request.path_qs, headers=headers) as reply:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            blocks = 0
            async for line in reply.content:
                await response.write(line)
                blocks += line.strip() == b""
                if blocks == 2 and line.startswith(b"data"):
                    request.transport.abort()
                    return response
            return response

    async with answering(verifier, cutting) as url, asking(verifier, url) as client:
        seen = []
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                async for event in client.events(kinds=("attester.enrolled",), after="0"):
                    if event.kind != "ready":
                        seen.append(event)
                    if len(seen) == len(guests):
                        break
    assert [event.attester_id for event in seen] == [guest.attester_id for guest in guests]
    assert len(cut) >= len(guests)
    assert cut[1] == seen[0].id


async def test_a_stream_ends_with_its_token(live, verifier):  # noqa: F811
    async with asking(verifier, token="vta1.revoked") as client:
        with pytest.raises(RefusedError) as refused:
            await anext(client.events())
    assert refused.value.code == "unauthenticated"
