"""Clones and rollbacks by name, over HTTP with a real store: whose copy, whose turn first, and what is no alarm."""

from __future__ import annotations

import json

import pytest

from tests.harness import Guest, Harness
from verifier.ports import Scope

QUIET = {"ratchet-started", "ratchet-continues", "clock-first-seen", "clock-continues"}
KINDS = [(running, renamed) for running in (False, True) for renamed in (False, True)]
KIND_NAMES = ["cold, same UUID", "cold, new UUID", "from memory, same UUID", "from memory, new UUID"]


def said(verdict, *wanted: str) -> set[str]:
    """What it says of the history beside what an undisturbed machine's says."""
    history = ("clone", "clock", "ratchet", "rollback", "boot-id", "boot-counter", "firmware")
    return {one["code"] for one in verdict["findings"] if one["code"].startswith(history)} - QUIET


def finding(verdict, code: str):
    return next(one for one in verdict["findings"] if one["code"] == code)


async def lived(verifier: Harness, seed: int = 1, attestations: int = 3) -> Guest:
    guest = await verifier.guest(seed)
    for _ in range(attestations):
        assert (await guest.speak())["status"] == "affirming"
        guest.tpm.advance(60_000)
    return guest


def copy_of(guest: Guest, kind) -> Guest:
    running, renamed = kind
    return guest.copied(running=running, **({"smbios_uuid": "uuid-of-the-copy"} if renamed else {}))


# --- clones


@pytest.mark.parametrize("copy_first", [False, True], ids=["original first", "copy first"])
@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
async def test_a_clone_is_proven_once_both_have_spoken_and_one_of_them_again(verifier, kind, copy_first):
    original = await lived(verifier)
    copy = copy_of(original, kind)
    first, second = (copy, original) if copy_first else (original, copy)
    await first.speak()
    second.tpm.advance(5_000)
    verdict = await second.speak()
    if not kind[0]:
        # From memory, both hold one challenge, and so take the same step once.
        assert verdict["status"] == "contraindicated", "the other has moved on, so this one is older"
    first.tpm.advance(60_000)
    verdict = await first.speak()
    assert verdict["status"] == "contraindicated"
    if not kind[0]:
        assert "clone-proven" in said(verdict)
    for _ in range(2):
        second.tpm.advance(60_000)
        assert "clone-proven" in said(await second.speak()), "it stays until somebody resolves it"


async def test_both_guests_of_a_clone_are_listed_with_what_finds_them(verifier):
    original = await lived(verifier)
    copy = original.copied(smbios_uuid="uuid-of-the-copy", hostname="copied")
    await original.speak()
    proven = finding(await copy.speak(), "clone-proven")
    assert "uuid-of-the-copy (copied), boot " + copy.boot_id in proven["actual"]
    assert "127.0.0.1" in proven["actual"]
    assert f"uuid-1 (guest-1), boot {original.boot_id}" in proven["expected"]
    assert "from 127.0.0.1, seen 20" in proven["expected"]
    listed = await verifier.get("/v1/incidents")
    (incident,) = listed.json["incidents"]
    assert incident["kind"] == "clone-proven"
    assert [(guest["hostname"], guest["parted"]) for guest in incident["guests"]] == [
        ("guest-1", False),
        ("copied", True),
    ]


async def test_a_copy_with_the_same_words_is_listed_beside_the_original(verifier):
    """Copied with its memory: host name, UUID and boot id are one; only the state of the TPM is another."""
    original = await lived(verifier)
    copy = original.copied(running=True)
    await original.speak()
    await copy.speak()
    for guest in (original, copy):
        verdict = await guest.speak()
    assert "clone-proven" in said(verdict)
    (incident,) = (await verifier.get("/v1/incidents")).json["incidents"]
    assert sorted(guest["parted"] for guest in incident["guests"]) == [False, True]
    assert len({guest["id"] for guest in incident["guests"]}) == 2


async def test_the_log_names_both_guests_once(verifier, log):
    original = await lived(verifier)
    copy = original.copied(smbios_uuid="uuid-of-the-copy", hostname="copied")
    for guest in (original, copy, original, copy):
        await guest.speak()
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    (opened,) = [event for event in events if event["event"] == "incident.opened"]
    assert opened["kind"] == "clone-proven"
    assert [guest["hostname"] for guest in opened["guests"]] == ["guest-1", "copied"]


