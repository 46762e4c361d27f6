"""Webhooks against a real receiver: signed, tried again, given up, never lost, and never sent where they must not be."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook, WebhookVerificationError

from tests.eventually import eventually
from tests.harness import boot_log, running, settings_for
from tests.logs import EV_IPL, Written, agile_event
from tests.receivers import receiving
from verifier.ports import Scope
from verifier.tcg.algorithms import HashAlg
from verifier.webhook_sender import HttpWebhooks

ALLOWED = {"WEBHOOKS_ALLOW_HTTP": "true", "WEBHOOKS_ALLOW_PRIVATE": "true"}


@asynccontextmanager
async def delivering(harness):
    """What a running service does in the background, for this part."""
    services = harness.service.services
    tasks = [
        asyncio.ensure_future(services.feed.run(services.deliveries.wake)),
        asyncio.ensure_future(services.deliveries.run()),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def allowed(tmp_path, clock):
    """A verifier that may send to the loopback, and does."""
    settings = settings_for(tmp_path, **ALLOWED, WEBHOOKS_TIMEOUT="1s", WEBHOOKS_ATTEMPTS="3")
    async with running(settings, clock) as harness, delivering(harness):
        yield harness


async def add(verifier, url, **body):
    answer = await verifier.post("/v1/webhooks", {"url": url, **body}, scope=Scope.OPERATOR)
    assert answer.status == 201, answer.content
    return answer.json["webhook"]["id"], answer.json["secret"]


async def deliveries(verifier, webhook, query=""):
    answer = await verifier.get(f"/v1/webhooks/{webhook}/deliveries{query}", Scope.OPERATOR)
    assert answer.status == 200, answer.content
    return answer.json["deliveries"]


async def until(verifier, webhook, status, count=1):
    """Wait until so many deliveries stand like that; the harness's limit on a test ends a wait in vain."""
    while len(found := await deliveries(verifier, webhook, f"?status={status}")) < count:
        await asyncio.sleep(0.02)
    return found


async def tried(verifier, webhook, attempts):
    """Wait until the outcome of that attempt is noted."""
    while True:
        (one,) = await deliveries(verifier, webhook)
        if one["attempts"] == attempts and one.get("problem"):
            return one
        await asyncio.sleep(0.02)


async def revoke(verifier, guest):
    answer = await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", None, scope=Scope.OPERATOR)
    assert answer.status == 200


async def test_an_event_is_a_cloud_event_that_an_independent_library_accepts(allowed):
    async with receiving() as receiver:
        _, secret = await add(allowed, receiver.url, kinds=["verdict.changed"])
        guest = await allowed.guest()
        assert (await guest.attest()).status == 200
        one = await receiver.next()
    # The library looks at the time too; the test's clock starts at the time of day.
    event = Webhook(secret).verify(one.body, one.headers)
    assert one.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert (event["specversion"], event["type"]) == ("1.0", "vtpm-attest.verdict.changed")
    assert (event["source"], event["subject"]) == ("https://verifier.test", guest.attester_id)
    assert event["id"] == one.id
    assert (event["data"]["status"], event["data"]["previous"]) == ("affirming", None)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(one.body.replace(b"affirming", b"warning"), one.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret[:-4] + "AAA=").verify(one.body, one.headers)


async def test_a_revocation_is_sent_without_waiting(allowed):
    """Within one second; the bound of the test is wider, since its machine may be busy with others."""
    async with receiving() as receiver:
        await add(allowed, receiver.url, kinds=["attester.revoked"])
        guest = await allowed.guest()
        await revoke(allowed, guest)
        assert (await asyncio.wait_for(receiver.next(), 10)).json["subject"] == guest.attester_id
    assert allowed.service.services.feed.streams == 0


