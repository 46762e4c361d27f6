"""IMA lists over HTTP: sent from where they are known, judged as far as they are proven, and never lost track of."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import asynccontextmanager

import pytest

from tests.harness import FakeClock, Here, b64, running, settings_for, unb64
from tests.ima_guest import POLICY, KnownPrograms, MeasuringGuest, Programs
from tests.postgresql import started
from verifier.ports import Scope
from verifier.service.bundle import unpack
from verifier.service.ima_stored import judged_list
from verifier.service.rejudge import Case, rejudge
from verifier.service.verdicts import read_finding

LONG = 600
"""Programs of a list that is judged in another process."""


@asynccontextmanager
async def verifiers(folder, count: int = 1, references: KnownPrograms | None = None, clock=None, **settings):
    """So many replicas on one database, and the references they share."""
    references = references or KnownPrograms()
    settings = settings_for(folder, DEFAULT_POLICY="measured", **settings)
    (folder / "policies" / "measured.yaml").write_text(POLICY)
    clock = clock or FakeClock()
    async with running(settings, clock, Here(), references=references) as first:
        if count == 1:
            yield first, references
            return
        async with running(settings, clock, Here(), references=references) as second:
            yield (first, second), references


@pytest.fixture
async def verifier(tmp_path):
    async with verifiers(tmp_path) as (harness, references):
        harness.references = references
        yield harness


def codes(reply) -> set[str]:
    """Of what did not pass."""
    return {one["code"] for one in reply["verdict"]["findings"] if one["status"] != "passed"}


def of_lists(reply) -> set[str]:
    return {code for code in codes(reply) if code.startswith("ima")}


def status(reply) -> str:
    return reply["verdict"]["status"]


async def test_the_first_list_is_sent_whole_and_then_only_what_is_new(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    first = await guest.attest()
    assert (status(first), codes(first)) == ("affirming", set())
    whole = len(guest.kernel.list)
    guest.run("/usr/bin/new")
    second = await guest.attest(first["challenge"])
    third = await guest.attest(second["challenge"])
    assert (status(second), status(third)) == ("affirming", "affirming")
    assert guest.sent == [(0, whole), (whole, len(guest.kernel.list) - whole), (len(guest.kernel.list), 0)]


async def test_a_guest_without_policy_that_reads_lists_is_not_asked_for_one(verifier):
    verifier.references.programs.clear()
    guest = await MeasuringGuest.enrolled(verifier)
    challenge = await guest.guest.challenge()
    assert "want_ima_log" not in challenge
    assert status(await guest.attest(challenge)) == "affirming"
    assert guest.sent == []


async def test_a_list_that_is_asked_for_and_not_sent_is_no_pass(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    reply = await guest.attest(ima_log=None)
    assert status(reply) == "none"
    assert codes(reply) == {"ima-list-missing"}


async def test_an_unknown_program_is_told_as_long_as_the_boot_lasts_and_not_after(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    assert status(await guest.attest()) == "affirming"
    guest.run("/tmp/dropped")
    found = await guest.attest()
    assert (status(found), codes(found)) == ("contraindicated", {"ima-file-unknown"})
    for number in range(2):
        guest.run(f"/usr/bin/clean-{number}")
        later = await guest.attest(guest.guest.carried)
        assert (status(later), codes(later)) == ("contraindicated", {"ima-file-unknown"})
        assert guest.sent[-1][0] > 0, "the tail alone was sent"
    guest.reboot()
    assert status(await guest.attest()) == "affirming"


async def test_entries_after_the_quote_wait_for_the_next_and_none_is_skipped(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    early = await guest.attest(after_quote=lambda: guest.run("/tmp/not-proven-yet"))
    assert status(early) == "affirming", "an entry that no quote covers is not judged"
    late = await guest.attest(early["challenge"])
    assert codes(late) == {"ima-file-unknown"}


@pytest.mark.parametrize("programs", [3, LONG])
async def test_a_pcr_10_that_moved_before_the_quote_is_no_alarm(verifier, programs):
    guest = await MeasuringGuest.enrolled(verifier, programs=programs)
    for _ in range(3):
        reply = await guest.attest(
            guest.guest.carried,
            before_quote=lambda: [guest.run(f"/usr/bin/q{n}") for n in range(3)],
            after_quote=lambda: guest.run("/usr/bin/later"),
        )
        assert (status(reply), codes(reply)) == ("affirming", set())
    assert [offset > 0 for offset, _ in guest.sent] == [False, True, True]


async def test_without_an_entry_that_leads_there_values_that_were_not_quoted_are_told_and_not_unreadable(
    verifier,
):
    guest = await MeasuringGuest.enrolled(verifier)
    moved = await guest.attest(before_quote=lambda: guest.run("/usr/bin/early"), ima_log={"content": ""})
    assert (status(moved), "quote-pcr-digest" in codes(moved)) == ("contraindicated", True)


async def test_a_value_that_no_entry_leads_to_is_an_alarm(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    guest.guest.tpm.measure(10, b"extended behind the kernel's back")
    reply = await guest.attest()
    assert (status(reply), codes(reply)) == ("none", {"ima-list-behind"})
    guest.run("/usr/bin/new")
    for _ in range(2):  # the whole list is asked for, and is nothing better
        reply = await guest.attest(reply["challenge"])
        assert (status(reply), codes(reply)) == ("contraindicated", {"ima-list-mismatch"})
    assert 0 in [offset for offset, _ in guest.sent[-2:]]


@pytest.mark.parametrize("edit", ["truncated", "rewritten"])
async def test_a_list_that_lost_or_changed_what_was_proven_is_named(verifier, edit):
    guest = await MeasuringGuest.enrolled(verifier, programs=6)
    await guest.attest()
    guest.run("/tmp/dropped")
    if edit == "truncated":
        del guest.kernel.binary[guest.kernel.offsets[3] :]
    else:
        at = guest.kernel.list.index(b"/tmp/dropped")
        guest.kernel.binary[at : at + 12] = b"/usr/bin/ok0"
    reply = await guest.attest()
    assert status(reply) == "contraindicated"
    assert codes(reply) == {"ima-list-truncated" if edit == "truncated" else "ima-list-mismatch"}


async def test_a_guest_that_rewrites_what_was_proven_turns_nothing_green(verifier):
    """What was proven once stays known: neither the list sent whole, nor another policy, makes it forgotten."""
    guest = await MeasuringGuest.enrolled(verifier)
    guest.run("/tmp/dropped")
    assert codes(await guest.attest()) == {"ima-file-unknown"}
    at = guest.kernel.list.index(b"/tmp/dropped")
    guest.kernel.binary[at : at + 12] = b"/usr/bin/ok0"
    for _ in range(2):
        assert codes(await guest.attest(whole=True)) == {"ima-file-unknown"}
        guest.run("/usr/bin/new")
    verifier.references.programs["measured"] = Programs(salt="judged anew from the pieces")
    assert codes(await guest.attest()) == {"ima-file-unknown"}
    verifier.references.programs["measured"] = Programs(salt="judged anew from what is sent")
    assert codes(await guest.attest(whole=True)) == {"ima-list-mismatch"}


async def test_a_reboot_begins_a_new_list_and_a_tail_of_the_old_one_is_never_joined_to_it(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    held = (await guest.attest())["challenge"]
    guest.reboot()
    assert status(await guest.attest(held)) == "affirming"
    assert guest.sent[-1] == (0, len(guest.kernel.list)), "boot ids differ, so all of it was sent"
    challenge = await guest.guest.challenge()
    guest.reboot()
    liar = await guest.answer(challenge | {"ima_boot": guest.guest.boot_id, "ima_offset": 100})
    assert (liar.status, liar.code) == (409, "ima-offset-unknown")


async def test_a_list_that_begins_anew_while_the_pcr_goes_on_is_joined_to_what_was_before(verifier):
    """Kexec without the old list: the TPM is not reset, the kernel and its boot id are new."""
    guest = await MeasuringGuest.enrolled(verifier)
    guest.run("/opt/tool")
    assert of_lists(await guest.attest()) == {"ima-file-unknown"}
    guest.kexec()
    guest.run("/usr/bin/in-the-new-kernel")
    joined = await guest.attest()
    assert guest.sent[-1] == (0, len(guest.kernel.list))
    assert of_lists(joined) == {"ima-file-unknown"}, "what ran before ran in this boot of the TPM"
    assert "ima-list-rotated" in {one["code"] for one in joined["verdict"]["findings"]}
    guest.run("/usr/bin/later")
    assert of_lists(await guest.attest(joined["challenge"])) == {"ima-file-unknown"}
    assert guest.sent[-1][0] > 0
    verifier.references.programs["measured"] = Programs(("/usr", "/opt"))
    better = await guest.attest(guest.guest.carried)
    assert of_lists(better) == set()
    assert guest.sent[-1][0] > 0, "both lists were judged anew from what is stored"
    guest.run("/tmp/dropped")
    assert of_lists(await guest.attest(better["challenge"])) == {"ima-file-unknown"}


async def test_another_policy_judges_the_whole_list_from_what_is_stored(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    guest.run("/opt/tool")
    assert codes(await guest.attest()) == {"ima-file-unknown"}
    verifier.references.programs["measured"] = Programs(("/usr", "/opt"))
    better = await guest.attest(guest.guest.carried)
    assert (status(better), codes(better)) == ("affirming", set())
    verifier.references.programs["measured"] = Programs(("/opt",))
    worse = await guest.attest(guest.guest.carried)
    assert codes(worse) == {"ima-file-unknown"}
    assert [offset > 0 for offset, _ in guest.sent] == [False, True, True], "no list was sent twice"


async def test_a_hole_in_what_is_stored_has_the_list_sent_whole_and_nobody_is_failed_for_it(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    guest.run("/usr/bin/new")
    held = (await guest.attest())["challenge"]
    path = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(path) as database:
        database.execute("delete from ima_piece where start > 0")
    verifier.references.programs["measured"] = Programs(salt="another")
    refused = await guest.answer(held)
    assert (refused.status, refused.code) == (409, "ima-offset-unknown")
    whole = await guest.attest(whole=True)
    assert (status(whole), codes(whole)) == ("affirming", set())
    guest.run("/usr/bin/newer")
    assert status(await guest.attest(whole["challenge"])) == "affirming"
    assert guest.sent[-1][0] > 0


async def test_a_piece_that_is_damaged_is_a_hole(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    held = (await guest.attest())["challenge"]
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as database:
        database.execute("update blob set content = x'00' where digest in (select sha256 from ima_piece)")
    verifier.references.programs["measured"] = Programs(salt="another")
    assert (await guest.answer(held)).code == "ima-offset-unknown"
    assert status(await guest.attest()) == "affirming"


async def test_an_older_challenge_brings_bytes_that_are_known_and_they_are_passed_over(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    old = (await guest.attest())["challenge"]
    guest.run("/usr/bin/one")
    await guest.attest()
    guest.run("/usr/bin/two")
    current = await guest.guest.challenge()
    reply = await guest.attest(current | {"ima_offset": old["ima_offset"]})
    assert (status(reply), codes(reply)) == ("affirming", set())


async def test_a_list_goes_on_over_replicas_and_restarts(tmp_path):
    clock, references = FakeClock(), KnownPrograms()
    async with verifiers(tmp_path, 2, references, clock) as ((first, second), _):
        guest = await MeasuringGuest.enrolled(first)
        guest.run("/tmp/dropped")
        held = (await guest.attest())["challenge"]
        guest.guest.harness = second
        guest.run("/usr/bin/there")
        assert codes(await guest.attest(held)) == {"ima-file-unknown"}
    async with verifiers(tmp_path, 1, references, clock) as (again, _):
        guest.guest.harness = again
        guest.run("/usr/bin/after-the-restart")
        assert codes(await guest.attest()) == {"ima-file-unknown"}
    assert [offset > 0 for offset, _ in guest.sent] == [False, True, True]


@pytest.fixture(scope="module")
def postgresql():
    """The address of a database on a real server."""
    with started() as server:
        server.sql("CREATE DATABASE lists")
        yield server.url("lists")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_of_attestations_at_once_on_two_replicas_each_is_judged_whole_and_the_list_stays_one(
    tmp_path, request, database
):
    where = {} if database == "sqlite" else {"DATABASE": request.getfixturevalue("postgresql")}
    async with verifiers(tmp_path, 2, **where) as ((first, second), references):
        guest = await MeasuringGuest.enrolled(first)
        await guest.attest()
        bodies = []
        for number in range(6):
            guest.run(f"/usr/bin/busy-{number}")
            bodies.append(guest.evidence(await guest.guest.challenge()))
        answers = await asyncio.gather(
            *((first, second)[n % 2].post("/v1/attestations", body) for n, body in enumerate(bodies))
        )
        for answer in answers:
            assert answer.status == 200 or answer.code in {"evidence-overtaken", "ima-offset-unknown"}
            if answer.status == 200:
                assert not [code for code in codes(answer.json) if code.startswith("ima")]
        assert any(answer.status == 200 for answer in answers)
        held = (await guest.attest())["challenge"]
        references.programs["measured"] = Programs(salt="judged anew from the pieces")
        assert not [code for code in codes(await guest.attest(held)) if code.startswith("ima")]
        assert guest.sent[-1][0] > 0


async def test_what_was_judged_can_be_given_again_and_judged_elsewhere(verifier, tmp_path):
    """The bundle of an auditor has the list up to what the quote proves, and not what came after."""
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    guest.run("/usr/bin/two")
    proven = guest.kernel.list
    await guest.attest(after_quote=lambda: guest.run("/usr/bin/later"))
    answer = await verifier.get(f"/v1/attesters/{guest.attester_id}/evidence", Scope.AUDITOR)
    assert unb64(answer.json["ima_log"]) == proven
    earlier = await verifier.get(f"/v1/attesters/{guest.attester_id}/evidence?sequence=1", Scope.AUDITOR)
    assert unb64(earlier.json["ima_log"]) == proven[: guest.sent[0][1]]


async def test_a_dry_run_judges_the_lists_too(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    guest.run("/opt/tool")
    assert codes(await guest.attest()) == {"ima-file-unknown"}
    verifier.references.programs["measured"] = Programs(("/usr", "/opt"))
    answer = await verifier.call(
        "POST",
        "/v1/policies/measured/dry-run?all=true",
        data=POLICY,
        headers={"Content-Type": "application/yaml"},
        scope=Scope.OPERATOR,
    )
    assert answer.json["counts"]["better"] == 1, answer.content


async def test_the_fleet_is_judged_again_with_its_lists(verifier):
    """What became known since is held against nobody any more; a list that is not kept whole changes no verdict."""
    whole, gone = [await MeasuringGuest.enrolled(verifier, seed) for seed in (1, 2)]
    for guest in (whole, gone):
        await guest.attest()
        guest.run("/opt/tool")
        assert codes(await guest.attest()) == {"ima-file-unknown"}
    old = (await verifier.service.store.attester_state(gone.attester_id)).latest
    database = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(database) as connection:
        connection.execute("delete from ima_piece where attester_id = ?", (gone.attester_id,))
    verifier.references.programs["measured"] = Programs(("/usr", "/opt"))
    found = (await verifier.call("POST", "/v1/policies/measured/rejudge?all=true", scope=Scope.OPERATOR)).json
    assert (found["counts"]["better"], found["counts"]["stored"]) == (1, 1), found
    (unjudged,) = found["unjudged"]
    assert (unjudged["attester_id"], unjudged["code"]) == (gone.attester_id, "evidence-unavailable")
    assert (await verifier.service.store.attester_state(gone.attester_id)).latest == old
    shown = (await verifier.get(f"/v1/attesters/{whole.attester_id}/verdict")).json
    assert (shown["status"], shown["sequence"]) == ("affirming", 3)
    assert codes(await whole.attest()) == set()


async def test_the_time_a_list_takes_is_a_stage_of_its_own(verifier):
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    text = (await verifier.get("/metrics", Scope.DASHBOARD)).content.decode()
    told = dict(re.findall(r'^vtpm_attest_stage_seconds_count\{stage="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert told == dict.fromkeys(("lookup", "ima", "verify", "replay", "policy", "commit", "sign"), "1.0")


async def test_every_verdict_on_a_list_is_given_again_from_what_is_stored(verifier):
    """Growth, races, what is unknown, a violation, and a list that does not fit: the findings are those of then."""
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    guest.run("/tmp/dropped")
    await guest.attest(after_quote=lambda: guest.run("/usr/bin/later"))
    guest.kernel.violation("/var/log/wtmp")
    await guest.attest(before_quote=lambda: guest.run("/usr/bin/early"))
    await guest.attest()
    guest.run("/tmp/hidden")
    at = guest.kernel.list.index(b"/tmp/hidden")
    guest.kernel.binary[at : at + 11] = b"/usr/bin/ok"
    await guest.attest()
    store, services = verifier.service.store, verifier.service.services
    history = await store.history("default", guest.attester_id, before=None, limit=10)
    assert len(history) == 5
    for verdict in history:
        state = await store.attester_state(guest.attester_id)
        bundle = await store.blob(verdict.evidence_sha256)
        stored = unpack(bundle)
        logs = {digest: await store.blob(digest) for digest in stored.logs}
        ima_list = await judged_list(store, verdict, stored)
        policy = (await services.assignments.for_attester(state.attester)).primary
        case = Case(verdict=verdict, bundle=bundle, ima_list=ima_list)
        again = rejudge(case, logs, policy, None, verifier.references.programs["measured"])
        assert again.tier is verdict.tier
        assert said(again.findings) == said(map(read_finding, verdict.findings)), verdict.sequence


def said(findings) -> list[tuple[str, str, str | None]]:
    return [(one.reason.value, one.status.value, one.actual) for one in findings]


def _hostile(kernel_list: bytes) -> dict[str, bytes]:
    return {
        "nothing": b"",
        "noise": bytes(range(256)) * 4,
        "long noise": bytes(range(255, -1, -1)) * 1_000,
        "cut in an entry": kernel_list[:-3],
        "an entry of 4 GB": kernel_list[:-100]
        + b"\x0a\0\0\0"
        + bytes(20)
        + b"\x06\0\0\0ima-ng\xff\xff\xff\xff",
        "zeroes": bytes(100_000),
        "twice": kernel_list * 2,
    }


@pytest.mark.parametrize("name", sorted(_hostile(b"")))
async def test_rule_9_a_list_that_is_none_is_told_or_refused_and_leaves_the_next_one_alone(verifier, name):
    guest = await MeasuringGuest.enrolled(verifier)
    await guest.attest()
    guest.run("/usr/bin/new")
    content = _hostile(guest.kernel.list)[name]
    for offset in (0, guest.sent[0][1], 1 << 62):
        before = verifier.rows()
        answer = await guest.answer(ima_log={"content": b64(content), "offset": offset})
        assert answer.status in {200, 400, 409}, answer.content
        if answer.status == 200:
            assert (
                name == "twice" or status(answer.json) != "affirming"
            )  # what comes twice has not been quoted yet
        else:
            assert verifier.rows() == before
    assert (await guest.attest())["verdict"]["status"] == "affirming"
