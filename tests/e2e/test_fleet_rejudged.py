"""After a policy has changed the fleet is judged again from stored evidence: as fresh attestations would be, trusting nobody longer."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest

from tests.e2e.test_client import asking
from tests.e2e.test_dashboard import look, session
from tests.e2e.test_dry_run import LAX, OFF, OTHER, changes, damage, fleet, labels
from tests.harness import POLICY, Here, boot_log, running, settings_for
from verifier.client.requirement import Refusal, Requirement
from verifier.policy.assignment import Mode
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.service.assignments import AssignCommand

WIDER = POLICY.replace("[0, 4, 7, 8, 9]", "[0, 4, 7, 8, 9, 11]")
SHORTER = POLICY.replace("validity: 10m", "validity: 5m")


@pytest.fixture
async def verifier(request, tmp_path, clock):
    """Workers in this process, for speed; `processes` in a test's name asks for real ones."""
    workers = None if "processes" in request.node.name else Here()
    async with running(settings_for(tmp_path), clock, workers) as harness:
        yield harness


async def register(verifier, source):
    return await verifier.service.services.policies.register(DEFAULT_TENANT, source.encode(), "test")


async def rejudge(verifier, query="", policy_id="secure-boot", scope=Scope.OPERATOR):
    path = f"/v1/policies/{policy_id}/rejudge" + (f"?{query}" if query else "")
    return await verifier.call("POST", path, scope=scope)


async def latest(verifier, guest):
    return (await verifier.service.store.attester_state(guest.attester_id)).latest


def said(record):
    """What a verdict says of its evidence; a later attestation has another past."""
    past = {"clock-first-seen", "clock-continues", "boot-id-changed", "ratchet-started", "ratchet-continues"}
    findings = [one for one in record.findings if one["code"] not in past]
    return record.tier, dict(record.vector), findings, record.policy_id, record.policy_revision