@pytest.mark.parametrize(
    ("answer", "problem"), [(500, "answered 500"), (None, "no answer within 1 s"), (302, "a redirect")]
)
async def test_what_did_not_arrive_is_tried_again_with_the_same_id(allowed, clock, answer, problem):
    async with receiving(answer=lambda number: answer if number == 1 else 204) as receiver:
        webhook, secret = await add(allowed, receiver.url, kinds=["attester.enrolled"])
        await allowed.guest()
        first = await receiver.next()
        kept = await tried(allowed, webhook, 1)
        assert kept["status"] == "pending"
        assert problem in kept["problem"]
        clock.advance(seconds=8)
        second = await receiver.next()
        (done,) = await until(allowed, webhook, "delivered")
    assert (first.id, first.body) == (second.id, second.body)
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    Webhook(secret).verify(second.body, second.headers)
    assert (done["attempts"], done["http_status"]) == (2, 204)
    assert len(receiver.received) == 2, "a redirect was followed"


async def test_after_the_last_attempt_it_is_dead_until_somebody_asks(allowed, clock):
    async with receiving(answer=lambda number: 503 if number <= 3 else 200) as receiver:
        webhook, _ = await add(allowed, receiver.url, kinds=["attester.enrolled"])
        await allowed.guest()
        for attempt in (1, 2, 3):
            await receiver.next()
            await tried(allowed, webhook, attempt)
            clock.advance(hours=1)
        (dead,) = await until(allowed, webhook, "dead")
        assert (dead["attempts"], dead["problem"]) == (3, "answered 503")
        assert "due_at" not in dead
        metrics = (await allowed.get("/metrics")).content.decode()
        assert 'vtpm_attest_webhook_deliveries{status="dead"} 1.0' in metrics
        assert 'vtpm_attest_webhook_attempts_total{outcome="failed"} 2.0' in metrics
        assert 'vtpm_attest_webhook_attempts_total{outcome="dead"} 1.0' in metrics
        path = f"/v1/webhooks/{webhook}/redeliver"
        assert (await allowed.post(path, {}, scope=Scope.OPERATOR)).json == {"count": 1}
        again = await receiver.next()
        await until(allowed, webhook, "delivered")
        assert again.id == receiver.received[0].id
        assert (await allowed.post(path, {}, scope=Scope.OPERATOR)).json == {"count": 0}


async def test_gone_means_never_again(allowed):
    async with receiving(answer=lambda _: 410) as receiver:
        webhook, _ = await add(allowed, receiver.url, kinds=["attester.enrolled"])
        await allowed.guest()
        (dead,) = await until(allowed, webhook, "dead")
        assert (dead["attempts"], dead["http_status"]) == (1, 410)


async def test_a_receiver_that_hangs_keeps_no_other_waiting(allowed):
    async with receiving(answer=lambda _: None) as stuck, receiving() as receiver:
        await add(allowed, stuck.url)
        await add(allowed, receiver.url, kinds=["attester.revoked"])
        guests = [await allowed.guest(seed) for seed in range(1, 7)]
        for guest in guests:
            await revoke(allowed, guest)
        told = {(await receiver.next()).json["subject"] for _ in guests}
        assert told == {guest.attester_id for guest in guests}


async def test_a_restart_loses_nothing(tmp_path, clock):
    """The verifier stops with one attempt under way and one event that nobody has looked at yet."""
    settings = settings_for(tmp_path, **ALLOWED)
    async with receiving(answer=lambda number: None if number == 1 else 204) as receiver:
        async with running(settings, clock) as first:
            webhook, secret = await add(first, receiver.url, kinds=["attester.enrolled", "attester.revoked"])
            guest = await first.guest()
            async with delivering(first):
                one = await receiver.next()
            await revoke(first, guest)
        clock.advance(minutes=2)
        async with running(settings, clock) as second, delivering(second):
            again, other = await receiver.next(), await receiver.next()
            await until(second, webhook, "delivered", 2)
    assert {one.id, other.id, again.id} == {one.id} | {other.id, again.id}
    by_type = {part.json["type"]: part for part in (again, other)}
    assert set(by_type) == {"vtpm-attest.attester.enrolled", "vtpm-attest.attester.revoked"}
    repeated = by_type["vtpm-attest.attester.enrolled"]
    assert (repeated.id, repeated.body) == (one.id, one.body)
    for part in (again, other):
        assert part.headers["webhook-signature"]
    assert secret not in _dump(settings.state_dir / "verifier.db")


