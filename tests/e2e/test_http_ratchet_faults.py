"""The ratchet when it is the verifier that changes: replicas, a restored database, a lost secret, no ratchets at all."""

from __future__ import annotations

import os
import shutil
import sqlite3

from tests.e2e.test_http_clones import finding, lived, said
from tests.harness import FakeClock, Guest, Harness, running, settings_for
from verifier.ports import Scope


def moved(guest: Guest, verifier: Harness) -> Guest:
    guest.harness = verifier
    return guest


async def test_replicas_take_turns_and_find_a_copy_together(tmp_path):
    settings, clock = settings_for(tmp_path), FakeClock()
    async with running(settings, clock) as one, running(settings, clock) as two:
        guest = await lived(one)
        for verifier in (two, one, two, two, one):
            verdict = await moved(guest, verifier).speak()
            assert (verdict["status"], said(verdict)) == ("affirming", set())
        copy = moved(guest.copied(), two)
        await guest.speak()
        assert "rollback" in said(await copy.speak())
        assert "clone-proven" in said(await guest.speak())


async def test_a_restored_database_is_named_as_such_and_is_neither_clone_nor_rollback(tmp_path):
    settings, clock = settings_for(tmp_path), FakeClock()
    database = settings.state_dir / "verifier.db"
    async with running(settings, clock) as verifier:
        guest = await lived(verifier)
        backup = tmp_path / "backup.db"
        with sqlite3.connect(database) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        for _ in range(12):
            await guest.speak()
    for rest in settings.state_dir.glob("verifier.db*"):
        rest.unlink()
    shutil.copy2(backup, database)
    async with running(settings, clock) as verifier:
        verdict = await moved(guest, verifier).speak()
        assert verdict["status"] == "affirming"
        assert said(verdict) == {"ratchet-resumed"}
        assert finding(verdict, "ratchet-resumed")["status"] == "passed"
        for _ in range(3):
            assert said(await guest.speak()) == set(), "it goes on from there"
        copy = guest.copied()
        await guest.speak()
        assert "rollback" in said(await copy.speak()), "and copies are found as before"


async def test_a_lost_secret_costs_one_more_question(tmp_path):
    """Challenges are void; the step that came with the last verdict is known by what it leads to."""
    settings, clock = settings_for(tmp_path), FakeClock()
    async with running(settings, clock) as verifier:
        guest = await lived(verifier)
    (settings.state_dir / "service.secret").write_bytes(os.urandom(32))  # what a start asks for
    async with running(settings, clock) as verifier:
        moved(guest, verifier)
        refused = await guest.attest(guest.carried)
        assert refused.code == "nonce-unknown"
        guest.carried = None
        for _ in range(3):
            verdict = await guest.speak()
            assert (verdict["status"], said(verdict)) == ("affirming", set())


async def test_ratchets_may_be_switched_off_and_on(tmp_path):
    clock = FakeClock()
    async with running(settings_for(tmp_path), clock) as verifier:
        guest = await lived(verifier)
    async with running(settings_for(tmp_path, ATTESTATION_RATCHET="false"), clock) as verifier:
        moved(guest, verifier).carried = None
        assert (await guest.challenge()).get("ratchet_index") is None
        for _ in range(2):
            assert said(await guest.speak()) == set()
    async with running(settings_for(tmp_path), clock) as verifier:
        moved(guest, verifier).carried = None
        for _ in range(2):
            assert said(await guest.speak()) == set()


async def test_hardware_is_given_a_value_now_and_then_because_its_memory_wears_out(tmp_path):
    clock = FakeClock()
    settings = settings_for(tmp_path, ATTESTATION_RATCHET_HARDWARE_PAUSE="1h")
    async with running(settings, clock) as verifier:
        guest = Guest.booted(verifier, certificate={"manufacturer": "id:49465800"})  # Infineon: a chip
        await guest.enroll(await verifier.token(Scope.JOIN))
        contents = set()
        for _ in range(20):
            verdict = await guest.speak()
            assert (verdict["status"], said(verdict)) == ("affirming", set()), "unmoved is not stalled"
            contents.add(guest.tpm.nv_index(guest.carried["ratchet_index"]).value)
            clock.advance(minutes=10)
            guest.tpm.advance(600_000)
        assert len(contents) == 4, "the first, and one more in each of three hours and twenty minutes"
