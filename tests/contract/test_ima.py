"""IMA lists: pieces are stored with what they were proven by, found in order, and kept while they can be needed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from msgspec import structs

from tests.contract.records import CLOCK, NOW, enrol, recording, sha256
from verifier.errors import StateMovedError
from verifier.ports import FleetFilter
from verifier.ports_ima import BootKey, ImaPiece

DAY = timedelta(days=1)
LOG = b"boot log" * 100
BOOT = BootKey(attester_id="att-1", clock=CLOCK, boot_log_sha256=sha256(LOG))
NEXT_CLOCK = structs.replace(CLOCK, reset_count=7)


def piece(start: int, content: bytes) -> ImaPiece:
    return ImaPiece(start=start, size=len(content), sha256=sha256(content))


def proving(start: int, content: bytes, state: str | None = None, **changes):
    """A recording whose quote proved `content` of the list."""
    position = changes.pop("position", None)
    made = recording("att-1", **changes)
    return structs.replace(
        made,
        boot=structs.replace(made.boot, ima=state),
        blobs={**made.blobs, sha256(content): content},
        evidence={**made.evidence, "ima-list": sha256(content).hex()},
        ima_piece=piece(start, content),
        position=position,
    )


async def test_a_list_grows_piece_by_piece_and_its_state_is_read_with_the_boot(store):
    await enrol(store, "att-1")
    await store.record(proving(0, b"first", '{"n":1}'))
    await store.record(proving(5, b"second", '{"n":2}'))
    await store.record(recording("att-1"))  # nothing new: the state stays
    state = await store.attester_state("att-1")
    assert state.boot.ima == '{"n":2}'
    assert await store.ima_pieces("default", BOOT, 11) == (piece(0, b"first"), piece(5, b"second"))
    assert await store.ima_pieces("default", BOOT, 5) == (piece(0, b"first"),)
    assert await store.ima_pieces("default", BOOT, 0) == ()
    assert await store.blob(sha256(b"second")) == b"second"


async def test_a_listing_leaves_out_what_is_held_of_lists(store):
    await enrol(store, "att-1")
    await store.record(proving(0, b"first", '{"n":1}'))
    page = await store.list_attesters("default", FleetFilter(), now=NOW, cursor=None, limit=10)
    (state,) = page.items
    assert (state.boot.ima, state.boot.boot_id) == (None, "2b1c")


async def test_a_hole_is_no_list(store):
    await enrol(store, "att-1")
    await store.record(proving(0, b"first"))
    await store.record(proving(6, b"third"))
    assert await store.ima_pieces("default", BOOT, 11) is None
    assert await store.ima_pieces("default", BOOT, 6) is None


async def test_a_list_sent_whole_again_takes_the_place_of_its_pieces(store):
    await enrol(store, "att-1")
    for start, content in ((0, b"first"), (5, b"second")):
        await store.record(proving(start, content))
    await store.record(proving(0, b"firstsecondthird"))
    await store.record(proving(16, b"fourth"))
    found = await store.ima_pieces("default", BOOT, 22)
    assert found == (piece(0, b"firstsecondthird"), piece(16, b"fourth"))


async def test_boots_attesters_and_tenants_have_lists_of_their_own(store):
    await enrol(store, "att-1")
    await store.record(proving(0, b"first", "{}"))
    await store.record(recording("att-1", clock=NEXT_CLOCK))
    assert (await store.attester_state("att-1")).boot.ima is None
    for other in (
        dataclasses.replace(BOOT, clock=NEXT_CLOCK),
        dataclasses.replace(BOOT, attester_id="att-2"),
        dataclasses.replace(BOOT, boot_log_sha256=None),
    ):
        assert await store.ima_pieces("default", other, 5) is None
    assert await store.ima_pieces("other", BOOT, 5) is None
    assert await store.ima_pieces("default", BOOT, 5) == (piece(0, b"first"),)


async def test_of_two_replicas_that_go_on_from_one_state_one_wins_and_the_other_changes_nothing(database):
    one, two = await database.open(), await database.open()
    await enrol(one, "att-1")
    await one.record(proving(0, b"first", '{"n":1}'))
    position = (await two.attester_state("att-1")).position
    await one.record(proving(5, b"winner", '{"n":2}', position=position))
    with pytest.raises(StateMovedError):
        await two.record(proving(5, b"loser", '{"n":3}', position=position))
    assert (await two.attester_state("att-1")).boot.ima == '{"n":2}'
    assert await two.ima_pieces("default", BOOT, 11) == (piece(0, b"first"), piece(5, b"winner"))
    assert await two.blob(sha256(b"loser")) is None


async def test_pieces_of_the_running_boot_are_kept_however_old_and_go_with_their_boot(store):
    await enrol(store, "att-1")
    await store.record(proving(0, b"first" * 99, at=NOW - 90 * DAY))
    await store.record(proving(495, b"second", at=NOW - 80 * DAY))
    await store.record(recording("att-1", at=NOW - 2 * DAY, boot_log=LOG))
    await store.purge_evidence(NOW - 10 * DAY)
    assert len(await store.ima_pieces("default", BOOT, 501)) == 2
    assert await store.blob(sha256(b"first" * 99)) == b"first" * 99
    await store.record(recording("att-1", at=NOW, clock=NEXT_CLOCK))  # a reboot
    await store.purge_evidence(NOW - 10 * DAY)
    assert await store.ima_pieces("default", BOOT, 501) is not None, "its last verdict is not old yet"
    await store.purge_evidence(NOW)
    assert await store.ima_pieces("default", BOOT, 501) is None
    assert await store.blob(sha256(b"first" * 99)) is None


async def test_a_list_of_megabytes_is_stored_whole(store):
    await enrol(store, "att-1")
    content = b"".join(number.to_bytes(4) * 8 for number in range(40_000))
    await store.record(proving(0, content))
    assert await store.blob(sha256(content)) == content
