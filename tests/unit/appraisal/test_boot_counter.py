"""Windows' own count of its boots: read off proven logs, real and made, and a rollback when it goes back."""

from __future__ import annotations

import struct
from datetime import timedelta

import pytest
from msgspec.structs import replace

from scripts.make_windows_evidence import windows_log
from tests.conftest import shared_path
from tests.simulator import SoftwareTpm
from tests.unit.appraisal.machines import NONCE, NOW, SHA256
from verifier.appraisal.appraise import appraise
from verifier.appraisal.checks.clone import advanced, windows_boot_counter
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.appraisal.lineage import BootCounter, IncidentKind, Lineage
from verifier.appraisal.result import Status
from verifier.reasons import Reason, Tier
from verifier.tcg.windows import Sipa

PCRS = tuple(range(16))
TPM = SoftwareTpm("windows")


def log_of(boots: int, counter: int = 7) -> bytes:
    return windows_log(
        {Sipa.BOOTCOUNTER: struct.pack("<Q", boots), Sipa.COUNTERID: struct.pack("<I", counter)}
    )


def judged(log: bytes, line: Lineage | None = None, **changes: object):
    """A new boot of the machine, which shows in the TPM as any other."""
    TPM.reboot()
    TPM.replay_log(log)
    attest, signature = TPM.quote(NONCE, {SHA256: PCRS})
    values = {SHA256: {pcr: TPM.pcrs(SHA256)[pcr] for pcr in PCRS}}
    evidence = replace(Evidence(attest, signature, values, boot_log=log), **changes)
    request = (PcrRequest(bank=SHA256, pcrs=frozenset(PCRS)),)
    expectation = Expectation(TPM.ak_public, ak_activated=True, nonce=NONCE, request=request)
    line = line or Lineage()
    return appraise(evidence, expectation, None, History(last_clock=line.clock, lineage=line), NOW)


def after(line: Lineage, appraisal) -> Lineage:
    return advanced(line, appraisal.place, NOW + timedelta(minutes=1), due=False)


def failed(appraisal) -> set[Reason]:
    return {one.reason for one in appraisal.findings if one.status is Status.FAILED}


def test_a_boot_count_that_goes_back_is_a_rollback_although_the_tpm_shows_nothing():
    line = after(Lineage(), judged(log_of(41)))
    assert line.boot_counter == BootCounter(id=7, value=41)
    on = judged(log_of(42), line)
    assert failed(on) == set()
    line = after(line, on)
    back = judged(log_of(40), line)
    assert {Reason.BOOT_COUNTER_ROLLBACK, Reason.ROLLBACK} <= failed(back)
    (found,) = [one for one in back.findings if one.reason is Reason.BOOT_COUNTER_ROLLBACK]
    assert (found.expected, found.actual) == ("at least 42", "40")
    assert back.tier is Tier.CONTRAINDICATED
    line = after(line, back)
    assert line.boot_counter == BootCounter(id=7, value=42), "evidence that has parted moves nothing"
    assert line.incident.kind is IncidentKind.ROLLBACK
    assert Reason.ROLLBACK in failed(judged(log_of(43), line)), (
        "it stays until somebody says that it was meant"
    )


@pytest.mark.parametrize("boots", [42, 43, 100])
def test_a_count_that_stays_or_grows_is_none(boots):
    line = after(Lineage(), judged(log_of(42)))
    assert failed(judged(log_of(boots), line)) == set()


def test_another_counter_counts_for_itself():
    line = after(Lineage(), judged(log_of(42)))
    other = judged(log_of(1, counter=8), line)
    assert failed(other) == set()
    assert after(line, other).boot_counter == BootCounter(id=8, value=1)


def test_a_count_that_is_not_proven_is_not_judged():
    """The log of an earlier boot, sent beside a quote of this one."""
    line = after(Lineage(), judged(log_of(42)))
    lie = judged(log_of(43), line, boot_log=log_of(1))
    assert Reason.BOOT_COUNTER_ROLLBACK not in failed(lie)
    assert Reason.BOOT_LOG_MISMATCH in failed(lie)
    assert after(line, lie).boot_counter == BootCounter(id=7, value=42)


def test_the_count_of_a_real_boot_is_read():
    log = shared_path("corpus/immune-gmbh_guard-oss/dell-notebook-5eventlogs-WBCL.log").read_bytes()
    real = judged(log)
    assert windows_boot_counter(real.claims.boot) == BootCounter(id=0x01410001, value=177)
    line = after(Lineage(), real)
    assert Reason.BOOT_COUNTER_ROLLBACK not in failed(judged(log, line))
    ahead = replace(line, boot_counter=BootCounter(id=0x01410001, value=178))
    assert Reason.BOOT_COUNTER_ROLLBACK in failed(judged(log, ahead))
