"""Stored evidence judged again: the very verdict under the very policy, whatever the machine was up to."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from tests.harness import POLICY, Guest, boot_log, running, settings_for
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.policy.assignment import Mode
from verifier.policy.source import parse_source
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.reasons import Reason, Tier
from verifier.service.assignments import AssignCommand
from verifier.service.endorsement_facts import endorsement_facts, read_facts
from verifier.service.rejudge import Case, rejudge
from verifier.service.verdicts import finding_mapping


async def stored(verifier, guest, sequence=None):
    """The newest verdict (or that of `sequence`), its evidence, and every log it names."""
    before = None if sequence is None else sequence + 1
    store = verifier.service.store
    (record,) = await store.history(DEFAULT_TENANT, guest.attester_id, before=before, limit=1)
    roles = await store.evidence_of(DEFAULT_TENANT, guest.attester_id, record.sequence)
    parts = {role: await store.blob(bytes.fromhex(digest)) for role, digest in roles.items()}
    logs = {bytes.fromhex(roles[role]): part for role, part in parts.items() if role != "quote"}
    return Case(verdict=record, bundle=parts["quote"]), logs


async def policy_of(verifier, record):
    if record.policy_id is None:
        return None
    found = await verifier.service.store.policy_revision(
        DEFAULT_TENANT, record.policy_id, record.policy_revision
    )
    return parse_source(found.source)


async def same_again(verifier, guest, sequence=None):
    """Judge again and compare all that a verdict says; returns what it says."""
    case, logs = await stored(verifier, guest, sequence)
    again = rejudge(case, logs, await policy_of(verifier, case.verdict), None)
    assert [finding_mapping(finding) for finding in again.findings] == list(case.verdict.findings)
    assert {claim.value: value for claim, value in again.vector.items()} == dict(case.verdict.vector)
    assert again.tier is case.verdict.tier
    assert (again.policy_id, again.policy_revision) == (case.verdict.policy_id, case.verdict.policy_revision)
    return case.verdict


def reasons(record):
    return {finding["code"] for finding in record.findings if finding["status"] != "passed"}


async def test_a_good_machine_reboots_sleeps_and_is_judged_the_same_again_each_time(verifier, clock):
    guest = await verifier.guest()
    for act in (lambda: None, guest.reboot, lambda: None):
        act()
        clock.advance(minutes=1)
        assert (await guest.attest()).status == 200
        assert (await same_again(verifier, guest)).tier is Tier.AFFIRMING
    for sequence in (1, 2, 3):
        assert (await same_again(verifier, guest, sequence)).sequence == sequence


async def test_a_log_that_is_named_by_digest_is_judged_again_from_the_one_copy(verifier):
    guest = await verifier.guest()
    first = (await guest.attest()).json
    blobs = verifier.rows()["blob"]
    await guest.attest(first["challenge"], boot_log={"sha256": first["challenge"]["boot_log_sha256"]})
    assert verifier.rows()["blob"] == blobs + 1  # a quote, and nothing else
    assert (await same_again(verifier, guest)).sequence == 2


async def test_tampered_evidence_is_judged_the_same_again(verifier):
    edited = Guest.booted(verifier, 2, log=boot_log())
    await edited.enroll()
    edited.log = boot_log("root=/dev/vda2 init=/bin/sh")
    off = Guest.booted(verifier, 3, log=boot_log(secure=False))
    await off.enroll()
    bare = await verifier.guest(4)
    lying = await verifier.guest(5)
    await edited.attest()
    await off.attest()
    await bare.attest(boot_log=None)
    challenge = await lying.challenge()
    body = lying.evidence(challenge)
    body["pcrs"][0]["values"]["7"] = body["pcrs"][0]["values"]["0"]
    await verifier.post("/v1/attestations", body)
    assert "boot-log-mismatch" in reasons(await same_again(verifier, edited))
    assert "secure-boot-off" in reasons(await same_again(verifier, off))
    assert "boot-log-missing" in reasons(await same_again(verifier, bare))
    assert "quote-pcr-digest" in reasons(await same_again(verifier, lying))


async def test_a_machine_that_withholds_a_pcr_is_judged_the_same_again(verifier):
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge(), selection={"sha256": [0, 4, 7]})
    for withheld in ("8", "9"):
        body["pcrs"][0]["values"].pop(withheld, None)
    answer = await verifier.post("/v1/attestations", body)
    assert answer.status == 200, answer.content
    assert "quote-pcr-selection" in reasons(await same_again(verifier, guest))


async def test_a_restored_state_and_a_copy_are_judged_the_same_again(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    saved = guest.tpm.snapshot()
    guest.reboot()
    clock.advance(minutes=1)
    await guest.attest()
    guest.tpm.restore(saved)
    await guest.attest()
    assert {"clock-rollback", "rollback"} <= reasons(await same_again(verifier, guest))
    copy = await verifier.guest(7)
    await copy.attest()
    await copy.attest(identity={"hostname": "copy", "smbios_uuid": "uuid-other"})
    assert "clone-suspected" in reasons(await same_again(verifier, copy))


async def test_without_a_policy_it_is_judged_the_same_again(tmp_path):
    async with running(settings_for(tmp_path, DEFAULT_POLICY="not-there")) as verifier:
        guest = await verifier.guest()
        await guest.attest()
        assert "policy-missing" in reasons(await same_again(verifier, guest))


async def test_what_a_tried_policy_said_is_kept_but_for_that_of_the_policy_that_judges_now(verifier):
    guest = await verifier.guest()
    tried = POLICY.replace("id: secure-boot\ndesc", "id: tried\ndesc").replace("enabled", "disabled")
    await verifier.call(
        "POST", "/v1/policies", data=tried.encode(), headers={"Content-Type": "application/yaml"}, scope=Scope.OPERATOR
    )  # fmt: skip
    await assign(verifier, "tried", "warn")
    await guest.attest()
    record = await same_again(verifier, guest)
    assert record.tier is Tier.WARNING
    assert {"tried/*", "tried/secure-boot"} <= {finding.get("rule") for finding in record.findings}
    case, logs = await stored(verifier, guest)
    enforced = rejudge(case, logs, parse_source(tried), None)
    assert enforced.tier is Tier.CONTRAINDICATED
    assert not [finding for finding in enforced.findings if "/" in (finding.rule or "")]


async def assign(verifier, policy_id, mode):
    command = AssignCommand(policy_id=policy_id, revision=None, mode=Mode(mode), priority=0, selector={})
    await verifier.service.services.assignments.put(DEFAULT_TENANT, command, "test")


async def test_the_facts_of_the_ek_are_those_of_then(verifier):
    guest = await verifier.guest()
    await guest.attest()
    case, _ = await stored(verifier, guest)
    state = await verifier.service.store.attester_state(guest.attester_id)
    assert read_facts(case.verdict.endorsement) == endorsement_facts(state.attester)
    assert case.verdict.endorsement["endorsed_by"] == "certificate"


async def test_evidence_that_is_not_there_is_told_by_name_and_never_judged(verifier):
    guest = await verifier.guest()
    await guest.attest()
    case, logs = await stored(verifier, guest)
    policy = parse_source(POLICY)
    older = dataclasses.replace(case, verdict=structs.replace(case.verdict, endorsement=None))
    (digest,) = logs
    for broken, given, named in ((case, {}, digest.hex()), (older, logs, "EK")):
        with pytest.raises(EvidenceError, match=named) as caught:
            rejudge(broken, given, policy, None)
        assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
    damaged = dataclasses.replace(case, bundle=case.bundle[:-1])
    with pytest.raises(StoredDataDamaged):
        rejudge(damaged, logs, policy, None)


async def test_a_pcr_nobody_had_asked_for_is_no_fault_of_the_machine(verifier):
    guest = await verifier.guest()
    await guest.attest()
    case, logs = await stored(verifier, guest)
    wider = POLICY.replace("[0, 4, 7, 8, 9]", "[0, 4, 7, 8, 9, 14]")
    with pytest.raises(EvidenceError, match="PCR 14") as caught:
        rejudge(case, logs, parse_source(wider), None)
    assert caught.value.reason is Reason.QUOTE_PCR_SELECTION
