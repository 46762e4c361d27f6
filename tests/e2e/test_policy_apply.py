"""`attestctl policy apply`: a revision becomes current, and the fleet is judged again by it, resumable."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from dataclasses import replace

import pytest

from tests.e2e.test_dry_run import LAX, OFF, damage, fleet
from tests.harness import POLICY, Here, boot_log, running, settings_for
from tests.terminal import Terminal
from verifier.errors import StoreUnavailable
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.store import cursors


@pytest.fixture
async def verifier(tmp_path, clock):
    async with running(settings_for(tmp_path), clock, Here()) as harness:
        yield harness


@pytest.fixture
def lax(tmp_path):
    path = tmp_path / "lax.yaml"
    path.write_text(LAX)
    return path


async def current(verifier):
    return (await verifier.service.store.current_policy(DEFAULT_TENANT, "secure-boot")).revision


async def statuses(verifier):
    page = (await verifier.get("/v1/attesters")).json["attesters"]
    return {one["hostname"]: (one["status"], one["sequence"]) for one in page}


async def test_a_dry_run_shows_both_differences_and_changes_nothing(verifier, lax):
    await fleet(verifier, boot_log(), OFF)
    verifier.tokens[Scope.OPERATOR] = await verifier.token(Scope.OPERATOR)
    before, rows = await current(verifier), verifier.rows()
    shown = await verifier.attestctl("policy", "apply", lax, "--dry-run", "--rejudge")
    assert shown.code == 1, shown.err
    for words in (
        "would become current",
        "secure-boot",
        "1 would fare worse",
        "1 would fare better",
        "guest-1",
    ):
        assert words in shown.out
    assert (await current(verifier), verifier.rows()) == (before, rows)


async def test_a_revision_becomes_current_and_no_verdict_changes_before_it_is_asked_for(verifier, lax):
    await fleet(verifier, boot_log(), OFF)
    before = await statuses(verifier)
    shown = await verifier.attestctl("policy", "apply", lax, "--json")
    assert (shown.code, shown.err) == (0, "")
    assert shown.json["registered"] is True
    assert shown.json["revision"] == await current(verifier) != shown.json["previous"]
    assert {one["change"] for one in shown.json["differences"]} == {"changed"}
    assert "rejudged" not in shown.json
    assert await statuses(verifier) == before
    again = await verifier.attestctl("policy", "apply", lax)
    assert again.code == 0
    assert "is current already" in again.out


async def test_the_fleet_is_judged_again_and_told_about(verifier, lax):
    await fleet(verifier, boot_log(), boot_log(), OFF)
    shown = await verifier.attestctl("policy", "apply", lax, "--rejudge", "--reason", "no Secure Boot here")
    assert shown.code == 1, shown.err
    for words in (
        "becomes current",
        "3 verdict(s) judged again, 3 new",
        "2 fare worse",
        "1 fare better",
        "guest-3",
    ):
        assert words in shown.out
    assert shown.err == ""
    assert await statuses(verifier) == {
        "guest-1": ("warning", 2), "guest-2": ("warning", 2), "guest-3": ("affirming", 2)
    }  # fmt: skip
    listed = (await verifier.get("/v1/attesters?search=guest-3")).json["attesters"]
    for name in ("verdict", "history"):
        assert ", again " in (await verifier.attestctl(name, listed[0]["id"])).out
    (entry,) = await verifier.decisions("secure-boot")
    assert (entry["action"], entry["reason"]) == ("policy.rejudged", "no Secure Boot here")
    once_more = await verifier.attestctl("policy", "apply", lax, "--rejudge", "--json")
    assert (once_more.code, once_more.json["registered"]) == (0, False)
    assert once_more.json["rejudged"]["counts"]["stored"] == 0
    assert once_more.json["rejudged"]["counts"]["unchanged"] == 3


async def test_who_could_not_be_judged_is_named(verifier, lax):
    (guest,) = await fleet(verifier, OFF)
    state = await verifier.service.store.attester_state(guest.attester_id)
    damage(verifier, state.latest.evidence_sha256, None)
    shown = await verifier.attestctl("policy", "apply", lax, "--rejudge")
    assert shown.code == 3
    for words in ("1 could not be judged: their old verdict stands", "evidence-unavailable", "guest-1"):
        assert words in shown.out


async def test_a_new_policy_and_an_empty_fleet_are_no_failure(verifier, tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(POLICY.replace("id: secure-boot\ndesc", "id: brand-new\ndesc"))
    shown = await verifier.attestctl("policy", "apply", path, "--rejudge")
    assert shown.code == 0, shown.err
    assert "the first one" in shown.out
    assert "nobody was judged" in shown.out


def small_pages(verifier, monkeypatch):
    """Two attesters a page, whatever the command asks for."""
    service = verifier.service.services.rejudging
    page = service.page
    asked = []

    async def smaller(command):
        asked.append(command.cursor)
        return await page(replace(command, limit=2))

    monkeypatch.setattr(service.__class__, "page", lambda _, command: smaller(command))
    return asked


async def test_ctrl_c_between_pages_says_how_to_go_on_and_that_goes_on(verifier, lax, monkeypatch):
    await fleet(verifier, *[boot_log()] * 5)
    asked = small_pages(verifier, monkeypatch)
    # A cursor that begins with a hyphen, as one in 64 does.
    monkeypatch.setattr(cursors, "_mark", lambda *_: b"\xfb" * 8)
    service = verifier.service.services.rejudging
    faster = service.__class__.page
    second, over = asyncio.Event(), asyncio.Event()

    async def stuck(command):
        if command.cursor is not None:
            second.set()
            await over.wait()
        return await faster(service, command)

    monkeypatch.setattr(service.__class__, "page", lambda _, command: stuck(command))
    running_one = await verifier.attestctl_running(
        "policy", "apply", lax, "--rejudge", "--reason", "two words"
    )
    await second.wait()
    running_one.send_signal(signal.SIGINT)
    _, err = (text.decode() for text in await running_one.communicate())
    assert running_one.returncode == 130
    assert "Traceback" not in err
    assert "stopped after 2 guest(s); 2 new verdict(s) stay" in err
    command = shlex.split(err.partition("To go on: ")[2])
    assert command[:5] == ["attestctl", "policy", "apply", str(lax), "--rejudge"]
    assert command[5] == "--reason=two words"
    assert command[6].startswith("--from=-")
    assert sorted(sequence for _, sequence in (await statuses(verifier)).values()) == [1, 1, 1, 2, 2]

    monkeypatch.setattr(service.__class__, "page", faster)
    done = await verifier.attestctl(*command[1:], "--json")
    assert done.code == 1, done.err
    assert done.json["rejudged"]["counts"]["stored"] == 3
    assert {sequence for _, sequence in (await statuses(verifier)).values()} == {2}
    assert asked[0] is None
    assert None not in asked[1:]
    over.set()


async def test_a_verifier_that_fails_in_the_middle_is_told_with_how_to_go_on(verifier, lax, monkeypatch):
    await fleet(verifier, *[boot_log()] * 3)
    small_pages(verifier, monkeypatch)
    store, survey = verifier.service.store, verifier.service.store.survey

    async def failing(*arguments, cursor, **options):
        if cursor is not None:
            raise StoreUnavailable("the disk is full")
        return await survey(*arguments, cursor=cursor, **options)

    monkeypatch.setattr(store, "survey", failing)
    shown = await verifier.attestctl("policy", "apply", lax, "--rejudge", "--json")
    assert (shown.code, shown.out) == (69, "")
    assert "--from=" in shown.err
    assert "verifier-unavailable" in shown.err


async def test_a_person_sees_a_bar(verifier, lax):
    await fleet(verifier, boot_log())
    terminal = Terminal()
    await terminal.run(
        lambda **streams: verifier.attestctl_running("policy", "apply", lax, "--rejudge", **streams)
    )
    await terminal.process.wait()
    await asyncio.sleep(0.2)
    assert "judging again" in terminal.text
    assert "1 fare worse" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)


async def test_what_cannot_be_done_is_said_and_nothing_is_registered(verifier, tmp_path, lax):
    before = await current(verifier)
    broken = tmp_path / "broken.yaml"
    broken.write_text(POLICY.replace("enabled", "perhaps"))
    for arguments, code, words, scope in (
        ((tmp_path / "nowhere.yaml",), 65, "nowhere.yaml", Scope.OPERATOR),
        ((broken,), 65, "secure_boot", Scope.OPERATOR),
        ((lax, "--from", "x"), 64, "--rejudge", Scope.OPERATOR),
        ((lax, "--rejudge"), 77, "forbidden", Scope.DASHBOARD),
    ):
        left = await verifier.attestctl("policy", "apply", *arguments, scope=scope)
        assert (left.code, words in left.err) == (code, True), left.err
    assert await current(verifier) == before


async def test_a_restart_does_not_undo_what_was_applied_and_a_changed_file_counts(
    verifier, lax, tmp_path, log
):
    applied = await verifier.attestctl("policy", "apply", lax)
    assert applied.code == 0, applied.err
    revision = await current(verifier)
    settings = verifier.service.settings
    async with running(settings, verifier.clock, Here()) as restarted:
        assert await current(restarted) == revision
        assert '"event": "policy.superseded"' in log.getvalue()
    (tmp_path / "policies" / "secure-boot.yaml").write_text(POLICY.replace("10m", "7m"))
    async with running(settings, verifier.clock, Here()) as restarted:
        assert await current(restarted) != revision
        assert "7m" in (await restarted.service.store.current_policy(DEFAULT_TENANT, "secure-boot")).source
