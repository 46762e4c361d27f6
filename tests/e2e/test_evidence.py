"""Evidence for auditors: as it came, to whoever may have it, and recorded that they had it."""

from __future__ import annotations

import base64
import sqlite3
from datetime import timedelta

import pytest

from tests.harness import Guest, boot_log
from verifier.ports import Scope

FINDINGS = ("code", "status", "rule", "pcr", "event_index", "expected", "actual")


def evidence_path(guest, **query):
    return f"/v1/attesters/{guest.attester_id}/evidence" + "".join(f"?{k}={v}" for k, v in query.items())


def judged(findings):
    """What a policy and its log made of it, apart from whose word the AK and the nonce are."""
    return [
        {key: finding.get(key) for key in FINDINGS}
        for finding in findings
        if finding["claim"] != "instance-identity"
    ]


async def test_an_auditor_appraises_stored_evidence_offline_to_what_the_verdict_says(verifier, tmp_path):
    guest = Guest.booted(verifier, log=boot_log(secure=False))
    await guest.enroll()
    verdict = (await guest.attest()).json["verdict"]
    bundle, policy = tmp_path / "bundle.json", tmp_path / "policy.yaml"
    saved = await verifier.attestctl("evidence", guest.attester_id, "--out", bundle, scope=Scope.AUDITOR)
    assert saved.code == 0, saved.err
    assert "verdict 1" in saved.out
    reference = verdict["policy"]
    shown = await verifier.get(f"/v1/policies/{reference['id']}?revision={reference['revision']}")
    policy.write_text(shown.json["source"])
    again = await verifier.attestctl("appraise", bundle, "--policy", policy, "--ak-trusted", "--json")
    assert again.code == 2, again.err
    assert judged(again.json["findings"]) == judged(verdict["findings"])
    assert {finding["code"] for finding in again.json["findings"]} >= {"secure-boot-off"}


async def test_evidence_of_an_earlier_verdict_is_that_of_its_boot(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    guest.reboot(boot_log("root=/dev/vda2 debug"))
    clock.advance(minutes=1)
    await guest.attest(kernel_command_line="root=/dev/vda2 debug")
    first = (await verifier.get(evidence_path(guest, sequence=1), Scope.OPERATOR)).json
    latest = (await verifier.get(evidence_path(guest), Scope.OPERATOR)).json
    assert (first["sequence"], latest["sequence"]) == (1, 2)
    assert base64.b64decode(first["boot_log"]) == boot_log()
    assert base64.b64decode(latest["boot_log"]) == guest.log
    assert latest["kernel_command_line"] == "root=/dev/vda2 debug"
    assert latest["format"] == "vtpm-attest/bundle/1"
    assert latest["ratchet"]["attest"]


async def test_who_read_evidence_is_in_the_audit_log(verifier):
    guest = await verifier.guest()
    await guest.attest()
    assert (await verifier.get(evidence_path(guest), Scope.AUDITOR)).status == 200
    (entry,) = await verifier.decisions(guest.attester_id)
    assert (entry["action"], entry["detail"]["sequence"]) == ("evidence.read", 1)
    tokens = (await verifier.get("/v1/tokens")).json["tokens"]
    assert entry["actor"] in [token["id"] for token in tokens if token["scopes"] == ["auditor"]]


@pytest.mark.parametrize("scope", [Scope.RELYING_PARTY, Scope.DASHBOARD])
async def test_evidence_is_not_for_those_who_read_verdicts(verifier, scope):
    guest = await verifier.guest()
    await guest.attest()
    answer = await verifier.get(evidence_path(guest), scope)
    assert (answer.status, answer.code) == (403, "forbidden")
    assert await verifier.decisions() == []


async def test_what_does_not_exist_is_not_found(verifier):
    guest = await verifier.guest()
    for path in (
        evidence_path(guest),
        "/v1/attesters/att-nobody/evidence",
        "/v1/policies/secure-boot?revision=" + "0" * 64,
    ):
        assert (await verifier.get(path)).status == 404
    await guest.attest()
    for path in (evidence_path(guest, sequence=2), evidence_path(guest, sequence=2**62)):
        assert (await verifier.get(path)).status == 404
    for query in ("?sequence=0", "?sequence=x", f"?sequence={2**63}", "?other=1"):
        assert (await verifier.get(evidence_path(guest) + query)).status == 400


async def test_evidence_that_is_not_kept_any_more_is_gone_by_name(verifier, clock):
    guest = await verifier.guest()
    for _ in range(2):
        await guest.attest()
        clock.advance(days=40)
    await verifier.service.services.recorder.purge_evidence(
        clock.now() - timedelta(days=30), timedelta(days=5)
    )
    gone = await verifier.get(evidence_path(guest, sequence=1))
    assert (gone.status, gone.code) == (410, "evidence-unavailable")
    assert (await verifier.get(evidence_path(guest, sequence=2))).status == 200


async def test_damaged_evidence_is_named_and_never_given_out(verifier, log):
    guest = await verifier.guest()
    await guest.attest()
    database = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(database) as connection:
        connection.execute("update blob set content = zeroblob(length(content)), codec = 0")
    answer = await verifier.get(evidence_path(guest))
    assert (answer.status, answer.code) == (500, "internal-fault")
    assert "is damaged" in log.getvalue()
    assert await verifier.decisions() == []


async def test_explain_shows_which_rule_read_which_event(verifier):
    guest = Guest.booted(verifier, log=boot_log(secure=False))
    await guest.enroll()
    await guest.attest()
    document = (await verifier.attestctl("explain", guest.attester_id, "--json")).json
    assert (document["status"], document["sequence"]) == ("contraindicated", 1)
    by_name = {event["name"]: event for event in document["events"] if event["name"]}
    assert by_name["SecureBoot"]["rules"] == ["secure-boot"]
    assert by_name["SecureBoot"]["binding"] != "unbound"
    unread = [event for event in document["events"] if not event["rules"] and event["why_unjudged"]]
    assert any("not of machines" in event["why_unjudged"] for event in unread)
    shown = await verifier.attestctl("explain", guest.attester_id, "--sequence", "1", scope=Scope.AUDITOR)
    assert shown.code == 2
    assert "secure-boot-off" in shown.out
    assert "judged by" in shown.out


async def test_explain_says_what_it_cannot_explain(verifier):
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    body["pcrs"][0]["values"]["7"] = body["pcrs"][0]["values"]["0"]
    await verifier.post("/v1/attestations", body)
    unproven = await verifier.attestctl("explain", guest.attester_id)
    assert "no event is explained" in unproven.out
    missing = await verifier.attestctl("explain", guest.attester_id, "--sequence", "7")
    assert (missing.code, missing.out) == (69, "")
    assert "has no verdict 7" in missing.err
    refused = await verifier.attestctl("explain", guest.attester_id, scope=Scope.DASHBOARD)
    assert refused.code == 77
    assert "forbidden" in refused.err
