"""Two verifiers on one PostgreSQL: what one of them is told counts with the other at once.

The clock stands still and nobody looks by himself, so that nothing here comes from memory that has run out.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest

from tests.e2e.test_http_assignments import STRICT, assign, push
from tests.e2e.test_http_events import stream, take
from tests.e2e.test_http_webhooks import delivering, revoke
from tests.eventually import eventually
from tests.harness import FakeClock, Guest, running, settings_for
from tests.postgresql import started
from tests.simulator import AkProfile
from verifier import main
from verifier.ports import Scope
from verifier.ports_announcements import Announcement, Topic
from verifier.service import feed, watch


@pytest.fixture(scope="module")
def server():
    """A real PostgreSQL."""
    with started() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch):
    """Whoever is not told learns nothing."""
    for module, name in ((feed, "POLL"), (feed, "POLL_TOLD"), (watch, "_POLL")):
        monkeypatch.setattr(module, name, 3600.0)


@asynccontextmanager
async def replicas(folder, server):
    """Two verifiers that share a database and a folder, as behind a load balancer."""
    name = f"replicas_{uuid.uuid4().hex}"
    server.sql(f"CREATE DATABASE {name}")
    clock = FakeClock()
    settings = settings_for(folder, DATABASE=server.url(name))
    async with (
        running(settings, clock) as first,
        running(settings, clock) as second,
        delivering(first),
        delivering(second),
    ):
        states = [each.service.store.announcements.state for each in (first, second)]
        await eventually(lambda: all(state.told for state in states))
        yield first, second


async def verdict(guest: Guest, at) -> dict:
    """Of an attestation that this replica is sent."""
    guest.harness = at
    return (await guest.attest()).json["verdict"]


async def test_an_event_reaches_a_stream_on_the_other_replica(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        async with stream(second, "?kind=attester.revoked") as events:
            await take(events, 1)
            await revoke(first, guest)
            ((kind, _, data),) = await take(events, 1)
        assert (kind, data["subject"]) == ("attester.revoked", guest.attester_id)


async def test_a_new_policy_judges_at_once_on_the_other_replica(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        assert (await verdict(guest, second))["status"] == "affirming"
        await push(first, STRICT)

        async def judged():
            return (await verdict(guest, second))["status"] == "contraindicated"

        await eventually(judged)


async def test_an_assignment_judges_at_once_on_the_other_replica(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        assert (await verdict(guest, second))["status"] == "affirming"
        await push(first, STRICT.replace("id: secure-boot", "id: strict", 1))
        assert (await assign(first, "strict", selector={}, priority=3)).status == 200

        async def judged():
            return (await verdict(guest, second))["status"] == "contraindicated"

        await eventually(judged)


async def expected(guest: Guest, at) -> None:
    """A guest that this replica heard last, so that it need not ask what is known of it."""
    guest.harness = at
    for _ in range(3):
        assert (await guest.speak())["status"] == "affirming"
    before = at.service.services.attestations.expected_states.hits
    assert (await guest.speak())["status"] == "affirming"
    assert at.service.services.attestations.expected_states.hits == before + 1


async def test_a_guest_that_was_heard_elsewhere_meanwhile_is_judged_by_all_of_its_past(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        for at in (first, second, first):
            await expected(guest, at)
        shown = await first.get(f"/v1/attesters/{guest.attester_id}")
        assert shown.json["verdict"]["sequence"] == 12
        assert not [one for one in shown.json["verdict"]["findings"] if one["status"] != "passed"]


async def test_a_copy_that_turns_to_the_other_replica_is_found_out(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        await expected(guest, second)
        copy = guest.copied(running=True, hostname="copy")
        copy.harness = first
        for _ in range(2):
            await copy.speak()
        verdict = await guest.speak()
        assert verdict["status"] == "contraindicated", verdict["findings"]


async def test_whoever_was_revoked_at_the_other_replica_is_not_heard(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        await expected(guest, second)
        await revoke(first, guest)
        assert (await guest.attest(guest.carried)).code == "attester-revoked"


async def test_labels_given_at_the_other_replica_choose_the_policy_of_the_next_verdict(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        await push(second, STRICT.replace("id: secure-boot", "id: strict", 1))
        assert (await assign(second, "strict", selector={"site": "b"}, priority=3)).status == 200
        await expected(guest, second)
        await first.service.services.assignments.label("default", guest.attester_id, {"site": "b"}, "test")
        assert (await guest.speak())["policy"]["id"] == "strict"


@pytest.mark.parametrize("first_to_speak", ["new", "old"])
async def test_a_key_bound_at_the_other_replica_speaks_and_the_one_before_does_not(
    tmp_path, server, first_to_speak
):
    """Whichever comes first meets what was expected: neither a verdict nor a refusal may follow from it."""
    async with replicas(tmp_path, server) as (first, second):
        guest = await first.guest()
        await expected(guest, second)
        before, guest.harness = guest.copied(running=True), first
        guest.tpm.ak = guest.tpm.make_ak(AkProfile(label="second"))
        await guest.enroll()
        guest.harness = second
        if first_to_speak == "old":
            assert (await before.attest(guest.carried)).code == "quote-signature"
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        assert (await before.attest()).code == "quote-signature"


async def test_a_revoked_token_is_refused_at_once_by_the_other_replica(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        record, text = await first.service.services.tokens.create(
            tenant="default",
            scopes=frozenset({Scope.DASHBOARD}),
            label="",
            lifetime=None,
            uses=None,
            actor="test",
        )
        assert (await second.call("GET", "/v1/status", token=text)).status == 200
        await first.service.services.tokens.revoke("default", record.id, "test")

        async def refused():
            return (await second.call("GET", "/v1/status", token=text)).status == 401

        await eventually(refused)


async def test_a_relying_party_that_waits_at_the_other_replica_hears_of_a_revocation(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        watching = asyncio.create_task(second.service.services.watch.run())
        try:
            guest = await first.guest()
            await guest.attest()
            path = f"/v1/attesters/{guest.attester_id}/verdict"
            before = await second.get(path, Scope.RELYING_PARTY)
            headers = {"If-None-Match": before.headers["ETag"]}
            waiting = asyncio.create_task(second.get(f"{path}?wait=25", Scope.RELYING_PARTY, headers=headers))
            await eventually(lambda: second.service.services.watch.waiting)
            await revoke(first, guest)
            answer = await waiting
            assert answer.status == 200, answer.status
            assert answer.json["lifecycle"] == "revoked"
        finally:
            watching.cancel()


async def test_a_rotation_of_the_signing_key_is_told_to_every_replica(tmp_path, server):
    async with replicas(tmp_path, server) as (first, second):
        before = await second.get("/.well-known/jwks.json")
        heard = []
        second.service.store.announcements.listen(heard.append)
        await asyncio.to_thread(main.rotate_keys, first.service.settings, first.service.settings.events.keep)
        await eventually(lambda: Announcement(Topic.KEYS) in heard)
        after = await second.get("/.well-known/jwks.json")
        assert len(after.json["keys"]) == len(before.json["keys"]) + 1
