"""Dry run over HTTP and with attestctl: whose verdict would change and why, told from stored evidence, changing nothing."""

from __future__ import annotations

import json
import sqlite3

import pytest

from tests.harness import POLICY, Guest, Here, boot_log, running, settings_for
from verifier.policy.assignment import Mode
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.service.assignments import AssignCommand

OFF = boot_log(secure=False)
LAX = POLICY.replace("secure_boot: enabled", "secure_boot: disabled").replace("contraindicated", "warning")
OTHER = POLICY.replace("id: secure-boot\ndesc", "id: other\ndesc")
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
async def verifier(request, tmp_path, clock):
    """Workers in this process, for speed; `processes` in a test's name asks for real ones."""
    workers = None if "processes" in request.node.name else Here()
    async with running(settings_for(tmp_path), clock, workers) as harness:
        yield harness


async def fleet(verifier, *logs):
    """One guest per boot log, enrolled and judged: guest-1, guest-2 and so on."""
    guests = []
    for seed, log in enumerate(logs, 1):
        guest = Guest.booted(verifier, seed, log=log)
        await guest.enroll()
        assert (await guest.attest()).status == 200
        guests.append(guest)
    return guests


async def dry_run(verifier, source, query="all=true", policy_id="secure-boot", scope=Scope.OPERATOR):
    return await verifier.call(
        "POST", f"/v1/policies/{policy_id}/dry-run?{query}", data=source, headers=YAML, scope=scope
    )


def changes(document):
    return {one["hostname"]: (one["change"], one["before"], one["after"]) for one in document["changes"]}


def labels(verifier, guest, **values):
    return verifier.service.services.assignments.label(DEFAULT_TENANT, guest.attester_id, values, "test")


def damage(verifier, digest, content=b"nothing that was ever sent"):
    database = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(database) as connection:
        if content is None:
            changed = connection.execute("delete from blob where digest = ?", (digest,)).rowcount
        else:
            changed = connection.execute(
                "update blob set content = ? where digest = ?", (content, digest)
            ).rowcount
    assert changed == 1


async def test_who_fares_better_who_worse_and_by_which_rule(verifier):
    await fleet(verifier, boot_log(), OFF, boot_log())
    found = (await dry_run(verifier, LAX)).json
    assert found["counts"] == {
        "examined": 3, "unchanged": 0, "other_reasons": 0, "better": 1, "worse": 2, "unjudged": 0,
        "never_attested": 0, "not_heard": 0, "not_selected": 0,
    }  # fmt: skip
    assert changes(found) == {
        "guest-1": ("worse", "affirming", "warning"),
        "guest-2": ("better", "contraindicated", "affirming"),
        "guest-3": ("worse", "affirming", "warning"),
    }
    by_code = {reason["code"]: reason for reason in found["reasons"]}
    on, off = by_code["secure-boot-on"], by_code["secure-boot-off"]
    assert (on["rule"], on["guests"], on["new"], on["gone"]) == ("secure-boot", 2, 2, 0)
    assert sorted(on["examples"]) == ["guest-1", "guest-3"]
    assert (off["guests"], off["new"], off["gone"], off["examples"]) == (0, 0, 1, ["guest-2"])
    (worse,) = [one for one in found["changes"] if one["hostname"] == "guest-1"]
    assert [(new["rule"], new["status"]) for new in worse["new"]] == [("secure-boot", "warning")]


async def test_the_policy_in_force_changes_nobody(verifier):
    await fleet(verifier, boot_log(), OFF)
    for answer in (
        await dry_run(verifier, POLICY),
        await verifier.call("POST", "/v1/policies/secure-boot/dry-run", scope=Scope.OPERATOR),
    ):
        assert answer.status == 200, answer.content
        assert answer.json["counts"]["unchanged"] == 2
        assert answer.json["changes"] == []


