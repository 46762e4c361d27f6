"""A quirk that the policy tolerates: what becomes of the verdict, what is judged all the same, what stays unproven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.logs import EV_EFI_ACTION, EV_IPL, Written, agile_log
from tests.unit.appraisal.machines import LOG, SHA256, Machine, boot_events, codes, golden, judge
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import History
from verifier.appraisal.memo import LocalMemo
from verifier.appraisal.result import Appraisal, Finding, Severity, Status
from verifier.policy.model import Policy, Toleration
from verifier.policy.parse import parse_policy
from verifier.quirks import Quirk
from verifier.reasons import Reason, Tier

WHY = "every guest of this cluster has it"
TAIL = agile_log([*boot_events(), Written(8, EV_IPL, b"never extended")])


def leave(quirk: Quirk, *pcrs: int, severity: Severity = Severity.WARNING) -> Toleration:
    return Toleration(quirk=quirk, pcrs=frozenset(pcrs), severity=severity, why=WHY)


def tolerating(*tolerations: Toleration, policy: Policy | None = None) -> Policy:
    return replace(policy or golden(), tolerated=tolerations)


def quirks(result: Appraisal) -> list[Finding]:
    return [finding for finding in result.findings if finding.quirk is not None]


def unexplained(pcr: int = 0) -> Machine:
    """A machine whose firmware extended something that it did not log."""
    machine = Machine.booted()
    machine.tpm.reboot()
    machine.tpm.extend(pcr, {SHA256: SHA256.digest(b"what nobody logged")})
    machine.tpm.replay_log(LOG)
    return machine


def pinned(machine: Machine, *tolerations: Toleration, severity: str = "contraindicated") -> Policy:
    value = machine.tpm.pcrs(SHA256)[0].hex()
    policy = parse_policy(
        "schema: vtpm-attest/policy/1\nid: p\nquote: {pcrs: [0, 4, 7, 8, 9]}\nrules:\n"
        f"  - {{id: pcr0, severity: {severity}, claim: hardware, pcr: {{index: 0, any_of: [{value}]}}}}\n"
        "  - {id: sb, claim: configuration, secure_boot: enabled}\n"
        "unjudged:\n  - {pcrs: [4, 7, 8, 9], why: not what this test is about}\n"
    )
    return replace(policy, tolerated=tolerations)


def test_a_proven_quirk_is_contraindicated_until_the_policy_tolerates_it() -> None:
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=TAIL)
    untold = judge(machine, evidence)
    assert untold.tier is Tier.CONTRAINDICATED
    (finding,) = quirks(untold)
    assert (finding.reason, finding.quirk, finding.pcr) == (
        Reason.BOOT_LOG_MISMATCH,
        Quirk.EXTRA_TAIL_EVENTS,
        8,
    )
    assert "none of its events is believed" in finding.message
    assert finding.remedy == Quirk.EXTRA_TAIL_EVENTS.entry.remedy

    told = judge(machine, evidence, policy=tolerating(leave(Quirk.EXTRA_TAIL_EVENTS, 8)))
    (finding,) = quirks(told)
    assert (finding.reason, finding.status, finding.severity) == (
        Reason.BOOT_LOG_QUIRK,
        Status.FAILED,
        Severity.WARNING,
    )
    assert WHY in finding.message
    assert told.tier is Tier.WARNING
    assert codes(told) == {Reason.BOOT_LOG_QUIRK}, "the golden sequence of PCR 8 is judged, and passes"


def test_as_information_it_moves_no_verdict_and_is_still_told() -> None:
    machine = Machine.booted()
    policy = tolerating(leave(Quirk.EXTRA_TAIL_EVENTS, 8, severity=Severity.INFO))
    result = judge(machine, machine.evidence(boot_log=TAIL), policy=policy)
    assert result.tier is Tier.AFFIRMING
    assert [finding.quirk for finding in quirks(result)] == [Quirk.EXTRA_TAIL_EVENTS]


@pytest.mark.parametrize(
    "other",
    [leave(Quirk.EXTRA_TAIL_EVENTS, 4), leave(Quirk.EVENT_NOT_EXTENDED, 8), leave(Quirk.TRUNCATED_LOG, 8)],
)
def test_leave_for_another_pcr_or_quirk_is_none(other: Toleration) -> None:
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=TAIL)
    result = judge(machine, evidence, policy=tolerating(other))
    assert result.findings == judge(machine, evidence).findings
    assert result.tier is Tier.CONTRAINDICATED


def test_a_tolerated_log_is_judged_as_strictly_as_any() -> None:
    """Another kernel under a log with a tolerated tail is found by the rule on its digest."""
    machine = Machine.booted(agile_log(boot_events(kernel=b"another")))
    log = agile_log([*boot_events(kernel=b"another"), Written(4, EV_EFI_ACTION, b"never extended")])
    policy = tolerating(leave(Quirk.EXTRA_TAIL_EVENTS, 4))
    result = judge(machine, machine.evidence(boot_log=log), policy=policy)
    assert result.tier is Tier.CONTRAINDICATED
    assert Reason.EVENT_MISMATCH in codes(result)


def test_a_quirk_that_only_fits_makes_nothing_proven() -> None:
    machine = unexplained()
    result = judge(machine, policy=pinned(machine, leave(Quirk.FIRMWARE_PCR0, 0)))
    assert result.tier is Tier.WARNING
    assert codes(result) == {Reason.BOOT_LOG_QUIRK}
    boot = result.claims.boot
    assert boot.unlogged_pcrs == (0,)
    assert boot.startup_locality is None
    assert not any(event.digests for event in boot.events if event.pcr == 0)


def test_the_value_of_a_tolerated_pcr_is_judged() -> None:
    good, machine = unexplained(), Machine.booted()
    machine.tpm.reboot()
    machine.tpm.extend(0, {SHA256: SHA256.digest(b"an attacker's firmware")})
    machine.tpm.replay_log(LOG)
    result = judge(machine, policy=pinned(good, leave(Quirk.FIRMWARE_PCR0, 0)))
    assert result.tier is Tier.CONTRAINDICATED
    assert Reason.PCR_MISMATCH in codes(result)


def test_rules_that_read_a_tolerated_pcr_are_not_evaluated_and_never_pass() -> None:
    machine = unexplained()
    policy = tolerating(leave(Quirk.FIRMWARE_PCR0, 0, severity=Severity.INFO))
    result = judge(machine, policy=policy)
    assert result.tier is Tier.NONE
    assert [
        (finding.rule, finding.status)
        for finding in result.findings
        if finding.status is Status.NOT_EVALUATED
    ] == [("pcr-0", Status.NOT_EVALUATED)]


def test_no_log_tolerated_proves_nothing_either() -> None:
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=b"")
    result = judge(machine, evidence, policy=pinned(machine, leave(Quirk.ZERO_LENGTH_LOG)))
    (finding,) = quirks(result)
    assert (finding.reason, finding.tier) == (Reason.BOOT_LOG_EMPTY, Tier.WARNING)
    assert result.tier is Tier.NONE
    assert [f.rule for f in result.findings if f.status is Status.NOT_EVALUATED and f.rule] == ["sb"]
    absent = machine.evidence(boot_log=None)
    assert judge(machine, absent, policy=pinned(machine, leave(Quirk.ZERO_LENGTH_LOG))).tier is Tier.NONE


def test_a_cut_log_that_is_tolerated_is_believed_where_it_replays() -> None:
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=LOG[:-5])
    policy = tolerating(leave(Quirk.TRUNCATED_LOG, 8), policy=pinned(machine))
    assert judge(machine, evidence, policy=pinned(machine)).tier is Tier.NONE
    result = judge(machine, evidence, policy=policy)
    assert (result.tier, codes(result)) == (Tier.WARNING, {Reason.BOOT_LOG_CUT})
    assert result.claims.boot.secure_boot.enabled is True
    assert 8 in result.claims.boot.unlogged_pcrs


def test_what_one_policy_tolerates_no_other_one_believes() -> None:
    """One memo for both: the conclusion under leave is never the answer for a policy without."""
    machine, memo = Machine.booted(), LocalMemo()
    evidence = machine.evidence(boot_log=TAIL)
    results = [
        appraise(evidence, machine.expectation(), policy, History(), None, memo)
        for policy in (
            tolerating(leave(Quirk.EXTRA_TAIL_EVENTS, 8)),
            golden(),
            tolerating(leave(Quirk.EXTRA_TAIL_EVENTS, 8, severity=Severity.INFO)),
        )
    ]
    assert [result.tier for result in results] == [Tier.WARNING, Tier.CONTRAINDICATED, Tier.AFFIRMING]
    assert results[1].claims.boot.unlogged_pcrs == (8,)


def test_a_log_that_is_wrong_about_a_golden_boot_is_told_from_a_wrong_boot() -> None:
    """The golden events lead to the quoted value: nobody's log is needed to know that. It is still no pass."""
    for kernel, golden_boot in ((b"kernel", True), (b"another", False)):
        machine = Machine.booted(agile_log(boot_events(kernel=kernel)))
        log = agile_log(boot_events(kernel=b"whatever the log says"))
        result = judge(machine, machine.evidence(boot_log=log))
        (finding,) = (each for each in result.findings if each.rule == "pcr-4")
        assert finding.status is Status.NOT_EVALUATED
        assert ("it is the log that is wrong" in finding.message) == golden_boot
        assert result.tier is Tier.CONTRAINDICATED
