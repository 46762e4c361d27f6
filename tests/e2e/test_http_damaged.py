"""A log that was damaged where it is stored: named, never judged, asked for again, and mended for everyone who boots the same."""

from __future__ import annotations

import hashlib
import sqlite3

import pytest

from tests.e2e.test_dry_run import damage, fleet
from tests.harness import b64, boot_log, running
from verifier.errors import StoreUnavailable


def elided(guest):
    """As an agent names a log that the verifier holds."""
    return {"boot_log": {"sha256": b64(hashlib.sha256(guest.log).digest())}}


@pytest.fixture
async def damaged(verifier):
    """Two guests that boot the same, whose log is damaged, and a replica that has not read it yet."""
    guests = await fleet(verifier, boot_log(), boot_log())
    digest = hashlib.sha256(guests[0].log).digest()
    damage(verifier, digest)
    async with running(verifier.service.settings, verifier.clock) as fresh:
        for guest in guests:
            guest.harness = fresh
        yield fresh, guests, digest


async def test_it_is_named_asked_for_again_and_mended(damaged, log):
    verifier, (one, other), digest = damaged
    refused = await one.attest(**elided(one))
    assert (refused.status, refused.code) == (409, "boot-log-missing")
    assert digest.hex() in log.getvalue()
    whole = await one.attest()
    assert (whole.status, whole.json["verdict"]["status"]) == (200, "affirming")
    async with running(verifier.service.settings, verifier.clock) as third:
        for guest in (one, other):
            guest.harness = third
            again = await guest.attest(**elided(guest))
            assert (again.status, again.json["verdict"]["status"]) == (200, "affirming")
        assert await third.service.store.blob(digest) == one.log


async def test_a_store_that_cannot_be_mended_now_is_later_and_the_verdict_counts(damaged, monkeypatch):
    verifier, (one, other), digest = damaged
    assert (await one.attest(**elided(one))).status == 409

    async def down(*_):
        raise StoreUnavailable("down")

    with monkeypatch.context() as broken:
        broken.setattr(verifier.service.store, "mend_blob", down)
        assert (await one.attest()).status == 200
    assert (await other.attest()).status == 200
    assert await verifier.service.store.blob(digest) == other.log


@pytest.mark.parametrize(
    "change", ["content = x'00'", "content = (SELECT content FROM blob LIMIT 1), codec = 0"]
)
async def test_what_a_verdict_said_is_damaged_and_the_next_attestation_makes_it_good(verifier, log, change):
    """Every machine of an image may share that row: all of them would be refused for ever."""
    guests = await fleet(verifier, boot_log(), boot_log())
    for guest in guests:
        await guest.attest()
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as connection:
        connection.execute(f"UPDATE judgement SET {change}")
    async with running(verifier.service.settings, verifier.clock) as fresh:
        path = f"/v1/attesters/{guests[0].attester_id}/verdict"
        shown = await fresh.get(path)
        assert (shown.status, shown.code) == (500, "internal-fault")
        for guest in guests:
            guest.harness = fresh
            assert (await guest.speak())["status"] == "affirming"
        shown = await fresh.get(path)
        assert (shown.status, shown.json["status"], shown.json["sequence"]) == (200, "affirming", 3)
        assert [one["code"] for one in shown.json["findings"]]
    assert '"event": "verdict.damaged"' in log.getvalue()
    async with running(verifier.service.settings, verifier.clock) as third:
        assert (await third.get(path)).json["sequence"] == 3