def _dump(path) -> str:
    with sqlite3.connect(path) as connection:
        return "\n".join(connection.iterdump())


async def test_secrets_are_of_each_webhook_its_own_and_never_shown_again(allowed):
    async with receiving() as receiver:
        one, first = await add(allowed, receiver.url)
        _, second = await add(allowed, receiver.url)
    assert first != second
    assert first.startswith("whsec_")
    for path in ("/v1/webhooks", f"/v1/webhooks/{one}", f"/v1/webhooks/{one}/deliveries"):
        assert b"whsec_" not in (await allowed.get(path, Scope.OPERATOR)).content
    stored = _dump(allowed.service.settings.state_dir / "verifier.db")
    assert first.removeprefix("whsec_") not in stored


REFUSED = (
    "http://receiver.example/", "ftp://receiver.example/", "https://", "https:///hook", "receiver.example/hook",
    "https://127.0.0.1/", "https://10.1.2.3/hook", "https://169.254.169.254/latest", "https://[::1]/", "https://[fd00::1]/",
    "https://[::ffff:127.0.0.1]/", "https://100.64.0.1/", "https://0.0.0.0/", "https://user:secret@receiver.example/",
    "https://receiver.example/#part", "https://receiver.example:99999/", "https://receiver.example/a b",
    "https://receiver.example/\u00e4", "https://receiver.example/\r\nX: y", "https://[::1", "https://" + "a" * 2100,
)  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
async def test_a_url_that_must_not_be_sent_to_is_refused_and_nothing_is_stored(verifier, url):
    before = verifier.rows()["webhook"]
    answer = await verifier.post("/v1/webhooks", {"url": url}, scope=Scope.OPERATOR)
    assert (answer.status, answer.code) == (400, "malformed-request")
    assert verifier.rows()["webhook"] == before
    assert await verifier.decisions() == []