@pytest.mark.parametrize("copy_first", [False, True], ids=["original first", "copy first"])
async def test_a_clone_without_a_ratchet_is_found_by_clock_and_boot_ids(verifier, copy_first):
    original = await verifier.guest()
    original.keeps_ratchet = False
    await original.speak()
    original.tpm.advance(60_000)
    copy = original.copied()
    order = (copy, original) if copy_first else (original, copy)
    verdicts = []
    for _ in range(2):
        for guest in order:
            guest.tpm.advance(60_000)
            verdicts.append(await guest.speak())
    assert "clone-proven" in set.union(*map(said, verdicts[1:]))


async def test_a_clone_that_tells_no_boot_id_and_keeps_no_ratchet_is_found_by_its_boot_log(verifier):
    """Windows: two cold copies, one reset count, two logs under it in turn."""
    from tests.harness import boot_log

    original = await verifier.guest()
    original.keeps_ratchet = False
    await original.speak(boot_id=None)
    copy = original.copied()
    copy.reboot(boot_log() + b"")
    original.reboot()
    original.tpm.reboot()
    original.tpm.replay_log(original.log)
    copy.log = boot_log("root=/dev/vdb quiet")
    copy.tpm.reboot()
    copy.tpm._set_clock(reset_count=original.tpm.clock.reset_count)
    copy.tpm.replay_log(copy.log)
    seen = []
    for number, guest in enumerate((original, copy, original)):
        guest.tpm._set_clock(clock=10_000 * (number + 1))
        seen.append(said(await guest.speak(boot_id=None)))
    assert seen[1] >= {"boot-id-changed"}
    assert "clone-proven" in seen[2]


async def test_two_uuids_with_one_tpm_are_suspected_before_anything_is_proven(verifier):
    original = await lived(verifier)
    verdict = await original.copied(smbios_uuid="uuid-of-the-copy").speak()
    assert verdict["status"] == "warning"
    assert said(verdict) == {"clone-suspected"}
    suspected = finding(verdict, "clone-suspected")
    assert "uuid-1" in suspected["expected"]
    assert "uuid-of-the-copy" in suspected["actual"]


# --- rollbacks


@pytest.mark.parametrize("since", [1, 2, 20], ids=lambda n: f"{n} attestations ago")
@pytest.mark.parametrize("orderly", [True, False])
async def test_a_restored_state_is_a_rollback_however_little_it_goes_back(verifier, since, orderly):
    guest = await lived(verifier)
    snapshot, boot = guest.tpm.snapshot(), guest.log
    for _ in range(since):
        await guest.speak()
        guest.tpm.advance(60_000)
    guest.tpm.restore(snapshot)
    guest.reboot(boot, orderly=orderly)
    verdict = await guest.speak()
    assert verdict["status"] == "contraindicated"
    assert {"rollback", "ratchet-rollback"} <= said(verdict)
    for _ in range(3):
        guest.tpm.advance(60_000)
        again = await guest.speak()
        assert "rollback" in said(again), "it stays until somebody says that it was meant"
        assert not said(again) & {"clone-proven", "clone-suspected"}, "one machine is no clone"


async def test_the_state_of_the_first_day_is_known_again_however_long_it_was_left_behind(verifier):
    """No value led to what the agent began with, so nothing but the line itself can tell what it is."""
    guest = await lived(verifier, attestations=1)
    snapshot = guest.copied()
    for _ in range(20):
        guest.tpm.advance(60_000)
        assert (await guest.speak())["status"] == "affirming"
    snapshot.tpm.advance(24 * 3_600_000)
    assert said(await snapshot.speak()) >= {"ratchet-rollback", "rollback"}


async def test_a_snapshot_with_memory_is_a_rollback_too(verifier):
    guest = await lived(verifier)
    snapshot, held, hints = guest.tpm.snapshot(), guest.carried, dict(guest.hints)
    for _ in range(2):
        await guest.speak()
        guest.tpm.advance(60_000)
    guest.tpm.restore(snapshot)
    guest.carried, guest.hints = held, hints
    assert {"rollback", "clock-rollback"} <= said(await guest.speak())


async def test_a_clock_that_lost_more_than_a_tpm_can_lose_is_a_rollback_although_it_is_not_safe(verifier):
    guest = await verifier.guest()
    guest.keeps_ratchet = False
    guest.tpm.advance(10_000_000)
    await guest.speak()
    guest.tpm._set_clock(clock=guest.tpm.clock.clock - 4_000_000)
    guest.reboot(orderly=False)
    assert said(await guest.speak()) == {"clock-unsafe", "ratchet-unsupported"}
    guest.tpm._set_clock(clock=guest.tpm.clock.clock - 4_200_000)
    guest.reboot(orderly=False)
    assert {"rollback", "clock-rollback"} <= said(await guest.speak())