async def test_nothing_is_stored_or_changed(verifier):
    guests = await fleet(verifier, boot_log(), OFF)
    for scope in (Scope.OPERATOR, Scope.ADMIN):
        verifier.tokens[scope] = await verifier.token(scope)
    before, path = verifier.rows(), f"/v1/attesters/{guests[0].attester_id}"
    shown = (await verifier.get(path)).json
    assert (await dry_run(verifier, LAX)).json["counts"]["worse"] == 1
    assert verifier.rows() == before
    assert (await verifier.get(path)).json == shown
    revisions = await verifier.service.store.policy_revisions(DEFAULT_TENANT, "secure-boot")
    assert len(revisions) == 1
    assert (await guests[0].attest()).json["verdict"]["status"] == "affirming"


async def test_a_stored_revision_is_tried_by_name(verifier):
    await fleet(verifier, boot_log())
    policies = verifier.service.services.policies
    record = await policies.register(DEFAULT_TENANT, LAX.encode(), "test", current=False)
    path = f"/v1/policies/secure-boot/dry-run?all=true&revision={record.revision}"
    answer = await verifier.call("POST", path, scope=Scope.OPERATOR)
    assert answer.json["revision"] == record.revision
    assert answer.json["counts"]["worse"] == 1


async def test_by_default_those_are_chosen_whom_a_policy_of_this_id_judges(verifier):
    one, two, _ = await fleet(verifier, boot_log(), boot_log(), boot_log())
    services = verifier.service.services
    await services.policies.register(DEFAULT_TENANT, OTHER.encode(), "test")
    await services.policies.assign(DEFAULT_TENANT, one.attester_id, "other", "test")
    await labels(verifier, two, env="lab")
    await services.assignments.put(
        DEFAULT_TENANT,
        AssignCommand(
            policy_id="other", revision=None, mode=Mode.OBSERVE, priority=0, selector={"env": "lab"}
        ),
        "test",
    )
    stricter = OTHER.replace("enabled", "disabled")
    decides_or_is_tried = (await dry_run(verifier, stricter, "", "other")).json
    assert set(changes(decides_or_is_tried)) == {"guest-1", "guest-2"}
    assert decides_or_is_tried["counts"]["not_selected"] == 1
    labelled = (await dry_run(verifier, stricter, "label=env%3Dlab", "other")).json
    assert set(changes(labelled)) == {"guest-2"}
    assigned = (await dry_run(verifier, stricter, "assigned=secure-boot", "other")).json
    assert set(changes(assigned)) == {"guest-2", "guest-3"}
    everyone = (await dry_run(verifier, stricter, "all=true", "other")).json
    assert set(changes(everyone)) == {"guest-1", "guest-2", "guest-3"}


async def test_pages_cover_everyone_once(verifier):
    await fleet(verifier, *[boot_log()] * 5)
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        query = "all=true&limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = (await dry_run(verifier, LAX, query)).json
        seen += [one["hostname"] for one in page["changes"]]
        pages, cursor = pages + 1, page.get("cursor")
    assert (pages, sorted(seen)) == (3, [f"guest-{seed}" for seed in range(1, 6)])


async def test_what_cannot_be_judged_is_told_by_name_and_ends_nothing(verifier):
    missing, damaged, logless, verdictless, good = await fleet(verifier, *[boot_log()] * 3, OFF, boot_log())
    silent = await verifier.guest(seed=20)
    store = verifier.service.store
    logless.reboot(boot_log("root=/dev/vdb"))
    await logless.attest(kernel_command_line=None)
    states = {
        guest.attester_id: await store.attester_state(guest.attester_id)
        for guest in (missing, damaged, logless, verdictless, good)
    }
    damage(verifier, states[missing.attester_id].latest.evidence_sha256, None)
    damage(verifier, states[damaged.attester_id].latest.evidence_sha256)
    damage(verifier, states[logless.attester_id].boot.boot_log_sha256, None)
    database = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "update judgement set content = x'00' where digest = (select judgement from latest where attester_id = ?)",
            (verdictless.attester_id,),
        )
    # What was read before stays in memory, and is as good as it was: a verifier that starts has to read it.
    async with running(verifier.service.settings, verifier.clock, Here()) as again:
        found = (await dry_run(again, LAX)).json
    assert found["counts"]["unjudged"] == 4
    assert found["counts"]["never_attested"] == 1
    assert changes(found) == {"guest-5": ("worse", "affirming", "warning")}
    told = {one["attester_id"]: one for one in found["unjudged"]}
    assert {one["code"] for one in told.values()} == {"evidence-unavailable"}
    assert states[missing.attester_id].latest.evidence_sha256.hex() in told[missing.attester_id]["detail"]
    assert states[damaged.attester_id].latest.evidence_sha256.hex() in told[damaged.attester_id]["detail"]
    assert states[logless.attester_id].boot.boot_log_sha256.hex() in told[logless.attester_id]["detail"]
    assert "damaged" in told[verdictless.attester_id]["detail"]
    assert silent.attester_id not in told


