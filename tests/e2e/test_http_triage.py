"""What the fleet runs and no runtime set knows: grouped, counted, and proposed as a set."""

from __future__ import annotations

import hashlib
import sqlite3

import pytest

from tests.harness import Here, running, settings_for
from tests.ima_guest import POLICY, KnownPrograms, MeasuringGuest
from verifier.ports import Scope
from verifier.runtime_sets.files import load_set


@pytest.fixture
async def verifier(tmp_path):
    settings = settings_for(tmp_path, DEFAULT_POLICY="measured")
    (tmp_path / "policies" / "measured.yaml").write_text(POLICY)
    async with running(settings, None, Here(), references=KnownPrograms()) as harness:
        yield harness


@pytest.fixture
async def fleet(verifier):
    """Three machines: one in order, one with an odd tool, one with that, a changed program, and a file of its own."""
    clean, odd, worse = [await MeasuringGuest.enrolled(verifier, seed) for seed in (1, 2, 3)]
    for guest in (odd, worse):
        guest.run("/opt/acme/tool", b"acme 1.0")
        guest.run("/opt/acme/tool", b"acme 1.0")
    worse.run("/usr/bin/ls", b"trojan")
    worse.run("/srv/Mein Programm\xe9", b"own")
    worse.kernel.violation("/var/log/wtmp")
    for guest in (clean, odd, worse):
        await guest.attest()
    return clean, odd, worse


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_unknown_files_are_counted_over_the_fleet_and_named_with_their_package(verifier, fleet):
    _, odd, worse = fleet
    answer = await verifier.get("/v1/runtime/unknown", Scope.AUDITOR)
    assert answer.status == 200
    assert (answer.json["examined"], answer.json["affected"], answer.json["unread"]) == (3, 2, [])
    entries = {each["path"]: each for each in answer.json["entries"]}
    assert set(entries) == {"/opt/acme/tool", "/usr/bin/ls", "/srv/Mein_Programm\xe9"}
    tool = entries["/opt/acme/tool"]
    assert (tool["attesters"], tool["change"], tool["digest"]) == (2, "unknown", digest(b"acme 1.0"))
    assert set(tool["examples"]) == {odd.attester_id, worse.attester_id}
    changed = entries["/usr/bin/ls"]
    assert (changed["change"], changed["package"]) == ("changed", "coreutils 9.1-1 (deb)")


async def test_what_came_after_the_quote_is_not_told(verifier, fleet):
    clean, _, _ = fleet
    await clean.attest(after_quote=lambda: clean.run("/tmp/not-proven"))
    answer = await verifier.get("/v1/runtime/unknown")
    assert "/tmp/not-proven" not in str(answer.json)


async def test_pages_go_through_all_and_a_label_narrows(verifier, fleet):
    _, _, worse = fleet
    cursor, seen = None, []
    while True:
        query = "?limit=1" + (f"&cursor={cursor}" if cursor else "")
        page = (await verifier.get("/v1/runtime/unknown" + query)).json
        seen += page["entries"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(each["path"] for each in seen).count("/opt/acme/tool") == 2
    path = f"/v1/attesters/{worse.attester_id}/labels"
    assert (
        await verifier.call("PUT", path, json={"labels": {"role": "web"}}, scope=Scope.OPERATOR)
    ).status < 300
    narrowed = (await verifier.get("/v1/runtime/unknown?label=role%3Dweb")).json
    assert narrowed["examined"] == 1
    assert len(narrowed["entries"]) == 3


async def test_a_list_that_is_not_kept_whole_is_said_so(verifier, fleet):
    _, odd, _ = fleet
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as database:
        database.execute("delete from ima_piece where attester_id = ?", (odd.attester_id,))
    answer = await verifier.get("/v1/runtime/unknown")
    assert (answer.json["unread"], answer.json["affected"]) == ([odd.attester_id], 1)


@pytest.mark.parametrize("scope", [Scope.RELYING_PARTY, Scope.DASHBOARD])
async def test_whoever_may_not_audit_is_not_told_what_runs(verifier, fleet, scope):
    assert (await verifier.get("/v1/runtime/unknown", scope)).code == "forbidden"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "label=web", "cursor=zzz", "sort=x"])
async def test_a_query_that_makes_no_sense_is_refused(verifier, query):
    assert (await verifier.get(f"/v1/runtime/unknown?{query}")).status == 400


async def test_the_command_groups_and_proposes_a_set_that_knows_just_these(verifier, fleet, tmp_path):
    shown = await verifier.attestctl("ima", "triage")
    assert shown.code == 1
    assert shown.out.index("coreutils 9.1-1 (deb)") < shown.out.index("no package knows the path")
    assert "3 attesters, 2 run what no set" in shown.out
    out = tmp_path / "acme.rtset"
    made = await verifier.attestctl("ima", "triage", "--path", "/opt/acme/*", "--out", out, "--json")
    (entry,) = made.json["entries"]
    assert entry["attesters"] == 2
    written = load_set(out, digest=made.json["proposal"]["sha256"])
    (known,) = written
    assert (known.path, known.digest) == (b"/opt/acme/tool", hashlib.sha256(b"acme 1.0").digest())
    assert made.json["proposal"]["sha256"] in made.json["proposal"]["policy"]
    for options, paths in (
        ((), {b"/opt/acme/tool", "/srv/Mein_Programm\xe9".encode()}),
        (("--changed",), {b"/opt/acme/tool", "/srv/Mein_Programm\xe9".encode(), b"/usr/bin/ls"}),
    ):
        assert (await verifier.attestctl("ima", "triage", "--out", out, *options)).code == 1
        assert {each.path for each in load_set(out)} == paths
    none = await verifier.attestctl("ima", "triage", "--at-least", "3")
    assert none.code == 0
