"""PCR values must be those of the quote, on a machine whose PCRs move."""

from __future__ import annotations

import pytest

from agent.bundle import quote_for_bundle
from agent.errors import PcrsUnstableError
from agent.evidence import TRIES, quote_with_pcrs
from agent.templates import AkKind, ak_template
from tests.fake_tpm import FakeTpm
from tests.simulator import SoftwareTpm
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_quote
from verifier.tcg.pcr import quoted_digest

NONCE = bytes(range(32))
SELECTION = {"sha1": [0, 7], "sha256": [0, 4, 7, 10]}


def quoted(tpm: FakeTpm, **options):
    with tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak:
        return quote_with_pcrs(tpm, ak, NONCE, SELECTION, **options)


def assert_agree(result) -> None:
    attest = parse_quote(result.quote.attest)
    values = {HashAlg[bank.upper()]: dict(pcrs) for bank, pcrs in result.values.items()}
    assert quoted_digest(HashAlg.SHA256, attest.selections, values) == attest.pcr_digest


def moving(machine: SoftwareTpm, changes: int):
    """IMA extends PCR 10 before each of the first `changes` readings."""
    left = [changes]

    def extend() -> None:
        if left[0] > 0:
            left[0] -= 1
            machine.measure(10, b"a program")

    return extend


def restless(pcr: int):
    """A TPM whose `pcr` is extended right before and right after every quote."""
    machine = SoftwareTpm()

    class Restless(FakeTpm):
        quotes = 0

        def quote(self, *arguments):
            self.quotes += 1
            machine.measure(pcr, b"before")
            result = super().quote(*arguments)
            machine.measure(pcr, b"after")
            return result

    return Restless(machine)


def test_a_quiet_machine_needs_one_quote():
    machine = SoftwareTpm()
    machine.measure(7, b"secure boot")
    before = machine.clock.clock
    assert_agree(quoted(FakeTpm(machine)))
    assert machine.clock.clock == before + 7, "the simulator's clock counts quotes"


@pytest.mark.parametrize("changes", range(1, 9))
def test_a_busy_machine_is_quoted_again_until_both_agree(changes):
    machine = SoftwareTpm()
    assert_agree(quoted(FakeTpm(machine, before_read=moving(machine, changes))))


def test_a_change_between_quote_and_second_reading_is_caught():
    """The value moves after the first reading and before the quote: only the second reading is right."""
    machine = SoftwareTpm()

    class Between(FakeTpm):
        def quote(self, *arguments):
            machine.measure(10, b"late")
            return super().quote(*arguments)

    assert_agree(quoted(Between(machine)))


def test_a_machine_that_never_rests_gives_a_typed_error_in_bounded_time():
    tpm = restless(10)
    with pytest.raises(PcrsUnstableError) as caught:
        quoted(tpm)
    assert caught.value.transient
    assert tpm.quotes == TRIES


def test_with_the_ima_list_one_quote_does_however_fast_pcr_10_moves():
    """What is sent is PCR 10 as it was before: the list leads from there to the quoted value."""
    tpm = restless(10)
    before = tpm.machine.pcrs(HashAlg.SHA256)[10]
    result = quoted(tpm, ima_list=True)
    assert tpm.quotes == 1
    assert result.values["sha256"][10] == before


def test_with_the_ima_list_other_pcrs_still_have_to_stand_still():
    tpm = restless(7)
    with pytest.raises(PcrsUnstableError):
        quoted(tpm, ima_list=True)
    assert tpm.quotes == TRIES


class Lists:
    """A machine with an IMA list, or without."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def ima_list(self):
        return self


def bundled(tpm: FakeTpm, content: bytes | None):
    with tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak:
        return quote_for_bundle(tpm, ak, NONCE, SELECTION, Lists(content))


def test_a_bundle_of_a_machine_that_never_rests_leaves_pcr_10_to_its_ima_list():
    assert_agree(bundled(FakeTpm(SoftwareTpm()), b"a list"))
    found = bundled(restless(10), b"a list")
    assert not found.agree
    for pcr, content in ((10, None), (7, b"a list")):
        with pytest.raises(PcrsUnstableError):
            bundled(restless(pcr), content)