async def test_a_pcr_that_nobody_had_asked_for_is_not_held_against_a_guest(verifier):
    await fleet(verifier, boot_log())
    wider = POLICY.replace("[0, 4, 7, 8, 9]", "[0, 4, 7, 8, 9, 11]")
    found = (await dry_run(verifier, wider)).json
    assert [(one["code"], one["hostname"]) for one in found["unjudged"]] == [
        ("quote-pcr-selection", "guest-1")
    ]
    assert "PCR 11" in found["unjudged"][0]["detail"]
    assert found["changes"] == []


async def test_a_revoked_guest_is_not_counted_as_one_that_would_change(verifier):
    (guest,) = await fleet(verifier, boot_log())
    await verifier.call("POST", f"/v1/attesters/{guest.attester_id}/revoke", scope=Scope.OPERATOR)
    found = (await dry_run(verifier, LAX)).json
    assert (found["counts"]["not_heard"], found["changes"]) == (1, [])


async def test_a_clone_stays_a_clone_whatever_the_policy(verifier):
    (guest,) = await fleet(verifier, boot_log())
    await guest.attest(identity={"hostname": "copy", "smbios_uuid": "uuid-other"})
    found = (await dry_run(verifier, POLICY)).json
    assert found["counts"]["unchanged"] == 1
    clone = [reason for reason in found["reasons"] if reason["code"] == "clone-suspected"]
    assert [(one["guests"], one["new"]) for one in clone] == [(1, 0)]


