"""The fleet judged again by the verifier itself: whoever asked may go away, and a replica that dies is replaced."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.test_dashboard import look, session
from tests.e2e.test_dry_run import LAX, OFF, damage, fleet
from tests.e2e.test_fleet_rejudged import latest, register
from tests.eventually import eventually
from tests.harness import Here, boot_log, running, settings_for
from verifier.errors import StoreUnavailable
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.service import rejudgings

PATH = "/v1/policies/secure-boot/rejudging"


@pytest.fixture
async def verifier(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(rejudgings, "FIRST_PAGE", 2)
    monkeypatch.setattr(rejudgings, "next_size", lambda size, _: size)
    async with running(settings_for(tmp_path), clock, Here()) as harness:
        yield harness


async def begin(verifier, query=""):
    answer = await verifier.call("POST", PATH + query, scope=Scope.OPERATOR)
    assert answer.status == 202, answer.content
    verifier.clock.advance(seconds=3)
    return answer.json


async def progress(verifier):
    answer = await verifier.get(PATH, Scope.DASHBOARD)
    assert answer.status == 200, answer.content
    return answer.json


async def tiers(verifier, guests):
    return [(await latest(verifier, guest)).tier.label for guest in guests]


async def test_the_whole_fleet_and_how_far_it_is(verifier):
    guests = await fleet(verifier, boot_log(), OFF, boot_log(), OFF, boot_log())
    assert (await verifier.get(PATH)).status == 404
    await register(verifier, LAX)
    begun = await begin(verifier, "?reason=November")
    assert (begun["state"], begun["counts"], begun["total"]) == ("running", {"examined": 0}, 5)
    assert await tiers(verifier, guests) == ["affirming", "contraindicated"] * 2 + ["affirming"]
    assert await verifier.service.services.rejudgings.go_on()
    done = await progress(verifier)
    assert (done["state"], done["id"], done["reason"]) == ("done", begun["id"], "November")
    counts = {name: count for name, count in done["counts"].items() if count}
    assert counts == {"examined": 5, "stored": 5, "stored_affirming": 2, "stored_warning": 3}
    assert await tiers(verifier, guests) == ["warning", "affirming"] * 2 + ["warning"]
    assert not await verifier.service.services.rejudgings.go_on(), "nothing is left to do"
    assert [(kind, data.get("examined")) for kind, data in await events(verifier)] == [
        ("rejudging.begun", None),
        ("rejudging.ended", 5),
    ]
    entries = (await verifier.get("/v1/audit?subject=secure-boot")).json["entries"]
    assert [one["action"] for one in entries if "rejudging" in one["action"]] == [
        "rejudging.ended",
        "rejudging.begun",
    ]


async def test_metrics_and_dashboard_show_how_far_it_is(verifier, monkeypatch):
    await fleet(verifier, *[boot_log()] * 4)
    cookie, _ = await session(verifier)
    monkeypatch.setattr(rejudgings, "FIRST_PAGE", 1)
    pages = verifier.service.services.rejudging.page

    async def one_and_no_more(command):
        if command.cursor is not None:
            raise StoreUnavailable("gone")
        return await pages(command)

    async def shown():
        share = [
            line
            for line in (await verifier.get("/metrics")).content.decode().splitlines()
            if line.startswith("vtpm_attest_rejudging_share{")
        ]
        return share, "of 4 attesters looked at" in (
            await look(verifier, "/dashboard", cookie)
        ).content.decode()

    assert await shown() == ([], False)
    await register(verifier, LAX)
    await begin(verifier)
    with monkeypatch.context() as patch:
        patch.setattr(verifier.service.services.rejudging, "page", one_and_no_more)
        with pytest.raises(StoreUnavailable):
            await verifier.service.services.rejudgings.go_on()
    assert await shown() == (['vtpm_attest_rejudging_share{policy="secure-boot"} 0.25'], True)
    assert (
        "1 of 4 attesters looked at (25 %)" in (await look(verifier, "/dashboard", cookie)).content.decode()
    )
    verifier.clock.advance(minutes=2)
    await verifier.service.services.rejudgings.go_on()
    assert await shown() == ([], False)


async def events(verifier):
    """Kind and data of those about re-judging."""
    await verifier.service.services.feed.publish()
    page = await verifier.service.store.events("default", after=0, limit=100)
    return [(one.kind.value, one.data) for one in page if one.kind.value.startswith("rejudging.")]


async def test_a_replica_that_dies_in_the_middle_of_it_is_replaced_by_another(verifier, monkeypatch):
    """It dies at each step of a page in turn: nobody is left out, and nobody is judged twice."""
    guests = await fleet(verifier, *[boot_log()] * 7)
    async with running(verifier.service.settings, verifier.clock, Here()) as other:
        for step in ("rejudge", "advance_rejudging"):
            for after in (False, True):
                await register(verifier, LAX + f"# {step} {after}\n")
                before = [(await latest(verifier, guest)).sequence for guest in guests]
                await begin(verifier)
                await _die(verifier, monkeypatch, step, after=after)
                assert not await other.service.services.rejudgings.go_on(), "it is still claimed"
                verifier.clock.advance(seconds=61)
                assert await other.service.services.rejudgings.go_on()
                assert (await progress(verifier))["state"] == "done"
                assert (await progress(verifier))["counts"]["examined"] == 7
                revisions = {(await latest(verifier, guest)).policy_revision for guest in guests}
                assert revisions == {
                    (await verifier.service.store.current_policy(DEFAULT_TENANT, "secure-boot")).revision
                }
                now = [(await latest(verifier, guest)).sequence for guest in guests]
                assert now == [sequence + 1 for sequence in before]


async def _die(verifier, monkeypatch, step, *, after):
    """SIGKILL, as far as the database can tell: at the second time that this step is taken, nothing more comes."""
    store, calls = verifier.service.store, 0
    real = getattr(store, step)

    async def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls < 2:
            return await real(*arguments)
        if after:
            await real(*arguments)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(store, step, dying)
        with pytest.raises(asyncio.CancelledError):
            await verifier.service.services.rejudgings.go_on()


async def test_a_change_in_the_middle_of_it_begins_anew(verifier, monkeypatch):
    guests = await fleet(verifier, *[boot_log()] * 5)
    await register(verifier, LAX)
    first = await begin(verifier)
    store, real = verifier.service.store, verifier.service.store.advance_rejudging
    changed = []

    async def meanwhile(*arguments):
        if not changed:
            changed.append(await register(verifier, LAX + "# another\n"))
            changed.append(await begin(verifier))
        return await real(*arguments)

    monkeypatch.setattr(store, "advance_rejudging", meanwhile)
    while await verifier.service.services.rejudgings.go_on():
        pass
    done = await progress(verifier)
    assert done["state"] == "done"
    assert done["id"] == changed[1]["id"] != first["id"]
    assert {(await latest(verifier, guest)).policy_revision for guest in guests} == {changed[0].revision}


async def test_an_outage_puts_it_off_and_it_goes_on_by_itself(verifier, monkeypatch):
    guests = await fleet(verifier, *[boot_log()] * 3)
    await register(verifier, LAX)
    await begin(verifier)
    store, real, faults = verifier.service.store, verifier.service.store.survey, []

    async def down_at_first(*arguments, **options):
        if len(faults) < 2:
            faults.append(1)
            verifier.clock.advance(seconds=61)
            raise StoreUnavailable("down")
        return await real(*arguments, **options)

    monkeypatch.setattr(store, "survey", down_at_first)
    monkeypatch.setattr(rejudgings, "_AFTER_FAULT", 0.01)
    monkeypatch.setattr(rejudgings, "_LOOK_EVERY", 0.01)
    task = asyncio.create_task(verifier.service.services.rejudgings.run())

    async def done():
        return (await progress(verifier))["state"] == "done"

    await eventually(done)
    task.cancel()
    assert await tiers(verifier, guests) == ["warning"] * 3


async def test_evidence_that_is_damaged_is_counted_and_its_verdict_stays(verifier):
    good, damaged = await fleet(verifier, boot_log(), boot_log())
    before = await latest(verifier, damaged)
    damage(verifier, before.evidence_sha256)
    async with running(verifier.service.settings, verifier.clock, Here()) as fresh:
        await register(fresh, LAX)
        await begin(fresh)
        assert await fresh.service.services.rejudgings.go_on()
        counts = (await progress(fresh))["counts"]
        assert (counts["stored"], counts["unjudged"]) == (1, 1)
        assert await latest(fresh, damaged) == before
        assert (await latest(fresh, good)).tier.label == "warning"


async def test_it_is_stopped_and_what_was_judged_stays(verifier, monkeypatch):
    guests = await fleet(verifier, *[boot_log()] * 5)
    await register(verifier, LAX)
    await begin(verifier)
    await _die(verifier, monkeypatch, "rejudge", after=False)
    assert (await verifier.call("DELETE", PATH, scope=Scope.OPERATOR)).status == 204
    assert (await verifier.call("DELETE", PATH, scope=Scope.OPERATOR)).status == 404
    verifier.clock.advance(seconds=61)
    assert not await verifier.service.services.rejudgings.go_on()
    stopped = await progress(verifier)
    assert (stopped["state"], stopped["counts"]["stored"]) == ("stopped", 2)
    assert sorted(await tiers(verifier, guests)) == ["affirming"] * 3 + ["warning"] * 2


@pytest.mark.parametrize("scope", [Scope.DASHBOARD, Scope.RELYING_PARTY])
async def test_only_operators_begin_and_stop(verifier, scope):
    for method in ("POST", "DELETE"):
        assert (await verifier.call(method, PATH, scope=scope)).status == 403
    assert (await verifier.call("POST", "/v1/policies/nobody/rejudging", scope=Scope.OPERATOR)).status == 404


async def test_from_the_command_line_and_on_the_dashboard(verifier, tmp_path):
    guests = await fleet(verifier, boot_log(), OFF, boot_log())
    lax = tmp_path / "lax.yaml"
    lax.write_text(LAX)
    begun = await verifier.attestctl(
        "policy", "apply", lax, "--rejudge", "--background", "--reason", "November"
    )
    assert begun.code == 0, begun.err
    assert "judging again is under way; 0 of 3" in begun.out
    assert await tiers(verifier, guests) == ["affirming", "contraindicated", "affirming"]
    looking = await verifier.attestctl_running("policy", "rejudging", "secure-boot", "--wait", "--json")
    verifier.clock.advance(seconds=3)
    task = asyncio.create_task(verifier.service.services.rejudgings.run())
    out, err = await asyncio.wait_for(looking.communicate(), 60)
    task.cancel()
    assert looking.returncode == 0, err
    assert (json.loads(out)["state"], json.loads(out)["counts"]["stored"]) == ("done", 3)
    assert await tiers(verifier, guests) == ["warning", "affirming", "warning"]
    shown = await verifier.attestctl("policy", "rejudging", "secure-boot")
    assert (
        "judging again is done; 3 of 3 guest(s) looked at, 3 new verdict(s), 0 could not be judged"
        in shown.out
    )
    wrong = await verifier.attestctl("policy", "apply", lax, "--background")
    assert wrong.code == 64