async def test_a_snapshot_whose_memory_held_another_challenge_is_a_rollback_and_no_clone(verifier):
    """It goes on by another value than the machine did after the snapshot, as a copy would."""
    guest = await lived(verifier)
    snapshot, held, hints = guest.tpm.snapshot(), guest.carried, dict(guest.hints)
    guest.carried = None  # the agent is restarted, and asks for a challenge
    await guest.speak()
    guest.tpm.restore(snapshot)
    guest.carried, guest.hints = held, hints
    for _ in range(3):
        verdict = await guest.speak()
        assert {"rollback", "ratchet-diverged"} <= said(verdict)
        assert "clone-proven" not in said(verdict)


async def test_reboots_of_one_guest_do_not_push_the_other_out_of_sight(verifier):
    original = await lived(verifier)
    copy = original.copied(hostname="copied")
    await original.speak()
    await copy.speak()
    for _ in range(6):
        original.reboot()
        verdict = await original.speak()
    assert "copied" in finding(verdict, "clone-proven")["expected"]


# --- what is none of it


async def test_reboots_sleep_and_power_loss_are_no_alarm(verifier):
    guest = await lived(verifier)
    for step in (
        guest.reboot,
        guest.tpm.suspend_resume,
        lambda: guest.reboot(orderly=False),
        lambda: (guest.reboot(), guest.reboot()),
    ):
        step()
        verdict = await guest.speak()
        assert verdict["status"] == "affirming"
        assert said(verdict) <= {"clock-unsafe"}


async def test_a_lost_reply_and_a_lost_request_are_no_alarm(verifier):
    guest = await lived(verifier)
    await guest.attest()  # the reply is dropped here: neither verdict nor next challenge are kept
    assert said(await guest.speak()) == set()
    guest.evidence(await guest.challenge())  # the ratchet has moved on, and the evidence never arrives
    assert said(await guest.speak()) == set()
    guest.hints.clear()  # all of the agent's memory with it, after the verifier has seen the content
    assert said(await guest.speak()) == set()


async def test_a_kernel_that_stays_while_its_tpm_is_reset_is_remarked(verifier):
    guest = await lived(verifier)
    guest.tpm.reboot()
    guest.tpm.replay_log(guest.log)
    verdict = await guest.speak()
    assert (verdict["status"], said(verdict)) == ("affirming", {"boot-id-kept"})


# --- the index


def index_of(guest: Guest) -> int:
    (number,) = guest.tpm._state.nv
    return number


async def test_a_deleted_index_is_missing_and_one_made_again_is_foreign_as_long_as_nobody_enrols(verifier):
    guest = await lived(verifier)
    number = index_of(guest)
    old = guest.tpm.nv_index(number)
    guest.tpm.nv_undefine(number)
    guest.keeps_ratchet = False
    for _ in range(2):
        verdict = await guest.speak()
        assert (verdict["status"], said(verdict)) == ("none", {"ratchet-missing"})
    guest.keeps_ratchet = True
    for _ in range(3):
        verdict = await guest.speak()
        assert (verdict["status"], said(verdict)) == ("contraindicated", {"ratchet-foreign"})
    await guest.enroll(await verifier.token(Scope.JOIN))
    verdict = await guest.speak()
    assert (verdict["status"], said(verdict)) == ("affirming", set()), (
        "somebody with authority let it in again"
    )
    guest.tpm._state.nv[number] = old
    assert "ratchet-rollback" in said(await guest.speak())


async def test_a_ratchet_that_never_moves_is_remarked_at_the_third_time(verifier):
    guest = await lived(verifier)
    seen = []
    for _ in range(4):
        challenge = await guest.challenge()
        challenge.pop("ratchet")
        answer = await guest.attest(challenge)
        seen.append((answer.json["verdict"]["status"], said(answer.json["verdict"])))
    assert seen[:2] == [("affirming", set())] * 2
    assert seen[2:] == [("warning", {"ratchet-stalled"})] * 2
    assert said(await guest.speak()) == set()


async def test_an_index_that_can_be_written_freely_proves_nothing(verifier):
    guest = await lived(verifier)
    guest.tpm.nv_index(index_of(guest)).attributes = 0x00060042
    verdict = await guest.speak()
    assert (verdict["status"], said(verdict)) == ("contraindicated", {"ratchet-invalid"})