class Rebinding(AbstractResolver):
    """A name that is public when it is looked at, and the loopback from then on."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        pass


def sender(*, allow_private: bool, resolver=None) -> HttpWebhooks:
    return HttpWebhooks(
        timeout=timedelta(seconds=1), allow_http=True, allow_private=allow_private, resolver=resolver
    )


async def test_a_name_that_leads_inside_is_not_connected_to():
    async with receiving() as receiver:
        url = f"http://localhost:{receiver.port}/"
        inside = sender(allow_private=False)
        assert inside.refused(url) is None, "a name tells nothing before it is resolved"
        answer = await inside.send(url, b"{}", {})
        await inside.close()
        assert "no public address" in answer.problem
        trusting = sender(allow_private=True)
        assert (await trusting.send(url, b"{}", {})).problem is None
        await trusting.close()
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "spelling", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:7f00:1]", "localhost."]
)
async def test_no_spelling_of_the_loopback_gets_through(spelling):
    async with receiving() as receiver:
        inside = sender(allow_private=False)
        answer = await inside.send(f"http://{spelling}:{receiver.port}/", b"{}", {})
        await inside.close()
        assert answer.problem
    assert receiver.received == []


async def test_a_name_that_changes_its_address_gains_nothing():
    """The address that was checked is the one that is connected to: there is no second look-up to be answered otherwise."""
    async with receiving() as receiver:
        resolver = Rebinding("8.8.8.8", "127.0.0.1")
        inside = sender(allow_private=False, resolver=resolver)
        url = f"http://rebinding.example:{receiver.port}/"
        first = await inside.send(url, b"{}", {})
        assert resolver.asked == 1
        second = await inside.send(url, b"{}", {})
        await inside.close()
    assert first.problem
    assert "no public address" in second.problem
    assert receiver.received == []


async def test_bad_input_is_refused_by_name(verifier):
    url = "https://receiver.example/hook"
    for body in (
        {}, {"url": 7}, {"url": url, "kinds": ["nothing.happened"]}, {"url": url, "label": "no-equals"},
        {"url": url, "tier": "gold"}, {"url": url, "secret": "whsec_"}, {"url": url, "description": "x" * 257},
        {"url": url, "attester": "a b"}, {"url": url, "kinds": ["verdict.changed"] * 33}, [],
    ):  # fmt: skip
        answer = await verifier.post("/v1/webhooks", body, scope=Scope.OPERATOR)
        assert (answer.status, answer.code) == (400, "malformed-request"), body
    webhook, _ = await add(verifier, url)
    for query in ("?status=lost", "?limit=0", "?limit=501", "?before=0", "?before=x", "?x=1"):
        answer = await verifier.get(f"/v1/webhooks/{webhook}/deliveries{query}", Scope.OPERATOR)
        assert (answer.status, answer.code) == (400, "malformed-request"), query
    for body in ({"deliveries": ["1"]}, {"deliveries": [0]}, {"deliveries": [1] * 501}, {"all": True}):
        answer = await verifier.post(f"/v1/webhooks/{webhook}/redeliver", body, scope=Scope.OPERATOR)
        assert (answer.status, answer.code) == (400, "malformed-request"), body


async def test_another_tenant_s_webhook_does_not_exist(verifier):
    webhook, _ = await add(verifier, "https://receiver.example/hook")
    stranger = await verifier.token(Scope.OPERATOR, tenant="other")
    assert (await verifier.call("GET", "/v1/webhooks", token=stranger)).json == {"webhooks": []}
    for method, path, body in (
        ("GET", f"/v1/webhooks/{webhook}", None),
        ("GET", f"/v1/webhooks/{webhook}/deliveries", None),
        ("POST", f"/v1/webhooks/{webhook}/redeliver", {}),
        ("DELETE", f"/v1/webhooks/{webhook}", None),
    ):
        options = {} if body is None else {"json": body}
        answer = await verifier.call(method, path, token=stranger, **options)
        assert (answer.status, answer.code) == (404, "not-found"), path
    assert (await verifier.call("DELETE", f"/v1/webhooks/{webhook}", scope=Scope.OPERATOR)).status == 204
    assert (await verifier.get(f"/v1/webhooks/{webhook}", Scope.OPERATOR)).status == 404
    audit = (await verifier.get("/v1/audit", Scope.OPERATOR)).json["entries"]
    assert {"webhook.added", "webhook.removed"} <= {entry["action"] for entry in audit}


async def test_there_is_a_bound_on_webhooks(verifier):
    for number in range(32):
        await add(verifier, f"https://receiver.example/{number}")
    answer = await verifier.post("/v1/webhooks", {"url": "https://receiver.example/"}, scope=Scope.OPERATOR)
    assert (answer.status, answer.code) == (409, "conflict")


async def test_a_name_server_that_says_nothing_holds_no_guest_up(tmp_path, clock, monkeypatch):
    """The system's lookup cannot be called off: a few of them must not take what large logs are judged with."""
    hanging, asked = threading.Event(), []
    found = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if not str(host).endswith(".example"):
            return found(host, *arguments, **options)
        asked.append(host)
        hanging.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    settings = settings_for(tmp_path, **ALLOWED, WEBHOOKS_TIMEOUT="2s")
    async with running(settings, clock) as verifier, delivering(verifier):
        hooks = [(await add(verifier, f"https://hook-{number}.example/"))[0] for number in range(12)]
        more = agile_event(Written(8, EV_IPL, b"x" * 200), (HashAlg.SHA1, HashAlg.SHA256))
        guest = await verifier.guest(log=boot_log() + more * 1200)
        assert (await guest.attest()).status == 200
        await eventually(lambda: len(asked) >= len(hooks))
        guest.reboot()
        assert (await asyncio.wait_for(guest.attest(), 20)).status == 200

        async def problems():
            return {one.get("problem") for one in await deliveries(verifier, hooks[0])} - {None}

        assert await eventually(problems) == {"no answer within 2 s"}
        hanging.set()
