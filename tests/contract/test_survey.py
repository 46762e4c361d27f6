"""A survey goes on past records that cannot be read; a listing does not."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.contract.records import NOW, enrol, recording
from verifier.errors import StoredDataDamaged
from verifier.ports import DamagedState, FleetFilter
from verifier.reasons import Tier
from verifier.store.schema import attester, judgement, latest

EVERYONE = FleetFilter()


async def test_a_survey_of_sound_records_is_the_listing(store):
    for number in range(5):
        await enrol(store, f"att-{number}")
        await store.record(recording(f"att-{number}"))
    cursor, seen = None, []
    while True:
        page = await store.survey("default", EVERYONE, now=NOW, cursor=cursor, limit=2)
        listed = await store.list_attesters("default", EVERYONE, now=NOW, cursor=cursor, limit=2)
        assert page == listed
        seen += [state.attester.id for state in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"att-{number}" for number in range(5)]


async def test_a_damaged_record_takes_its_place_and_names_itself(database):
    store = await database.open()
    for number, tier in enumerate((Tier.AFFIRMING, Tier.WARNING, Tier.AFFIRMING)):
        await enrol(store, f"att-{number}")
        await store.record(recording(f"att-{number}", tier=tier))
    spoilt = (await store.attester_state("att-1")).latest
    await store.record(recording("att-1", tier=spoilt.tier))

    def spoil(connection):
        connection.execute(update(attester).where(attester.c.id == "att-1").values(identity="{"))

    await store._backend.write(spoil)
    page = await store.survey("default", EVERYONE, now=NOW, cursor=None, limit=10)
    assert [isinstance(state, DamagedState) for state in page.items] == [False, True, False]
    assert page.items[1].attester_id == "att-1"
    assert "identity" in page.items[1].detail
    with pytest.raises(StoredDataDamaged):
        await store.list_attesters("default", EVERYONE, now=NOW, cursor=None, limit=10)


async def test_a_damaged_judgement_is_named_and_leads_on(database):
    store = await database.open()
    for number in range(3):
        await enrol(store, f"att-{number}")
        await store.record(recording(f"att-{number}"))

    def spoil(connection):
        connection.execute(update(judgement).values(content=b"\x00"))
        connection.execute(
            update(latest).where(latest.c.attester_id == "att-2").values(judgement=None, sequence=0)
        )

    await store._backend.write(spoil)
    fresh = await database.open()
    page = await fresh.survey("default", EVERYONE, now=NOW, cursor=None, limit=2)
    assert [state.attester_id for state in page.items] == ["att-0", "att-1"]
    rest = await fresh.survey("default", EVERYONE, now=NOW, cursor=page.cursor, limit=2)
    assert [state.attester.id for state in rest.items] == ["att-2"]
