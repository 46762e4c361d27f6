"""Changes are told once they are durable: here at once, and to whoever else is on a PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.contract.records import NOW, audit_entry, enrol, policy, recording, token
from tests.eventually import eventually
from verifier.policy.assignment import Assignment, Mode
from verifier.ports_announcements import Announcement, Topic
from verifier.reasons import Tier
from verifier.store import announce

TENANT = "default"


def heard_by(store) -> list[Announcement]:
    """What a store tells its process, as it comes."""
    heard: list[Announcement] = []
    store.announcements.listen(heard.append)
    return heard


@asynccontextmanager
async def two(database):
    """Two replicas, and what the second one hears."""
    first, second = await database.open(), await database.open()
    heard = heard_by(second)
    for store in (first, second):
        store.follow()
    await eventually(lambda: first.announcements.state.told and second.announcements.state.told)
    heard.clear()
    yield first, second, heard


def assignment() -> Assignment:
    return Assignment(
        id="asg-1",
        policy_id="p",
        revision=None,
        mode=Mode.ENFORCE,
        priority=1,
        selector={"env": "prod"},
        changed_at=NOW,
    )


async def test_whoever_made_a_change_hears_of_it_when_it_is_durable(store):
    heard = heard_by(store)
    await store.add_policy(policy())
    assert set(heard) == {Announcement(Topic.EVENTS), Announcement(Topic.POLICIES, TENANT)}
    heard.clear()
    await store.put_assignment(TENANT, assignment(), audit_entry())
    assert heard == [Announcement(Topic.ASSIGNMENTS, TENANT)]
    heard.clear()
    await store.remove_assignment(TENANT, "asg-1", audit_entry())
    assert heard == [Announcement(Topic.ASSIGNMENTS, TENANT)]
    heard.clear()
    new = token()
    await store.add_token(new)
    await store.revoke_token(TENANT, new.id, NOW)
    assert heard == [Announcement(Topic.TOKENS, TENANT)] * 2


async def test_what_changes_nothing_is_told_to_nobody(store):
    await enrol(store, "att-1")
    await store.record(recording("att-1", tier=Tier.AFFIRMING))
    await store.add_policy(policy(id="p", revision="r1"))
    heard = heard_by(store)
    await store.record(recording("att-1", tier=Tier.AFFIRMING))
    await store.add_policy(policy(id="p", revision="r1"))
    await store.revoke_token(TENANT, "tok-nobody", NOW)
    await store.remove_assignment(TENANT, "asg-nobody", audit_entry())
    assert heard == []
    await store.record(recording("att-1", tier=Tier.CONTRAINDICATED))
    assert heard == [Announcement(Topic.EVENTS)]


async def test_what_was_undone_is_not_told_even_later(store):
    heard = heard_by(store)

    def undone(connection):
        from verifier.store.announcing import note

        note(connection, Topic.POLICIES, TENANT)
        raise ValueError("undo")

    with pytest.raises(ValueError, match="undo"):
        await store._backend.write(undone)
    await store.ping()
    assert heard == []


async def test_sqlite_says_that_nobody_tells(tmp_path):
    from verifier.store import open_store

    store = await open_store(f"sqlite:///{tmp_path}/verifier.db")
    store.follow()
    assert not store.announcements.state.told
    await store.close()


async def test_a_replica_hears_what_another_one_changed_and_not_what_it_did_itself(postgresql_database):
    async with two(postgresql_database) as (first, second, heard):
        await first.add_policy(policy(tenant="a b"))
        await eventually(lambda: Announcement(Topic.POLICIES, "a b") in heard)
        await first.add_token(token())
        await eventually(lambda: Announcement(Topic.TOKENS, TENANT) in heard)
        assert Announcement(Topic.EVENTS) not in heard  # not published yet: there is nothing to be read
        await first.publish_events(NOW)
        await eventually(lambda: Announcement(Topic.EVENTS) in heard)
        assert first.announcements.state.received == 0
        assert second.announcements.state.sent == 0


async def test_attestations_that_change_nothing_are_told_to_nobody(postgresql_database):
    async with two(postgresql_database) as (first, _, heard):
        await enrol(first, "att-1")
        await first.record(recording("att-1"))
        await first.publish_events(NOW)
        await eventually(lambda: heard)
        sent = first.announcements.state.sent
        for _ in range(5):
            await first.record(recording("att-1"))
        await first.publish_events(NOW)
        await asyncio.sleep(0.1)
        assert first.announcements.state.sent == sent
        assert heard == [Announcement(Topic.EVENTS)]


async def test_who_was_cut_off_says_so_comes_back_and_looks_at_everything(postgresql_database, cluster):
    async with two(postgresql_database) as (first, second, heard):
        cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{postgresql_database.name}' AND application_name = 'vtpm-attest listens'"
        )
        await eventually(lambda: not first.announcements.state.told and not second.announcements.state.told)
        await first.add_policy(policy())
        await eventually(lambda: Announcement(Topic.ANYTHING) in heard)
        assert second.announcements.state.told
        assert second.announcements.state.losses == 1
        # Said by the other one once it was back: told twice is better than never.
        await eventually(lambda: first.announcements.state.told and first.announcements.state.sent == 1)


async def test_a_server_that_is_gone_for_a_while_is_found_again(postgresql_database, cluster):
    async with two(postgresql_database) as (first, second, heard):
        cluster.stop()
        await eventually(lambda: not first.announcements.state.told and not second.announcements.state.told)
        cluster.start()
        await eventually(lambda: first.announcements.state.told and second.announcements.state.told)
        heard.clear()
        await first.add_token(token())
        await eventually(lambda: Announcement(Topic.TOKENS, TENANT) in heard)


async def test_a_command_that_ends_at_once_has_told_what_it_changed(postgresql_database):
    async with two(postgresql_database) as (_, _, heard):
        command = await postgresql_database.open()
        await command.add_token(token())
        await command.close()
        await eventually(lambda: Announcement(Topic.TOKENS, TENANT) in heard)
        await announce(postgresql_database.url, Announcement(Topic.KEYS))
        await eventually(lambda: Announcement(Topic.KEYS) in heard)


async def test_a_change_that_only_a_later_version_knows_is_passed_over(postgresql_database, cluster):
    async with two(postgresql_database) as (first, _, heard):
        cluster.sql("SELECT pg_notify('vtpm_attest', 'other weather default')", postgresql_database.name)
        cluster.sql("SELECT pg_notify('vtpm_attest', 'other')", postgresql_database.name)
        await first.add_token(token())
        await eventually(lambda: heard)
        assert heard == [Announcement(Topic.TOKENS, TENANT)]