async def test_who_is_judged_otherwise_and_that_it_is_stored(verifier, clock):
    good, off = await fleet(verifier, boot_log(), OFF)
    before = [await latest(verifier, guest) for guest in (good, off)]
    clock.advance(minutes=2)
    record = await register(verifier, LAX)
    found = (await rejudge(verifier, "reason=Secure%20Boot%20is%20to%20be%20off")).json
    assert found["revision"] == record.revision
    assert changes(found) == {
        "guest-1": ("worse", "affirming", "warning"),
        "guest-2": ("better", "contraindicated", "affirming"),
    }
    assert (found["counts"]["stored"], found["counts"]["moved"], found["unjudged"]) == (2, 0, [])
    for guest, old, tier in zip((good, off), before, ("warning", "affirming"), strict=True):
        shown = (await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict")).json
        assert (shown["status"], shown["sequence"]) == (tier, 2)
        assert shown["policy"]["revision"] == record.revision
        assert shown["evidence_sha256"] == old.evidence_sha256.hex()
        new = await latest(verifier, guest)
        assert (new.judged_at, new.rejudged_at) == (old.judged_at, clock.now())
        assert new.valid_until <= old.valid_until
        assert shown["rejudged_at"].startswith(f"{clock.now():%Y-%m-%dT%H:%M:%S}")
    history = (await verifier.get(f"/v1/attesters/{good.attester_id}/history")).json["verdicts"]
    assert [("rejudged_at" in one, one["status"]) for one in history] == [
        (True, "warning"),
        (False, "affirming"),
    ]
    audit = await verifier.decisions("secure-boot")
    assert [(one["action"], one["reason"], one["detail"]["verdicts"]) for one in audit] == [
        ("policy.rejudged", "Secure Boot is to be off", 2)
    ]


async def test_it_says_what_a_fresh_attestation_with_the_same_evidence_says(verifier):
    guests = await fleet(verifier, boot_log(), OFF, boot_log("root=/dev/vdb init=/bin/sh"))
    await register(verifier, OTHER.replace("enabled", "disabled"))
    await labels(verifier, guests[0], env="lab")
    put = verifier.service.services.assignments.put
    for mode, selector in ((Mode.WARN, {"env": "lab"}), (Mode.OBSERVE, {})):
        command = AssignCommand(policy_id="other", revision=None, mode=mode, priority=0, selector=selector)
        await put(DEFAULT_TENANT, command, "test")
    await register(verifier, LAX)
    assert (await rejudge(verifier)).json["counts"]["stored"] == 3
    again = [said(await latest(verifier, guest)) for guest in guests]
    for guest in guests:
        assert (await guest.attest()).status == 200
    fresh = [await latest(verifier, guest) for guest in guests]
    assert [one.sequence for one in fresh] == [3, 3, 3]
    assert again == [said(one) for one in fresh]
    assert {one["code"] for one in again[0][2]} >= {"policy-staged", "secure-boot-on"}


async def test_once_judged_again_there_is_nothing_left_to_do(verifier, clock):
    await fleet(verifier, boot_log(), OFF)
    await register(verifier, LAX)
    await rejudge(verifier)
    rows = verifier.rows()
    clock.advance(seconds=30)
    found = (await rejudge(verifier)).json
    assert (found["counts"]["unchanged"], found["counts"]["stored"], found["changes"]) == (2, 0, [])
    assert verifier.rows() == rows


async def test_trust_is_never_longer_and_is_cut_to_what_the_policy_gives(verifier, clock):
    (guest,) = await fleet(verifier, boot_log())
    first = await latest(verifier, guest)
    await register(verifier, SHORTER.replace("5m", "10h"))
    await rejudge(verifier)
    longer = await latest(verifier, guest)
    assert (longer.sequence, longer.valid_until) == (2, first.valid_until)
    await register(verifier, SHORTER)
    clock.advance(minutes=1)
    await rejudge(verifier)
    cut = await latest(verifier, guest)
    assert (cut.valid_until - cut.judged_at).total_seconds() == 300
    clock.advance(minutes=4, seconds=1)
    shown = (await verifier.get(f"/v1/attesters/{guest.attester_id}")).json
    assert (shown["lifecycle"], shown["verdict"]["status"]) == ("stale", "none")
    found = (await rejudge(verifier)).json
    assert (found["counts"]["stale"], found["counts"]["stored"]) == (1, 0)


async def test_an_open_challenge_is_still_good(verifier):
    (guest,) = await fleet(verifier, boot_log())
    challenge = await guest.challenge()
    await register(verifier, LAX)
    assert (await rejudge(verifier)).json["counts"]["stored"] == 1
    answer = await guest.attest(challenge)
    assert answer.status == 200, answer.content
    verdict = answer.json["verdict"]
    assert (verdict["sequence"], verdict["status"]) == (3, "warning")
    assert "rejudged_at" not in verdict


async def test_revoked_silent_and_never_heard_are_left_alone(verifier, clock):
    revoked, _ = await fleet(verifier, boot_log(), OFF)
    await verifier.call("POST", f"/v1/attesters/{revoked.attester_id}/revoke", scope=Scope.OPERATOR)
    await verifier.guest(seed=20)
    await register(verifier, LAX)
    clock.advance(hours=24)
    rows = verifier.rows()
    counts = (await rejudge(verifier)).json["counts"]
    assert {name: counts[name] for name in ("not_heard", "stale", "never_attested", "stored", "better")} == {
        "not_heard": 1, "stale": 1, "never_attested": 1, "stored": 0, "better": 0
    }  # fmt: skip
    assert verifier.rows() == rows | {"audit": verifier.rows()["audit"]}


async def test_damaged_or_missing_evidence_leaves_the_old_verdict_and_is_told_by_name(verifier):
    missing, damaged, logless, good = await fleet(verifier, OFF, OFF, boot_log("root=/dev/vdb"), OFF)
    olds = {guest.attester_id: await latest(verifier, guest) for guest in (missing, damaged, logless)}
    boot = (await verifier.service.store.attester_state(logless.attester_id)).boot
    damage(verifier, olds[missing.attester_id].evidence_sha256, None)
    damage(verifier, olds[damaged.attester_id].evidence_sha256)
    damage(verifier, boot.boot_log_sha256, None)
    async with running(verifier.service.settings, verifier.clock, Here()) as fresh:
        await register(fresh, LAX)
        found = (await rejudge(fresh)).json
        for guest in (missing, damaged, logless):
            assert await latest(fresh, guest) == olds[guest.attester_id]
        assert (await latest(fresh, good)).sequence == 2
    told = {one["attester_id"]: one["code"] for one in found["unjudged"]}
    assert told == dict.fromkeys(olds, "evidence-unavailable")
    assert changes(found) == {"guest-4": ("better", "contraindicated", "affirming")}


async def test_what_the_quote_never_covered_is_told_and_changes_no_verdict(verifier):
    (guest,) = await fleet(verifier, boot_log())
    old = await latest(verifier, guest)
    await register(verifier, WIDER)
    found = (await rejudge(verifier)).json
    assert [(one["code"], one["hostname"]) for one in found["unjudged"]] == [
        ("quote-pcr-selection", "guest-1")
    ]
    assert await latest(verifier, guest) == old


async def test_those_of_other_policies_are_judged_again_only_when_all_are(verifier):
    one, two = await fleet(verifier, boot_log(), boot_log())
    await register(verifier, OTHER)
    await verifier.service.services.policies.assign(DEFAULT_TENANT, one.attester_id, "other", "test")
    await register(verifier, OTHER.replace("enabled", "disabled"))
    found = (await rejudge(verifier, policy_id="other")).json
    assert (found["counts"]["stored"], found["counts"]["not_selected"]) == (1, 1)
    assert changes(found) == {"guest-1": ("worse", "affirming", "contraindicated")}
    assert (await latest(verifier, two)).sequence == 1
    await register(verifier, LAX)
    everyone = (await rejudge(verifier, "all=true", "other")).json
    assert changes(everyone) == {"guest-2": ("worse", "affirming", "warning")}


async def test_a_clone_stays_a_clone_whatever_the_policy(verifier):
    clone, _ = await fleet(verifier, OFF, OFF)
    await clone.attest(identity={"hostname": "copy", "smbios_uuid": "uuid-other"})
    before = await latest(verifier, clone)
    await register(verifier, LAX)
    await rejudge(verifier)
    after = await latest(verifier, clone)
    assert before.sequence + 1 == after.sequence
    codes = [
        {one["code"] for one in record.findings if one["status"] != "passed"} for record in (before, after)
    ]
    assert "clone-suspected" in codes[0] & codes[1]
    assert (before.tier.label, after.tier.label) == ("contraindicated", "warning")


async def test_an_ear_says_when_the_evidence_came_and_when_it_was_judged_again(verifier, clock):
    (guest,) = await fleet(verifier, OFF)
    came = int(clock.now().timestamp())
    clock.advance(minutes=3)
    await register(verifier, LAX)
    await rejudge(verifier)
    path = f"/v1/attesters/{guest.attester_id}/verdict"
    ear = await verifier.get(path, Scope.RELYING_PARTY, headers={"Accept": "application/eat+jwt"})
    payload = ear.content.decode().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    private = claims["submods"]["vtpm"]["vtpm_attest"]
    assert (private["judged_at"], private["rejudged_at"]) == (came, came + 180)


async def test_pages_cover_everyone_once_and_a_page_may_be_asked_again(verifier):
    await fleet(verifier, *[boot_log()] * 5)
    await register(verifier, LAX)
    seen, cursor, stored = [], "", 0
    while cursor is not None:
        query = "limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = (await rejudge(verifier, query)).json
        repeated = (await rejudge(verifier, query)).json
        assert (repeated["counts"]["stored"], repeated.get("cursor")) == (0, page.get("cursor"))
        seen += [one["hostname"] for one in page["changes"]]
        stored, cursor = stored + page["counts"]["stored"], page.get("cursor")
    assert (stored, sorted(seen)) == (5, [f"guest-{seed}" for seed in range(1, 6)])


async def test_in_processes_of_their_own(verifier):
    await fleet(verifier, boot_log(), OFF)
    await register(verifier, LAX)
    found = (await rejudge(verifier)).json
    assert found["counts"]["stored"] == 2


@pytest.mark.parametrize(
    ("query", "policy_id", "scope", "status"),
    [
        ("", "nobody", Scope.OPERATOR, 404),
        ("cursor=nonsense", "secure-boot", Scope.OPERATOR, 400),
        ("limit=501", "secure-boot", Scope.OPERATOR, 400),
        ("", "secure-boot", Scope.DASHBOARD, 403),
        ("", "secure-boot", Scope.RELYING_PARTY, 403),
    ],
)
async def test_wrong_calls_are_refused_and_change_nothing(verifier, query, policy_id, scope, status):
    await fleet(verifier, OFF)
    await register(verifier, LAX)
    verifier.tokens[scope] = await verifier.token(scope)
    rows = verifier.rows()
    assert (await rejudge(verifier, query, policy_id, scope)).status == status
    assert verifier.rows() == rows


async def test_a_guest_that_attests_meanwhile_is_left_alone(verifier, monkeypatch):
    """Its own evidence is newer than what was judged again."""
    mine, other = await fleet(verifier, boot_log(), boot_log())
    await register(verifier, LAX)
    store = verifier.service.store
    stored = store.rejudge

    async def attested_first(verdicts, audit):
        assert (await mine.attest()).status == 200
        return await stored(verdicts, audit)

    monkeypatch.setattr(store, "rejudge", attested_first)
    found = (await rejudge(verifier)).json
    assert (found["counts"]["moved"], found["counts"]["stored"]) == (1, 1)
    assert set(changes(found)) == {"guest-2"}
    record = await latest(verifier, mine)
    assert (record.sequence, record.rejudged_at) == (2, None)
    assert (await latest(verifier, other)).sequence == 2


async def test_what_another_replica_was_told_just_now_counts(verifier):
    """What a replica remembers of policies and assignments for two seconds is not believed here."""
    (guest,) = await fleet(verifier, boot_log())
    async with running(verifier.service.settings, verifier.clock, Here()) as other:
        await rejudge(other)
        await register(verifier, LAX)
        found = (await rejudge(other)).json
        assert changes(found) == {"guest-1": ("worse", "affirming", "warning")}
        await register(verifier, OTHER.replace("enabled", "disabled"))
        command = AssignCommand(policy_id="other", revision=None, mode=Mode.ENFORCE, priority=0, selector={})
        await verifier.service.services.assignments.put(DEFAULT_TENANT, command, "test")
        found = (await rejudge(other, policy_id="other")).json
        assert changes(found) == {"guest-1": ("worse", "warning", "contraindicated")}
    assert (await latest(verifier, guest)).policy_id == "other"


async def test_a_relying_party_that_asks_for_fresh_evidence_is_not_told_that_old_one_is(verifier, clock):
    (guest,) = await fleet(verifier, OFF)
    came = clock.now()
    clock.advance(minutes=6)
    await register(verifier, LAX)
    await rejudge(verifier)
    async with asking(verifier) as client:
        verdict = await client.verdict(guest.attester_id)
    assert (verdict.judged_at, verdict.rejudged_at) == (came, clock.now())
    assert verdict.affirming(clock.now())
    assert Requirement().denial(verdict.standing, clock.now()) is None
    denied = Requirement(max_age=timedelta(minutes=5)).denial(verdict.standing, clock.now())
    assert denied.refusal is Refusal.AGE


async def test_without_any_policy_it_is_none(verifier, monkeypatch):
    (guest,) = await fleet(verifier, boot_log())
    monkeypatch.setattr(verifier.service.services.assignments, "_default", None)
    assert (await rejudge(verifier)).json["counts"]["not_selected"] == 1
    found = (await rejudge(verifier, "all=true")).json
    assert changes(found) == {"guest-1": ("worse", "affirming", "none")}
    record = await latest(verifier, guest)
    assert (record.policy_id, record.findings[-1]["code"]) == (None, "policy-missing")


async def test_the_dashboard_shows_that_a_verdict_was_judged_again(verifier, clock):
    (guest,) = await fleet(verifier, OFF)
    clock.advance(minutes=4)
    cookie, _ = await session(verifier)
    path = f"/dashboard/attesters/{guest.attester_id}"
    assert ", again " not in (await look(verifier, path, cookie)).content.decode()
    await register(verifier, LAX)
    await rejudge(verifier)
    page = (await look(verifier, path, cookie)).content.decode()
    assert "again from the same evidence" in page
    assert page.count(", again ") == 2
