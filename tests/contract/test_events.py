"""The event log and the outbox, on each store: nothing lost, nothing twice, in one order, whoever writes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from msgspec import structs

from tests.contract.records import MINUTE, NOW, audit_entry, enrol, enrollment, policy, recording
from verifier.appraisal.lineage import Incident, IncidentKind, Lineage
from verifier.ports_enrollment import Decision
from verifier.ports_events import (
    Attempt,
    DeliveryStatus,
    EventFilter,
    EventKind,
    EventRecord,
    WebhookRecord,
)
from verifier.reasons import Tier

LEASE = NOW + MINUTE


def hook(number: str, tenant: str = "default", **wants) -> WebhookRecord:
    return WebhookRecord(
        id=number,
        tenant=tenant,
        url="https://receiver.example/hook",
        description="a receiver",
        wants=EventFilter(**wants),
        created_at=NOW,
        created_by="tok-1",
    )


async def add(store, record: WebhookRecord) -> None:
    assert await store.add_webhook(record, audit_entry(tenant=record.tenant), at_most=8)


async def published(store, tenant: str = "default") -> tuple[EventRecord, ...]:
    while (await store.publish_events(NOW)).events:
        pass
    return await store.events(tenant, after=0, limit=1000)


async def claim(store, now=NOW, **changes):
    return await store.claim_deliveries(now, now + MINUTE, **{"busy": {}, "each": 4, "limit": 32, **changes})


async def test_only_a_change_of_tier_is_an_event_and_it_says_from_what_to_what(store):
    await enrol(store, "att-1")
    audit = audit_entry(subject="att-1")
    await store.set_labels("default", "att-1", {"env": "prod"}, audit)
    for tier in (Tier.AFFIRMING, Tier.AFFIRMING, Tier.CONTRAINDICATED, Tier.CONTRAINDICATED):
        await store.record(recording("att-1", tier=tier))
    enrolled, first, second = await published(store)
    assert enrolled.kind is EventKind.ATTESTER_ENROLLED
    assert (first.tier, first.data["previous"], first.data["sequence"]) == (Tier.AFFIRMING, None, 1)
    assert (second.tier, second.data["previous"], second.data["sequence"]) == (
        Tier.CONTRAINDICATED,
        "affirming",
        3,
    )
    assert second.data["reasons"] == ["pcr-mismatch"]
    assert second.labels == {"env": "prod"}
    assert second.attester_id == second.subject == "att-1"


async def test_what_was_refused_is_no_event(store):
    await enrol(store, "att-1")
    once = recording("att-1", tier=Tier.AFFIRMING)
    again = structs.replace(once, verdict=structs.replace(once.verdict, tier=Tier.NONE))
    assert await store.record(once) is not None
    assert await store.record(again) is None, "its nonce is spent"
    assert not await store.revoke_attester("other", "att-1", NOW)
    assert [one.kind.value for one in await published(store)] == ["attester.enrolled", "verdict.changed"]


async def test_every_other_change_is_an_event_once(store):
    await enrol(store, "att-1")
    for _ in range(2):
        await store.revoke_attester("default", "att-1", NOW)
    for revision in ("a" * 64, "a" * 64, "b" * 64, "a" * 64):
        await store.add_policy(policy(revision=revision))
    for _ in range(2):
        await store.raise_alarm("tls:verifier:00", 30, audit_entry(action="expiry.near", subject="verifier"))
    pending = enrollment(waits_for="enrollment-pending")
    await store.add_enrollment(pending)
    for _ in range(2):
        await store.await_approval(pending.id, "enrollment-pending", NOW, NOW + 60 * MINUTE)
    decision = Decision(
        enrollment_id=pending.id,
        approved=True,
        at=NOW,
        keep_until=NOW + 60 * MINUTE,
        actor="tok-1",
        reason="known",
        attester_id="att-2",
    )
    assert await store.decide_enrollment("default", decision)
    assert await store.decide_enrollment("default", decision) is None
    found = [(one.kind.value, one.subject, one.attester_id) for one in await published(store)]
    assert found == [
        ("attester.enrolled", "att-1", "att-1"),
        ("attester.revoked", "att-1", "att-1"),
        ("policy.added", "strict", None),
        ("policy.added", "strict", None),
        ("policy.added", "strict", None),
        ("expiry.near", "verifier", None),
        ("enrollment.pending", pending.id, None),
        ("enrollment.approved", pending.id, "att-2"),
    ]


async def test_an_incident_is_told_of_when_it_opens_and_when_it_gets_worse(store):
    await enrol(store, "att-1")
    for kind in (None, IncidentKind.ROLLBACK, IncidentKind.ROLLBACK, IncidentKind.CLONE_PROVEN):
        line = Lineage(incident=None if kind is None else Incident(kind=kind, since=NOW))
        await store.record(structs.replace(recording("att-1"), lineage=line))
    state = await store.attester_state("att-1")
    audit = audit_entry(action="incident.resolved", subject="inc-1", detail={"attester": "att-1"})
    assert await store.resolve_lineage("default", "att-1", state.position, Lineage(), audit)
    told = [one for one in await published(store) if one.kind.value.startswith("incident")]
    assert [(one.kind.value, one.data.get("kind")) for one in told] == [
        ("incident.opened", "rollback"),
        ("incident.opened", "clone-proven"),
        ("incident.resolved", None),
    ]
    assert {one.attester_id for one in told} == {"att-1"}


async def test_a_tenant_sees_its_own_events_and_no_delivery_of_others(store):
    await enrol(store, "att-1")
    await enrol(store, "att-2", tenant="other")
    await add(store, hook("whk-1"))
    await add(store, hook("whk-2", "other"))
    assert [one.subject for one in await published(store)] == ["att-1"]
    assert [one.subject for one in await published(store, "other")] == ["att-2"]
    assert {(one.webhook.id, one.event.subject) for one in await claim(store)} == {
        ("whk-1", "att-1"),
        ("whk-2", "att-2"),
    }
    assert await store.deliveries("other", "whk-1", None, before=None, limit=10) == ()
    assert not await store.remove_webhook("other", "whk-1", audit_entry(tenant="other"))


async def test_readers_see_every_event_once_and_in_order_while_many_write(database):
    """Two replicas write, both publish, and readers follow by position alone, as streams do."""
    replicas = [await database.open(), await database.open()]
    for number in range(12):
        await enrol(replicas[0], f"att-{number}")
    done = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(8):
            tier = Tier.AFFIRMING if turn % 2 else Tier.CONTRAINDICATED
            await replicas[(number + turn) % 2].record(recording(f"att-{number}", tier=tier))

    background = [asyncio.ensure_future(_publish(one, done)) for one in replicas]
    readers = [asyncio.ensure_future(_follow(one, done)) for one in replicas]
    await asyncio.gather(*(write(number) for number in range(12)))
    await published(replicas[0])
    done.set()
    await asyncio.gather(*background)
    for seen in await asyncio.gather(*readers):
        assert seen == list(range(1, 12 + 12 * 8 + 1))


async def _publish(replica, done: asyncio.Event) -> None:
    while not done.is_set():
        await replica.publish_events(NOW)
        await asyncio.sleep(0.001)


async def _follow(replica, done: asyncio.Event) -> list[int]:
    seen: list[int] = []
    while True:
        over = done.is_set()
        page = await replica.events("default", after=seen[-1] if seen else 0, limit=7)
        seen += [one.position for one in page]
        if over and not page:
            return seen
        await asyncio.sleep(0)


async def test_a_transaction_that_commits_late_is_not_passed_over(postgresql_database, cluster):
    """Its number in the database is lower than one that readers have seen already: the pitfall of sequences."""
    store = await postgresql_database.open()
    late = await asyncio.create_subprocess_exec(
        "psql", "-h", str(cluster.root), "-U", "verifier", "-qX", "-d", postgresql_database.name,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    late.stdin.write(
        b"BEGIN; INSERT INTO event (tenant, kind, subject, at, labels, data) VALUES"
        b" ('default', 'policy.added', 'late', 0, '{}', '{}');\n\\echo begun\n"
    )
    assert await late.stdout.readline() == b"begun\n"
    await store.add_policy(policy(id="early"))
    (early,) = await published(store)
    assert early.subject == "early"
    late.stdin.write(b"COMMIT;\n\\echo done\n")
    assert await late.stdout.readline() == b"done\n"
    late.stdin.close()
    await late.wait()
    await published(store)
    (after,) = await store.events("default", after=early.position, limit=10)
    assert after.subject == "late"


async def test_what_is_wanted_is_filed_and_tried_by_one_replica_at_a_time(database):
    replicas = [await database.open(), await database.open()]
    store = replicas[0]
    await add(store, hook("whk-1", kinds=frozenset({EventKind.ATTESTER_REVOKED})))
    await add(store, hook("whk-2", tier=Tier.NONE))
    for number in range(6):
        await enrol(store, f"att-{number}")
        await store.revoke_attester("default", f"att-{number}", NOW)
    await published(store)
    taken = await asyncio.gather(*(claim(one, each=3) for one in replicas))
    found = [one for part in taken for one in part]
    assert len(found) == len({one.event.subject for one in found}) == 6
    assert {one.webhook.id for one in found} == {"whk-1"}
    assert {one.delivery.attempts for one in found} == {1}
    assert await claim(store) == ()
    assert await claim(store, busy={"whk-1": 3}, each=3, now=NOW + 2 * MINUTE) == ()


async def test_a_replica_that_died_loses_nothing_and_one_that_was_slow_changes_nothing(store):
    await add(store, hook("whk-1"))
    await enrol(store, "att-1")
    await published(store)
    (first,) = await claim(store)
    (second,) = await claim(store, now=NOW + 2 * MINUTE)
    assert (second.event, second.delivery.attempts) == (first.event, 2)
    late = Attempt(delivered=False, at=NOW)
    assert not await store.finish_delivery(first.delivery.id, first.delivery.attempts, late)
    done = Attempt(delivered=True, at=NOW, http_status=204)
    assert await store.finish_delivery(second.delivery.id, second.delivery.attempts, done)
    assert await claim(store, now=NOW + timedelta(days=9)) == ()
    (kept,) = await store.deliveries("default", "whk-1", None, before=None, limit=10)
    assert (kept.status, kept.http_status, kept.finished_at) == (DeliveryStatus.DELIVERED, 204, NOW)


async def test_dead_deliveries_are_listed_and_tried_again_when_asked_for(store):
    await add(store, hook("whk-1"))
    for number in range(3):
        await enrol(store, f"att-{number}")
    await published(store)
    for one in await claim(store):
        gone = Attempt(delivered=False, at=NOW, problem="no route to \x00 host" * 100)
        assert await store.finish_delivery(one.delivery.id, one.delivery.attempts, gone)
    dead = await store.deliveries("default", "whk-1", DeliveryStatus.DEAD, before=None, limit=2)
    assert len(dead) == 2
    rest = await store.deliveries("default", "whk-1", DeliveryStatus.DEAD, before=dead[-1].id, limit=2)
    assert len(rest) == 1
    assert await store.delivery_counts() == {"pending": 0, "delivered": 0, "dead": 3}
    audit = audit_entry(action="webhook.redelivered")
    assert await store.redeliver("other", "whk-1", None, NOW, audit) == 0
    assert await store.redeliver("default", "whk-1", [dead[0].id, 10**9], NOW, audit) == 1
    assert [one.delivery.id for one in await claim(store)] == [dead[0].id]
    assert await store.redeliver("default", "whk-1", None, NOW, audit) == 2
    entries = await store.list_audit("default", subject=None, before=None, limit=9)
    assert [one.action for one in entries].count("webhook.redelivered") == 2


async def test_old_events_go_but_never_one_that_somebody_waits_for(store):
    await add(store, hook("whk-1", attester_id="att-1"))
    for number in range(3):
        await enrol(store, f"att-{number}")
    await published(store)
    assert await store.purge_events(NOW) == 0
    assert await store.purge_events(NOW + MINUTE) == 2
    assert [one.subject for one in await store.events("default", after=0, limit=9)] == ["att-1"]
    assert await store.event_bounds() == (3, 3)
    (one,) = await claim(store)
    await store.finish_delivery(one.delivery.id, 1, Attempt(delivered=True, at=NOW))
    assert await store.purge_events(NOW + MINUTE) == 1
    assert await store.deliveries("default", "whk-1", None, before=None, limit=9) == ()
    await enrol(store, "att-9")
    assert [event.position for event in await published(store)] == [4], "a position is never given twice"


async def test_a_removed_webhook_takes_its_deliveries_along_and_there_are_not_too_many(store):
    for number in range(8):
        await add(store, hook(f"whk-{number}"))
    assert not await store.add_webhook(hook("whk-9"), audit_entry(), at_most=8)
    await enrol(store, "att-1")
    await published(store)
    assert await store.remove_webhook("default", "whk-3", audit_entry())
    assert not await store.remove_webhook("default", "whk-3", audit_entry())
    assert {one.webhook.id for one in await claim(store)} == {f"whk-{n}" for n in range(8)} - {"whk-3"}
