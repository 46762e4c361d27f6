"""The boot aggregate against quote and boot log, and where it leaves no word."""

from __future__ import annotations

import hashlib

import pytest

from tests.ima_kernel import ImaKernel
from tests.runtime_reference import Known
from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.settle import settle_boot_aggregate
from verifier.appraisal.ima.state import INITIAL
from verifier.claims import Binding, BootFacts, EventFact, SecureBootFacts
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import USERSPACE

SHA256 = HashAlg.SHA256
INITRD, LATER = (hashlib.sha256(what).digest() for what in (b"initrd", b"NvPCR"))


def extended(*digests: bytes) -> bytes:
    value = bytes(32)
    for digest in digests:
        value = hashlib.sha256(value + digest).digest()
    return value


def measured(index: int, digest: bytes, *, userspace: bool = False) -> EventFact:
    kind = USERSPACE if userspace else 0xD
    return EventFact(index, 9, kind, "", {SHA256: digest}, Binding.UNBOUND, None, None, False)


def boot(
    *events: EventFact, unlogged: tuple[int, ...] = (), banks: tuple[HashAlg, ...] = (SHA256,)
) -> BootFacts:
    return BootFacts(b"", banks, events, SecureBootFacts(), None, None, unlogged)


KERNEL = ImaKernel(
    banks=("sha256",),
    boot={"sha256": {**{pcr: bytes([pcr]) * 32 for pcr in range(8)}, 8: bytes(32), 9: extended(INITRD)}},
)


def settled(pcrs: dict[int, bytes], facts: BootFacts | None, kernel: ImaKernel = KERNEL) -> ImaOutcome:
    quoted = {SHA256: {**kernel.pcrs["sha256"], **pcrs}}
    outcome = judge(INITIAL, ImaSegment(kernel.list), quoted, Known())
    return settle_boot_aggregate(outcome, quoted, facts)


def verdict(outcome: ImaOutcome) -> bool | None:
    assert outcome.claims is not None
    broken = [one for one in outcome.findings if one.reason.value == "ima-boot-aggregate"]
    assert bool(broken) == (outcome.claims.boot_aggregate is False)
    return outcome.claims.boot_aggregate


def test_the_quoted_values_suffice_where_nothing_was_extended_since() -> None:
    assert verdict(settled({}, None)) is True


MOVED = {9: extended(INITRD, LATER)}


def test_what_userspace_extended_later_is_taken_off_again_by_the_log() -> None:
    logged = boot(measured(0, INITRD), measured(1, LATER, userspace=True))
    assert verdict(settled(MOVED, logged)) is True


@pytest.mark.parametrize(
    "facts",
    [None, boot(measured(0, INITRD), unlogged=(9,)), boot(measured(0, INITRD), banks=(HashAlg.SHA1,))],
    ids=["no-log", "unexplained", "another-bank"],
)
def test_without_a_proven_log_of_its_bank_nothing_is_concluded(facts: BootFacts | None) -> None:
    assert verdict(settled(MOVED, facts)) is None


def test_an_aggregate_of_other_firmware_is_told() -> None:
    logged = boot(measured(0, INITRD))
    outcome = settled({4: bytes(32)}, logged)
    assert verdict(outcome) is False
    assert "other PCRs than the quote and the boot log" in outcome.findings[-1].message


def test_a_kernel_that_found_no_tpm_is_told() -> None:
    kernel = ImaKernel(banks=("sha256",))
    kernel.binary.clear()
    kernel.pcrs["sha256"].pop(10)
    kernel.measure_digest("boot_aggregate", bytes(32))
    outcome = settled({}, None, kernel)
    assert verdict(outcome) is False
    assert "no TPM" in outcome.findings[-1].message
