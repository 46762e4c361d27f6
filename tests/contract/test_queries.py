"""What relying parties read, on every database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.contract.records import NOW, audit_entry, enrol, enrollment, recording
from verifier.errors import EvidenceError
from verifier.ports import Lifecycle
from verifier.ports_queries import MAX_BULK, StandingFilter
from verifier.reasons import Tier
from verifier.service.events import LocalEvents
from verifier.service.recorder import Recorder


async def listed(store, tenant="default", limit=10, cursor=None, at=NOW, **where):
    page = await store.standings(tenant, StandingFilter(**where), now=at, cursor=cursor, limit=limit)
    return [one.attester_id for one in page.items], page.cursor


async def test_a_standing_is_what_the_attester_state_says(store):
    await enrol(store, "att-1")
    stored = await store.record(recording("att-1"))
    await enrol(store, "att-2")
    attested, silent = await store.standings_of("default", ["att-2", "att-1", "att-0"])
    state = await store.attester_state("att-1")
    assert attested.latest == state.latest == stored
    assert (attested.ek_fingerprint, attested.lifecycle) == (
        state.attester.ek_fingerprint,
        Lifecycle.ENROLLED,
    )
    assert (silent.attester_id, silent.latest) == ("att-2", None)


async def test_no_more_than_a_thousand_at_once(store):
    await enrol(store, "att-1")
    ids = ["att-1", *(f"none-{number}" for number in range(MAX_BULK - 1))]
    assert [one.attester_id for one in await store.standings_of("default", ids)] == ["att-1"]
    assert [one.attester_id for one in await store.marks(ids)] == ["att-1"]
    for read in (store.standings_of("default", [*ids, "more"]), store.marks([*ids, "more"])):
        with pytest.raises(EvidenceError):
            await read


async def test_filters_hold_together_and_within_the_tenant(store):
    for number in (1, 2, 3):
        await enrol(store, f"att-{number}")
    await store.set_labels("default", "att-1", {"role": "web"}, audit_entry())
    await store.set_labels("default", "att-3", {"role": "web"}, audit_entry())
    ek = (await store.attester_state("att-1")).attester.ek_fingerprint
    uuid = next(iter((await store.attester_state("att-1")).attester.smbios_uuids), None)
    assert await listed(store, label=("role", "web")) == (["att-1", "att-3"], None)
    assert await listed(store, ek_fingerprint=ek) == (["att-1"], None)
    assert await listed(store, label=("role", "web"), ek_fingerprint=ek) == (["att-1"], None)
    assert uuid is not None
    assert "att-1" in (await listed(store, smbios_uuids=(uuid.upper(), "other")))[0]
    assert await listed(store, smbios_uuids=("other",)) == ([], None)
    for where in ({}, {"label": ("role", "web")}, {"ek_fingerprint": ek}, {"smbios_uuids": (uuid,)}):
        assert await listed(store, "other", **where) == ([], None)


async def test_pages_follow_each_other(store):
    for number in (3, 1, 2):
        await enrol(store, f"att-{number}")
    first, cursor = await listed(store, limit=2)
    rest, end = await listed(store, limit=2, cursor=cursor)
    assert (first, rest, end) == (["att-1", "att-2"], ["att-3"], None)
    with pytest.raises(EvidenceError):
        await listed(store, limit=2, cursor=cursor, least=Tier.WARNING)


async def test_good_enough_is_current_enrolled_and_not_worse(store):
    for number, tier in enumerate((Tier.AFFIRMING, Tier.WARNING, Tier.NONE, Tier.CONTRAINDICATED), 1):
        await enrol(store, f"att-{number}")
        await store.record(recording(f"att-{number}", tier=tier))
    await enrol(store, "att-5")
    assert (await listed(store, least=Tier.AFFIRMING))[0] == ["att-1"]
    assert (await listed(store, least=Tier.WARNING))[0] == ["att-1", "att-2"]
    ends = (await store.attester_state("att-1")).latest.valid_until
    assert (await listed(store, least=Tier.WARNING, at=ends))[0] == ["att-1", "att-2"]
    assert (await listed(store, least=Tier.WARNING, at=ends + timedelta(seconds=1)))[0] == []
    await store.revoke_attester("default", "att-1", NOW)
    assert (await listed(store, least=Tier.WARNING))[0] == ["att-2"]


async def test_a_mark_changes_with_every_verdict_and_with_the_lifecycle(store):
    await enrol(store, "att-1")
    marks = [await store.marks(["att-1"])]
    for _ in range(2):
        await store.record(recording("att-1"))
        marks.append(await store.marks(["att-1"]))
    await store.revoke_attester("default", "att-1", NOW)
    marks.append(await store.marks(["att-1"]))
    assert len(set(marks)) == 4
    assert [mark.sequence for (mark,) in marks] == [0, 1, 2, 2]
    assert [mark.tier for (mark,) in marks] == [None, Tier.AFFIRMING, Tier.AFFIRMING, Tier.AFFIRMING]
    assert marks[-1][0].lifecycle is Lifecycle.REVOKED


async def test_whose_place_is_taken_is_known_to_have_changed_at_once(store):
    """Another TPM of the same machine, let in without a person: the mark of the one before it is forgotten."""
    await enrol(store, "att-1")
    events, changed = LocalEvents(), set()
    events.listen(lambda change: changed.add(change.attester_id))
    new = enrollment(replaces="att-1")
    await store.add_enrollment(new)
    await Recorder(store, events).enrolled(new.id, "att-2", NOW, new.replaces)
    (mark,) = await store.marks(["att-1"])
    assert mark.lifecycle is Lifecycle.RETIRED
    assert changed == {"att-1", "att-2"}
