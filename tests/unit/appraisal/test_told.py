"""What a boot log proves does not depend on PCRs that it does not measure, and is read once while those move."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.logs import EV_IPL, Written, agile_log
from tests.unit.appraisal.machines import LINE, NOW, PCRS, SHA256, Machine, boot_events, codes, golden
from tests.unit.appraisal.test_memo import Spy
from verifier.appraisal.appraise import appraise
from verifier.appraisal.boot.told import measured_pcrs, told_to_log
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.evidence import History
from verifier.reasons import Reason
from verifier.service.memo import AppraisalMemo
from verifier.tcg.eventlog import parse_event_log

IMA = 10
QUOTED = (*PCRS, IMA)
BOOTS = sorted((ROOT / "policies" / "evidence").glob("*/binary_bios_measurements"))


def quoted(machine, **changes):
    values = machine.tpm.pcrs(SHA256)
    return machine.evidence(
        selection={SHA256: QUOTED}, pcrs={SHA256: {pcr: values[pcr] for pcr in QUOTED}}, **changes
    )


def judged(machine, memo, **changes):
    return appraise(quoted(machine, **changes), machine.expectation(), golden(), History(), NOW, memo)


def measure(machine, number):
    machine.tpm.extend(IMA, {SHA256: bytes([number]) * 32})


@pytest.fixture
def machine():
    booted = Machine.booted()
    measure(booted, 1)
    return booted


def test_a_growing_ima_list_leaves_the_reading_of_the_log_and_no_other_conclusion(machine):
    memo = Spy()
    judged(machine, memo)
    for number in range(2, 5):
        measure(machine, number)
        again, cold = judged(machine, memo), judged(machine, None)
        assert (again.tier, again.findings) == (cold.tier, cold.findings)
        assert again.claims.boot == cold.claims.boot
        assert again.claims.quote.pcrs[SHA256][IMA] == machine.tpm.pcrs(SHA256)[IMA]
    assert memo.hits == 3
    assert len(memo.boots_kept) == 1
    assert len(memo.evaluations) == 4


def test_the_first_value_in_a_pcr_that_was_empty_is_noticed():
    machine, memo = Machine.booted(), Spy()
    empty = judged(machine, memo)
    measure(machine, 1)
    held = judged(machine, memo)
    assert memo.hits == 0
    assert IMA not in empty.claims.boot.unlogged_pcrs
    assert IMA in held.claims.boot.unlogged_pcrs


def test_a_log_that_measures_the_pcr_is_read_against_every_value_of_it(machine):
    log = agile_log([*boot_events(), Written(IMA, EV_IPL, b"boot aggregate?", b"x")])
    machine = Machine.booted(log)
    memo = Spy()
    assert Reason.BOOT_LOG_MISMATCH not in codes(judged(machine, memo))
    measure(machine, 1)
    moved = judged(machine, memo)
    assert memo.hits == 0
    assert Reason.BOOT_LOG_MISMATCH in codes(moved)


def test_a_pcr_of_the_log_and_another_command_line_miss_as_ever(machine):
    memo = Spy()
    judged(machine, memo)
    measure(machine, 2)
    judged(machine, memo, kernel_command_line=LINE + " debug")
    machine.tpm.extend(8, {SHA256: bytes(32)})
    judged(machine, memo)
    assert memo.hits == 0


@pytest.mark.parametrize("path", BOOTS, ids=lambda path: path.parent.name)
def test_captured_boots_prove_the_same_whatever_their_other_pcrs_hold(path):
    log = path.read_bytes()
    parsed = parse_event_log(log, allow_cut=True)
    measured = measured_pcrs(parsed, None)
    tpm = Machine.booted(log, seed=2).tpm
    tpm.extend(IMA, {SHA256: b"i" * 32})
    tpm.extend(15, {SHA256: b"s" * 32})
    tpm.extend(11, {SHA256: SHA256.digest(b"enter-initrd")})  # a phase, of which no boot log tells
    assert bind_log(log, parsed, told_to_log(tpm_pcrs(tpm), measured), None).facts.boot_phases == (
        "enter-initrd",
    )
    whole = tpm_pcrs(tpm)
    for moved in (None, *sorted(measured & set(range(24)))):
        pcrs = {SHA256: dict(whole[SHA256])}
        if moved is not None:
            pcrs[SHA256][moved] = b"m" * 32
        told = told_to_log(pcrs, measured)
        assert bind_log(log, parsed, told, None) == bind_log(log, parsed, pcrs, None)
        assert {pcr: told[SHA256][pcr] for pcr in measured} == {pcr: pcrs[SHA256][pcr] for pcr in measured}
        assert told[SHA256].keys() == pcrs[SHA256].keys()
        assert told[SHA256][IMA] == told[SHA256][15] not in (b"i" * 32, bytes(32), b"\xff" * 32)


def tpm_pcrs(tpm):
    return {SHA256: dict(tpm.pcrs(SHA256))}


def test_a_log_that_names_ever_more_pcrs_takes_no_more_room_than_the_bound():
    memo = AppraisalMemo(max_entries=1000, max_bytes=100_000)
    from verifier.appraisal.memo import LogNames

    for number in range(50):
        memo.keep_measured(LogNames(bytes([number]), None), frozenset(range(500)))
    held = sum(memo.measured(LogNames(bytes([number]), None)) is not None for number in range(50))
    assert held == 2
    memo.keep_measured(LogNames(b"huge", None), frozenset(range(10_000)))
    assert memo.measured(LogNames(b"huge", None)) is None