@pytest.mark.parametrize(
    ("query", "source", "status", "code"),
    [
        ("all=true", b"rules: [", 422, "policy-invalid"),
        ("all=true", b"\xff", 422, "policy-invalid"),
        ("all=true", OTHER.encode(), 422, "policy-invalid"),
        ("all=true&label=a%3Db", POLICY.encode(), 400, "malformed-request"),
        ("all=true&assigned=x", POLICY.encode(), 400, "malformed-request"),
        ("revision=" + "0" * 64, POLICY.encode(), 400, "malformed-request"),
        ("revision=" + "0" * 64, b"", 404, "not-found"),
        ("revision=x", b"", 400, "malformed-request"),
        ("cursor=x", POLICY.encode(), 400, "malformed-request"),
        ("limit=501", POLICY.encode(), 400, "malformed-request"),
        ("label=a", POLICY.encode(), 400, "malformed-request"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_a_reason(verifier, query, source, status, code):
    answer = await dry_run(verifier, source, query)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("scope", [Scope.DASHBOARD, Scope.RELYING_PARTY, Scope.AUDITOR])
async def test_only_operators_may_try_a_policy(verifier, scope):
    answer = await dry_run(verifier, POLICY, scope=scope)
    assert (answer.status, answer.code) == (403, "forbidden")


@pytest.mark.parametrize(("name", "value"), [("BATCH", 2), ("BATCH_BYTES", 1)])
async def test_many_batches_at_once_in_processes_keep_each_outcome_with_its_guest(
    verifier, monkeypatch, name, value
):
    monkeypatch.setattr(f"verifier.service.stored_cases.{name}", value)
    logs = [boot_log(), OFF, boot_log("root=/dev/vdb")] * 3
    await fleet(verifier, *logs)
    found = changes((await dry_run(verifier, LAX)).json)
    assert len(found) == 9
    for seed, log in enumerate(logs, 1):
        assert found[f"guest-{seed}"][0] == ("better" if log == OFF else "worse")


# --- the command


async def test_the_command_says_who_and_why_and_exits_by_the_worst(verifier, tmp_path):
    await fleet(verifier, boot_log(), boot_log(), OFF)
    lax, strict, same = tmp_path / "lax.yaml", tmp_path / "strict.yaml", tmp_path / "same.yaml"
    lax.write_text(LAX)
    strict.write_text(POLICY.replace("enabled", "disabled"))
    same.write_text(POLICY)
    shown = await verifier.attestctl("policy", "dry-run", lax)
    assert shown.code == 1, shown.err
    for words in ("2 would fare worse", "1 would fare better", "secure-boot", "guest-1", "warning"):
        assert words in shown.out
    assert shown.err == ""
    assert (await verifier.attestctl("policy", "dry-run", strict)).code == 2
    nobody = await verifier.attestctl("policy", "dry-run", same, "--json")
    assert (nobody.code, nobody.json["counts"]["unchanged"]) == (0, 3)
    stored = await verifier.attestctl("policy", "dry-run", "secure-boot", "--all", "--json")
    assert (stored.code, stored.json["counts"]["unchanged"]) == (0, 3)
    none = await verifier.attestctl("policy", "dry-run", lax, "--label", "env=nowhere")
    assert none.code == 3
    assert "nobody was judged" in none.out


async def test_the_command_names_what_could_not_be_judged_and_exits_with_none(verifier, tmp_path):
    (guest,) = await fleet(verifier, boot_log())
    state = await verifier.service.store.attester_state(guest.attester_id)
    damage(verifier, state.latest.evidence_sha256, None)
    policy = tmp_path / "same.yaml"
    policy.write_text(POLICY)
    shown = await verifier.attestctl("policy", "dry-run", policy, "--all")
    assert shown.code == 3
    assert "evidence-unavailable" in shown.out
    assert "1 could not be judged" in shown.out


async def test_the_command_judges_files_offline(verifier, tmp_path):
    guests = await fleet(verifier, boot_log(), OFF)
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    for number, guest in enumerate(guests):
        saved = await verifier.attestctl(
            "evidence", guest.attester_id, "--out", evidence / f"web-{number}.json"
        )
        assert saved.code == 0, saved.err
    (evidence / "torn.json").write_text('{"format": "vtpm')
    lax, same = tmp_path / "lax.yaml", tmp_path / "same.yaml"
    lax.write_text(LAX)
    same.write_text(POLICY)
    compared = await verifier.attestctl("policy", "dry-run", lax, evidence, "--against", same, "--json")
    assert {one["attester_id"]: one["change"] for one in compared.json["changes"]} == {
        "web-0": "worse",
        "web-1": "better",
    }
    assert [one["attester_id"] for one in compared.json["unjudged"]] == ["torn"]
    assert compared.code == 3
    alone = await verifier.attestctl("policy", "dry-run", same, evidence / "web-1.json")
    assert alone.code == 2
    assert "secure-boot-off" in alone.out
    good = await verifier.attestctl("policy", "dry-run", same, evidence / "web-0.json", "--json")
    assert (good.code, json.loads(good.out)["counts"]["unchanged"]) == (0, 1)


async def test_the_command_says_what_to_do_when_it_cannot(verifier, tmp_path):
    for arguments, code, words in (
        (("nowhere.yaml",), 65, "no such file"),
        (("nobody",), 69, "not-found"),
        (("x", tmp_path, "--all"), 64, "leave out the files"),
        (("x", "--against", tmp_path), 64, "for files"),
    ):
        left = await verifier.attestctl("policy", "dry-run", *arguments)
        assert (left.code, left.out) == (code, "")
        assert words in left.err
