"""What a verdict is made of, on evidence that a software TPM really signed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from tests.logs import Written, agile_event, agile_log, spec_id
from tests.simulator import RSA_AK, AkProfile, Tamper
from tests.unit.appraisal.machines import (
    LINE,
    LOG,
    NONCE,
    NOW,
    PCRS,
    SHA256,
    Machine,
    boot_events,
    codes,
    golden,
    judge,
)
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Expectation, History
from verifier.appraisal.result import Status
from verifier.claims import EndorsementFacts
from verifier.errors import MalformedInputError
from verifier.policy.parse import parse_policy
from verifier.quirks import Quirk
from verifier.reasons import Claim, Reason, Tier
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo
from verifier.tcg.pcr import FixedPcrs


def test_a_golden_boot_is_affirming_with_every_check_passed() -> None:
    result = judge(Machine.booted())
    assert result.tier is Tier.AFFIRMING
    assert result.authenticated
    assert codes(result) == set()
    assert result.vector == {
        Claim.INSTANCE_IDENTITY: 2,
        Claim.CONFIGURATION: 2,
        Claim.HARDWARE: 2,
        Claim.EXECUTABLES: 3,
    }


def test_values_that_were_changed_since_are_not_taken_for_those_that_were_quoted() -> None:
    machine = Machine.booted()
    evidence = machine.evidence()
    policy, history = golden(machine), History()
    first = appraise(evidence, machine.expectation(), policy, history, NOW)
    evidence.pcrs[SHA256][7] = bytes(32)
    result = appraise(evidence, machine.expectation(), policy, history, NOW)
    assert first.tier is Tier.AFFIRMING
    assert (result.tier, codes(result)) == (Tier.CONTRAINDICATED, {Reason.QUOTE_PCR_DIGEST})


def test_fixed_values_of_others_answer_for_no_quote_but_one_over_them() -> None:
    """The digest is remembered for the values, and each quote is still held against it."""
    good, other = Machine.booted(), Machine.booted(agile_log(boot_events(kernel=b"kernel 2")))
    fixed = FixedPcrs(good.evidence().pcrs)
    for _ in range(2):
        assert judge(good, evidence=good.evidence(pcrs=fixed)).tier is Tier.AFFIRMING
        result = judge(other, evidence=other.evidence(pcrs=fixed))
        assert Reason.QUOTE_PCR_DIGEST in codes(result)
        assert result.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    "profile",
    [RSA_AK, AkProfile(kind="rsa2048", scheme="rsapss"), AkProfile(kind="p384", hash_alg=HashAlg.SHA384)],
)
def test_every_signature_scheme_of_the_specification_is_judged_alike(profile: AkProfile) -> None:
    assert judge(Machine.booted(ak=profile)).tier is Tier.AFFIRMING


def test_a_tampered_command_line_names_event_expected_and_found() -> None:
    line = LINE + " lockdown=none"
    result = judge(Machine.booted(agile_log(boot_events(line))))
    assert result.tier is Tier.CONTRAINDICATED
    finding = next(f for f in result.findings if f.reason is Reason.EVENT_MISMATCH)
    assert (finding.pcr, finding.event_index) == (8, 13)
    assert SHA256.digest(LINE.encode()).hex() in (finding.expected or "")
    assert finding.actual == f"{SHA256.digest(line.encode()).hex()} ({line})"


def test_secure_boot_off_is_contraindicated_by_name() -> None:
    result = judge(Machine.booted(agile_log(boot_events(secure=False))))
    assert Reason.SECURE_BOOT_OFF in codes(result)
    assert result.vector[Claim.CONFIGURATION] == 96


def test_a_learned_policy_takes_every_boot_it_was_learned_from() -> None:
    one, two = Machine.booted(), Machine.booted(agile_log(boot_events(kernel=b"kernel 2")))
    policy = golden(one, two)
    assert judge(one, policy=policy).tier is Tier.AFFIRMING
    assert judge(two, policy=policy).tier is Tier.AFFIRMING
    three = Machine.booted(agile_log(boot_events(kernel=b"kernel 3")))
    assert Reason.EVENT_MISMATCH in codes(judge(three, policy=policy))


def test_a_warning_policy_can_at_most_warn_about_the_boot() -> None:
    policy = golden(severity="warning")
    result = judge(Machine.booted(agile_log(boot_events(secure=False))), policy=policy)
    assert result.tier is Tier.WARNING


# --- the quote


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (Tamper(corrupt_signature=True), Reason.QUOTE_SIGNATURE),
        (Tamper(attest_after_signing={40: 0xFF}), Reason.QUOTE_SIGNATURE),
        (Tamper(nonce=bytes(32)), Reason.QUOTE_NONCE),
        (Tamper(nonce=NONCE[:31]), Reason.QUOTE_NONCE),
        (Tamper(hash_alg=HashAlg.SHA1), Reason.QUOTE_SIGNATURE_ALGORITHM),
        (Tamper(hash_alg=HashAlg.SHA512), Reason.QUOTE_SIGNATURE_ALGORITHM),
    ],
)
def test_a_quote_that_is_not_ours_authenticates_nothing(tamper: Tamper, reason: Reason) -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(tamper=tamper))
    assert not result.authenticated
    assert result.tier is Tier.CONTRAINDICATED
    assert reason in codes(result)
    assert result.claims is None


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (Tamper(magic=0xDEADBEEF), Reason.QUOTE_MAGIC),
        (Tamper(attest_type=0x8017), Reason.QUOTE_TYPE),
        (Tamper(suffix=b"\0"), Reason.MALFORMED_STRUCTURE),
    ],
)
def test_a_structure_that_is_no_quote_is_a_typed_error(tamper: Tamper, reason: Reason) -> None:
    machine = Machine.booted()
    with pytest.raises(MalformedInputError) as caught:
        judge(machine, machine.evidence(tamper=tamper))
    assert caught.value.reason is reason
    assert caught.value.offset is not None


def test_sha1_signatures_are_refused_unless_the_policy_says_so() -> None:
    machine = Machine.booted(ak=AkProfile(hash_alg=HashAlg.SHA1))
    assert Reason.QUOTE_SIGNATURE_ALGORITHM in codes(judge(machine))
    lax = replace(golden(), quote=replace(golden().quote, signature_hashes=frozenset({HashAlg.SHA1})))
    assert judge(machine, policy=lax).tier is Tier.AFFIRMING


def test_another_machines_quote_is_refused() -> None:
    ours, theirs = Machine.booted(), Machine.booted(seed=2)
    result = judge(ours, theirs.evidence())
    assert (result.authenticated, codes(result)) == (False, {Reason.QUOTE_SIGNATURE})


@pytest.mark.parametrize(
    "selection",
    [{SHA256: PCRS[:-1]}, {HashAlg.SHA1: PCRS}, {SHA256: ()}, [(SHA256, PCRS[:2]), (HashAlg.SHA1, PCRS[2:])]],
)
def test_a_quote_over_less_than_was_asked_proves_nothing(selection: object) -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(selection=selection))
    assert result.tier is Tier.CONTRAINDICATED
    assert codes(result) == {Reason.QUOTE_PCR_SELECTION}


def test_the_policy_in_force_decides_what_had_to_be_quoted() -> None:
    """A challenge from before the policy grew does not lower the bar."""
    machine = Machine.booted()
    evidence = machine.evidence(selection={SHA256: PCRS[:-1]})
    assert codes(judge(machine, evidence, request=())) == {Reason.QUOTE_PCR_SELECTION}


def test_pcr_values_that_differ_from_the_quote_are_not_believed() -> None:
    machine = Machine.booted()
    honest = machine.evidence()
    forged = structs.replace(honest, pcrs={SHA256: {**honest.pcrs[SHA256], 7: bytes(32)}})
    result = judge(machine, forged)
    assert codes(result) == {Reason.QUOTE_PCR_DIGEST}
    assert result.vector[Claim.INSTANCE_IDENTITY] == 99


def test_values_sent_beside_the_quoted_ones_are_not_believed() -> None:
    machine = Machine.booted()
    honest = machine.evidence()
    forged = structs.replace(honest, pcrs={SHA256: {**honest.pcrs[SHA256], 15: b"\xaa" * 32}})
    claims = judge(machine, forged).claims
    assert claims is not None
    assert set(claims.quote.pcrs[SHA256]) == set(PCRS)


# --- identity and freshness


def test_an_ak_that_was_never_activated_gives_no_verdict() -> None:
    result = judge(Machine.booted(), ak_activated=False)
    assert result.tier is Tier.NONE
    assert codes(result) == {Reason.AK_UNPROVEN}


def test_without_a_nonce_of_ours_freshness_is_not_proven() -> None:
    result = judge(Machine.booted(), nonce=None)
    assert (result.tier, codes(result)) == (Tier.NONE, {Reason.FRESHNESS_ASSUMED})


def test_assumptions_are_listed_even_when_they_are_accepted() -> None:
    result = judge(Machine.booted(), ak_activated=False, assumed=True)
    assert result.tier is Tier.AFFIRMING
    assert codes(result) == {Reason.AK_UNPROVEN, Reason.FRESHNESS_ASSUMED}


def test_a_software_ak_is_refused_although_it_was_activated() -> None:
    machine = Machine.booted(ak=AkProfile(attributes=0x00040040, resident=False))
    result = judge(machine)
    assert Reason.AK_ATTRIBUTES in codes(result)
    assert result.vector[Claim.INSTANCE_IDENTITY] == 97
    assert result.tier is Tier.CONTRAINDICATED


# --- history


def clock_of(machine: Machine) -> ClockInfo:
    now = machine.tpm.clock
    return ClockInfo(now.clock, now.reset_count, now.restart_count, now.safe)


def test_a_clock_that_goes_on_or_a_reboot_is_no_rollback() -> None:
    machine = Machine.booted()
    history = History(last_clock=clock_of(machine))
    assert judge(machine, history=history).tier is Tier.AFFIRMING
    machine.reboot()
    assert judge(machine, history=history).tier is Tier.AFFIRMING
    machine.tpm.suspend_resume()
    assert judge(machine, history=history).tier is Tier.AFFIRMING


def test_a_restored_snapshot_is_a_rollback_by_name() -> None:
    machine = Machine.booted()
    snapshot = machine.tpm.snapshot()
    machine.tpm.advance(60_000)
    history = History(last_clock=clock_of(machine))
    machine.tpm.restore(snapshot)
    result = judge(machine, history=history)
    assert Reason.CLOCK_ROLLBACK in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    ("before", "now", "rollback"),
    [
        (ClockInfo(100, 5, 0, True), ClockInfo(100, 5, 0, True), False),
        (ClockInfo(100, 5, 0, True), ClockInfo(99, 5, 0, True), True),
        (ClockInfo(100, 5, 2, True), ClockInfo(200, 5, 1, True), True),
        (ClockInfo(100, 5, 0, True), ClockInfo(500, 4, 0, True), True),
        (ClockInfo(100, 5, 0, True), ClockInfo(50, 6, 0, True), True),
        (ClockInfo(100, 5, 0, True), ClockInfo(50, 6, 0, False), False),
        (ClockInfo(100, 5, 3, True), ClockInfo(200, 6, 0, True), False),
    ],
)
def test_rollback_is_told_from_reboot_and_from_power_loss(
    before: ClockInfo, now: ClockInfo, rollback: bool
) -> None:
    from tests.simulator import Clock

    machine = Machine.booted()
    told = Tamper(clock=Clock(now.clock, now.reset_count, now.restart_count, now.safe))
    result = judge(machine, machine.evidence(tamper=told), history=History(last_clock=before))
    assert (Reason.CLOCK_ROLLBACK in codes(result)) is rollback
    assert (Reason.CLOCK_UNSAFE in codes(result)) is not now.safe


def test_two_smbios_uuids_under_one_tpm_are_suspected_to_be_a_clone() -> None:
    machine = Machine.booted()
    history = History(smbios_uuids=frozenset({"a"}))
    result = judge(machine, machine.evidence(smbios_uuid="b"), history=history)
    assert (result.tier, codes(result)) == (Tier.WARNING, {Reason.CLONE_SUSPECTED})
    again = judge(
        machine, machine.evidence(smbios_uuid="b"), history=History(smbios_uuids=frozenset({"a", "b"}))
    )
    assert again.tier is Tier.WARNING, "a suspicion does not fade by repetition"


def test_changed_tpm_firmware_is_noted() -> None:
    assert Reason.FIRMWARE_CHANGED in codes(judge(Machine.booted(), history=History(last_firmware_version=1)))


# --- the log


def test_an_absent_log_is_no_pass() -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(boot_log=None))
    assert result.tier is Tier.NONE
    assert Reason.BOOT_LOG_MISSING in codes(result)


def test_an_absent_log_warns_where_the_policy_says_optional() -> None:
    machine = Machine.booted()
    policy = replace(golden(severity="warning"), boot_log=type(golden().boot_log)("optional"))
    assert judge(machine, machine.evidence(boot_log=None), policy=policy).tier is Tier.WARNING


def test_a_log_cut_at_an_event_does_not_replay() -> None:
    machine = Machine.booted()
    kernel, line = (len(agile_event(event)) for event in boot_events()[-2:])
    without_line = judge(machine, machine.evidence(boot_log=LOG[:-line]))
    assert without_line.tier is Tier.NONE, "PCR 8 holds something that no event explains"
    without_kernel = judge(machine, machine.evidence(boot_log=LOG[: -line - kernel]))
    assert Reason.BOOT_LOG_MISMATCH in codes(without_kernel)
    assert without_kernel.tier is Tier.CONTRAINDICATED


def test_an_invented_event_does_not_replay() -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(boot_log=LOG + agile_event(Written(8, 0xD, b"x"))))
    assert next(f.pcr for f in result.findings if f.reason is Reason.BOOT_LOG_MISMATCH) == 8


def test_a_log_without_the_quoted_bank_cannot_be_judged() -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(boot_log=agile_log(boot_events(), (HashAlg.SHA1,))))
    assert Reason.BOOT_LOG_BANK_MISSING in codes(result)
    assert result.tier is Tier.NONE


@pytest.mark.parametrize("cut", [1, 5, len(LOG) // 2])
def test_a_log_cut_inside_an_event_is_a_finding_and_never_good(cut: int) -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(boot_log=LOG[:-cut]))
    (finding,) = (each for each in result.findings if each.reason is Reason.BOOT_LOG_CUT)
    assert result.authenticated
    assert result.tier in (Tier.NONE, Tier.CONTRAINDICATED)
    assert (finding.quirk, finding.tier) == (Quirk.TRUNCATED_LOG, Tier.NONE)
    assert Reason.BOOT_LOG_REPLAYS not in {each.reason for each in result.findings}


@pytest.mark.parametrize("damage", [4, len(LOG) // 2])
def test_a_log_damaged_before_its_end_is_a_typed_error_with_its_offset(damage: int) -> None:
    machine = Machine.booted()
    with pytest.raises(MalformedInputError) as caught:
        judge(machine, machine.evidence(boot_log=LOG[:damage] + b"\xee" * 40 + LOG[damage + 40 :]))
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    "log", [b"", bytes(4096), b"\xff" * 64, spec_id()], ids=["0", "zeros", "ff", "header"]
)
def test_a_log_without_a_measured_event_is_no_log(log: bytes) -> None:
    machine = Machine.booted()
    result = judge(machine, machine.evidence(boot_log=log))
    (finding,) = (each for each in result.findings if each.reason is Reason.BOOT_LOG_EMPTY)
    assert (result.authenticated, result.tier, finding.quirk) == (True, Tier.NONE, Quirk.ZERO_LENGTH_LOG)
    assert result.claims.boot is None


# --- the policy


def test_without_a_policy_nothing_is_good() -> None:
    machine = Machine.booted()
    result = appraise(machine.evidence(), machine.expectation(), None, History(), None)
    assert (result.tier, codes(result)) == (Tier.NONE, {Reason.POLICY_MISSING})


def test_a_policy_of_golden_pcrs_needs_no_log() -> None:
    machine = Machine.booted()
    values = machine.tpm.pcrs(SHA256)
    rules = "\n".join(
        f"  - {{id: pcr{pcr}, claim: configuration, pcr: {{index: {pcr}, any_of: [{values[pcr].hex()}]}}}}"
        for pcr in PCRS
    )
    policy = parse_policy(
        f"schema: vtpm-attest/policy/1\nid: pcrs\nquote: {{pcrs: {list(PCRS)}}}\nboot_log: ignored\nrules:\n{rules}"
    )
    assert judge(machine, machine.evidence(boot_log=None), policy=policy).tier is Tier.AFFIRMING
    machine.tpm.measure(9, b"implant")
    result = judge(machine, policy=policy)
    assert [(f.reason, f.pcr) for f in result.findings if f.status is Status.FAILED] == [
        (Reason.PCR_MISMATCH, 9)
    ]


def test_an_unauthenticated_expectation_is_not_needed_for_parsing() -> None:
    machine = Machine.booted()
    with pytest.raises(MalformedInputError):
        appraise(machine.evidence(), Expectation(b"", True, NONCE, ()), golden(), History(), None)


# --- what enrolment proved of the EK


def test_a_policy_sees_the_endorsement_only_of_an_activated_ak() -> None:
    """Without an activation nothing ties the certified EK to the key that signed."""
    machine, facts = Machine.booted(), EndorsementFacts(endorsed_by="certificate", virtual=True)
    proven = judge(machine, endorsement=facts)
    assert proven.claims is not None
    assert proven.claims.endorsement == facts
    for unproven in (judge(machine, endorsement=facts, ak_activated=False), judge(machine)):
        assert unproven.claims is not None
        assert unproven.claims.endorsement is None
