"""Secrets on each store: what is changed is recorded, and what is released rests on what holds in that transaction."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.contract.records import MINUTE, NOW, audit_entry, enrol, recording
from verifier.appraisal.lineage import Incident, IncidentKind, Lineage
from verifier.ports_secrets import (
    AddGrant,
    Changed,
    DropGrant,
    DropSecret,
    KeepSecret,
    Released,
    SecretGrant,
    SecretRelease,
    StoredSecret,
)

ME = "att-1"


def secret(**changes) -> StoredSecret:
    made = StoredSecret(
        tenant="default",
        name="disk",
        description="a disk\N{SNOWMAN}",
        revision=1,
        size=32,
        key_id="k1",
        sealed=bytes(range(256)),
        created_at=NOW,
        changed_at=NOW,
        changed_by="tok-1",
    )
    return dataclasses.replace(made, **changes)


def a_grant(number: str = "grt-1", **changes) -> SecretGrant:
    made = SecretGrant(id=number, attester_id=ME, created_at=NOW, created_by="tok-1")
    return dataclasses.replace(made, **changes)


def entry(action: str = "secret.put"):
    return audit_entry(action=action, subject="disk", detail={"attester": ME})


async def keep(store, kept: StoredSecret, replacing: int = 0, at_most: int = 8) -> Changed:
    return await store.change_secret(KeepSecret(secret=kept, replacing=replacing, at_most=at_most), entry())


async def add(store, grant: SecretGrant, at_most: int = 8, **where) -> Changed:
    where = {"tenant": "default", "name": "disk"} | where
    return await store.change_secret(AddGrant(grant=grant, at_most=at_most, **where), entry())


async def release(store, grant: str = "grt-1", sequence: int = 1, **changes) -> Released:
    made = SecretRelease(
        tenant="default",
        name="disk",
        revision=1,
        grant_id=grant,
        attester_id=ME,
        sequence=sequence,
        at=NOW + MINUTE,
    )
    return await store.release_secret(dataclasses.replace(made, **changes), entry("secret.released"))


async def recorded(store, action: str = "secret.released") -> int:
    entries = await store.list_audit("default", subject="disk", before=None, limit=100)
    return sum(one.action == action for one in entries)


@pytest.fixture
async def granted(store):
    """A secret, an attester with one verdict, and its grant."""
    await enrol(store, ME)
    await store.record(recording(ME))
    assert await keep(store, secret()) is Changed.DONE
    assert await add(store, a_grant()) is Changed.DONE
    return store


async def test_a_secret_comes_back_as_it_was_kept_with_its_grants(store):
    grants = (
        a_grant("grt-1"),
        a_grant("grt-2", attester_id=None, labels={"b": "2", "a": "1"}, created_at=NOW + MINUTE),
        a_grant(
            "grt-3",
            attester_id=None,
            policy_id="web",
            uses_left=3,
            expires_at=NOW + MINUTE,
            created_at=NOW + MINUTE,
        ),
    )
    assert await keep(store, secret()) is Changed.DONE
    assert await keep(store, secret(name="other", sealed=b"x")) is Changed.DONE
    for grant in grants:
        assert await add(store, grant) is Changed.DONE
    assert await store.secret("default", "disk") == secret(grants=grants)
    assert await store.secrets("default") == (secret(grants=grants), secret(name="other", sealed=b"x"))
    assert await recorded(store, "secret.put") == 5


async def test_only_the_revision_that_was_read_is_replaced(store):
    assert await keep(store, secret(), replacing=1) is Changed.MOVED
    assert await keep(store, secret()) is Changed.DONE
    assert await keep(store, secret()) is Changed.MOVED, "there is one already"
    assert await keep(store, secret(revision=2, sealed=b"two"), replacing=1) is Changed.DONE
    assert await keep(store, secret(revision=2, sealed=b"late"), replacing=1) is Changed.MOVED
    found = await store.secret("default", "disk")
    assert (found.revision, found.sealed) == (2, b"two")
    assert await recorded(store, "secret.put") == 2, "what changed nothing is not recorded"


async def test_of_many_who_put_at_once_each_revision_is_one_s(database):
    stores = [await database.open() for _ in range(3)]
    for revision in (1, 2, 3):
        done = await asyncio.gather(
            *(
                keep(store, secret(revision=revision, sealed=b"%d" % number), replacing=revision - 1)
                for number, store in enumerate(stores)
            )
        )
        assert sorted(one.name for one in done) == ["DONE", "MOVED", "MOVED"]


async def test_grants_and_secrets_are_bounded_and_go_together(granted):
    assert await keep(granted, secret(name="two"), at_most=1) is Changed.FULL
    assert await add(granted, a_grant("grt-2"), at_most=1) is Changed.FULL
    assert await add(granted, a_grant("grt-2"), name="absent") is Changed.MOVED
    assert await add(granted, a_grant("grt-2"), tenant="other") is Changed.MOVED
    for wrong in ({"name": "absent"}, {"tenant": "other"}, {"grant_id": "grt-9"}):
        where = {"tenant": "default", "name": "disk", "grant_id": "grt-1"} | wrong
        assert await granted.change_secret(DropGrant(**where), entry()) is Changed.MOVED
    for tenant, done in (("other", Changed.MOVED), ("default", Changed.DONE), ("default", Changed.MOVED)):
        assert await granted.change_secret(DropSecret(tenant=tenant, name="disk"), entry()) is done
    assert await granted.secret("default", "disk") is None
    assert await keep(granted, secret()) is Changed.DONE
    assert (await granted.secret("default", "disk")).grants == (), "the old ones do not come back"


async def test_a_release_is_recorded_and_told_in_one(granted):
    assert await release(granted) is Released.RECORDED
    assert await recorded(granted) == 1
    await granted.publish_events(NOW)
    (told,) = [one for one in await granted.events("default", after=0, limit=99) if one.subject == "disk"]
    assert (told.kind.value, told.attester_id) == ("secret.released", ME)


OTHERWISE = {
    "another revision": ({"revision": 2}, Released.MOVED),
    "another secret": ({"name": "two"}, Released.MOVED),
    "another tenant": ({"tenant": "other"}, Released.SHUT_OUT),
    "another attester": ({"attester_id": "att-9"}, Released.SHUT_OUT),
    "another grant": ({"grant_id": "grt-9"}, Released.MOVED),
    "an older verdict": ({"sequence": 0}, Released.OVERTAKEN),
}


async def test_what_does_not_hold_any_more_is_released_to_nobody(granted):
    await keep(granted, secret(name="two"))
    for changes, outcome in OTHERWISE.values():
        assert await release(granted, **changes) is outcome, changes
    await granted.record(recording(ME))
    assert await release(granted) is Released.OVERTAKEN
    assert await release(granted, sequence=2) is Released.RECORDED
    await granted.revoke_attester("default", ME, NOW)
    assert await release(granted, sequence=2) is Released.SHUT_OUT
    assert await recorded(granted) == 1


async def test_an_open_incident_withholds_it(granted):
    line = Lineage(incident=Incident(kind=IncidentKind.ROLLBACK, since=NOW))
    assert await granted.resolve_lineage("default", ME, 1, line, entry("incident.resolved"))
    assert await release(granted) is Released.INCIDENT
    assert await granted.resolve_lineage("default", ME, 2, Lineage(), entry("incident.resolved"))
    assert await release(granted) is Released.RECORDED


async def test_uses_are_counted_down_and_end(database):
    stores = [await database.open() for _ in range(3)]
    await enrol(stores[0], ME)
    await stores[0].record(recording(ME))
    await keep(stores[0], secret())
    await add(stores[0], a_grant(uses_left=4))
    done = await asyncio.gather(*(release(stores[number % 3]) for number in range(9)))
    assert sum(one is Released.RECORDED for one in done) == 4
    assert sum(one is Released.MOVED for one in done) == 5
    (left,) = (await stores[0].secret("default", "disk")).grants
    assert left.uses_left == 0
    assert await recorded(stores[0]) == 4


async def test_a_grant_ends_with_its_time(granted):
    await add(granted, a_grant("grt-2", expires_at=NOW + 2 * MINUTE))
    assert await release(granted, "grt-2", at=NOW + 2 * MINUTE) is Released.MOVED
    assert await release(granted, "grt-2", at=NOW + MINUTE) is Released.RECORDED


async def test_revoked_at_the_same_time_it_is_released_before_or_not_at_all(database):
    """Whatever the order, nothing is released after the revocation."""
    stores = [await database.open() for _ in range(2)]
    await enrol(stores[0], ME)
    await stores[0].record(recording(ME))
    await keep(stores[0], secret())
    await add(stores[0], a_grant())
    *done, revoked = await asyncio.gather(
        *(release(stores[number % 2]) for number in range(4)),
        stores[1].revoke_attester("default", ME, NOW, entry("attester.revoked")),
    )
    assert revoked
    assert set(done) <= {Released.RECORDED, Released.SHUT_OUT}
    actions = [
        one.action for one in await stores[0].list_audit("default", subject="disk", before=None, limit=99)
    ]
    before = actions[: actions.index("attester.revoked")]
    assert "secret.released" not in before, "newest first: nothing came after it"
