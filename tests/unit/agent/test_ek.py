"""Choosing the EK: certificates, persistent keys, NV templates and nonces, and honest machines that are odd."""

from __future__ import annotations

import pytest

from agent.ek import chosen_ek, read_endorsements
from agent.errors import ConfigError, TpmError, TpmLockoutError
from agent.templates import EK_SLOTS, AkKind, ak_template, with_nonce
from tests.fake_tpm import FakeTpm
from tests.simulator import RSA_EK, SoftwareTpm

SLOTS = {slot.name: slot for slot in EK_SLOTS}
P256 = SLOTS["ecc-p256"]
P256_HIGH = SLOTS["ecc-p256-high"]
RSA = SLOTS["rsa-2048"]
OTHER = SoftwareTpm("another machine")


@pytest.fixture
def machine():
    return SoftwareTpm("this machine")


def choose(tpm: FakeTpm, prefer: str = "auto", remembered: str | None = None):
    with chosen_ek(tpm, read_endorsements(tpm), prefer, remembered) as ek:
        assert tpm.loaded <= 1, "one key at a time: there are only three slots"
        return ek


def test_the_certified_key_is_made_once_and_flushed(machine):
    tpm = FakeTpm(machine, nv={P256.certificate_index: machine.ek_certificate})
    ek = choose(tpm)
    assert (ek.slot, ek.key.public, ek.certificate) == ("ecc-p256", machine.ek_public, machine.ek_certificate)
    assert tpm.created == [P256.template]
    assert tpm.loaded == 0


def test_a_persistent_key_that_matches_saves_making_one(machine):
    tpm = FakeTpm(
        machine,
        nv={P256.certificate_index: machine.ek_certificate},
        persistent={0x81000001: OTHER.ek_public, 0x81010001: machine.ek_public},
    )
    assert choose(tpm).key.handle == 0x81010001
    assert tpm.created == []


def test_a_persistent_key_that_does_not_match_is_left_alone(machine):
    tpm = FakeTpm(
        machine, nv={P256.certificate_index: machine.ek_certificate}, persistent={0x81010001: OTHER.ek_public}
    )
    assert choose(tpm).key.public == machine.ek_public
    assert tpm.created == [P256.template]


def test_elliptic_curves_are_preferred_and_a_choice_is_honoured(machine):
    rsa = SoftwareTpm("this machine", ek=RSA_EK)
    tpm = FakeTpm(
        machine,
        nv={RSA.certificate_index: rsa.ek_certificate, P256.certificate_index: machine.ek_certificate},
        primaries={RSA.template: rsa.ek_public},
    )
    assert choose(tpm).slot == "ecc-p256"
    assert choose(tpm, "rsa-2048").key.public == rsa.ek_public
    assert choose(tpm, remembered="rsa-2048").key.public == rsa.ek_public, (
        "or it would become another attester"
    )


def test_a_remembered_ek_that_is_gone_does_not_stop_the_next(machine):
    """The vTPM was replaced: its new certificate counts, not the old choice."""
    tpm = FakeTpm(machine, nv={P256.certificate_index: machine.ek_certificate})
    assert choose(tpm, remembered="rsa-2048").certificate == machine.ek_certificate


def test_a_template_in_nv_is_used(machine):
    own = ak_template(AkKind.ECC_P256, 7)  # any template but the default
    tpm = FakeTpm(
        machine,
        nv={P256_HIGH.certificate_index: machine.ek_certificate, P256_HIGH.template_index: own[2:]},
        primaries={own: machine.ek_public},
    )
    assert choose(tpm).key.public == machine.ek_public
    assert tpm.created == [own]


def test_a_nonce_in_nv_is_used(machine):
    tpm = FakeTpm(machine, nv={P256.certificate_index: machine.ek_certificate, P256.nonce_index: b"nonce"})
    choose(tpm)
    assert tpm.created == [with_nonce(P256.template, b"nonce")]


def test_a_template_where_the_nonce_belongs_is_recognised(machine):
    own = ak_template(AkKind.ECC_P256, 7)
    tpm = FakeTpm(
        machine,
        nv={P256.certificate_index: machine.ek_certificate, P256.nonce_index: own},
        primaries={own: machine.ek_public},
    )
    choose(tpm)
    assert tpm.created == [own]


def test_an_nv_template_that_makes_another_key_falls_back_to_the_default(machine):
    own = ak_template(AkKind.ECC_P256, 7)
    tpm = FakeTpm(
        machine,
        nv={P256.certificate_index: machine.ek_certificate, P256.template_index: own},
        primaries={own: OTHER.ek_public},
    )
    assert choose(tpm).key.public == machine.ek_public
    assert tpm.loaded == 0


def test_a_certificate_of_another_key_is_noted_and_the_next_is_taken(machine):
    tpm = FakeTpm(
        machine,
        nv={
            P256.certificate_index: OTHER.ek_certificate,
            P256_HIGH.certificate_index: machine.ek_certificate,
        },
    )
    ek = choose(tpm)
    assert ek.slot == "ecc-p256-high"
    assert ek.notes == ("ecc-p256: the TPM makes another key than the certificate's",)


def test_when_no_certificate_fits_the_verifier_gets_key_and_certificate_and_decides(machine):
    tpm = FakeTpm(machine, nv={P256.certificate_index: OTHER.ek_certificate})
    ek = choose(tpm)
    assert ek.certificate is None
    assert "no EK certificate of this TPM certifies a key" in ek.notes[-1]
    assert read_endorsements(tpm).ders == [OTHER.ek_certificate]


def test_a_tpm_without_p256_gives_the_next_key(machine):
    unsupported = TpmError("curve not supported", "none")
    tpm = FakeTpm(machine, primaries={P256.template: unsupported, P256_HIGH.template: unsupported})
    assert choose(tpm).slot == "ecc-p384-high"


def test_a_tpm_that_makes_no_key_at_all_says_why_first(machine):
    tpm = FakeTpm(machine)
    tpm.failure = TpmError("broken", "replace it")
    with pytest.raises(TpmError, match="broken"):
        choose(tpm)


@pytest.mark.parametrize("certified", [True, False])
def test_a_passing_trouble_is_not_taken_for_a_missing_key(machine, certified):
    """Falling back to the next EK would make this machine another attester."""
    nv = {P256.certificate_index: machine.ek_certificate} if certified else {}
    tpm = FakeTpm(machine, nv=nv, primaries={P256.template: TpmLockoutError("lockout", "wait")})
    with pytest.raises(TpmLockoutError):
        choose(tpm)


def test_an_sm2_certificate_is_passed_on_with_a_note(machine):
    tpm = FakeTpm(machine, nv={SLOTS["sm2-p256-high"].certificate_index: OTHER.ek_certificate})
    assert "cannot make that key" in " ".join(choose(tpm).notes)


def test_an_unknown_choice_is_refused_with_the_known_ones(machine):
    with pytest.raises(ConfigError) as caught:
        choose(FakeTpm(machine), "dsa")
    assert "ecc-p256" in caught.value.remedy


def test_certificates_longer_than_the_wire_allows_are_left_out(machine):
    giant = b"\x30\x82\x50\x00" + bytes(0x5000)
    endorsements = read_endorsements(FakeTpm(machine, nv={P256.certificate_index: giant}))
    assert endorsements.ders == []
    assert "20484 bytes" in endorsements.notes[0]


def test_the_chain_ends_where_an_index_is_missing_or_unreadable(machine):
    first = OTHER.ek_certificate
    nv = {0x01C00100: first, 0x01C00101: TpmError("no read", "none"), 0x01C00102: first, 0x01C00110: first}
    endorsements = read_endorsements(FakeTpm(machine, nv=nv))
    assert endorsements.chain == (first,)
    assert "0x01c00101" in endorsements.notes[0]
    odd = read_endorsements(FakeTpm(machine, nv={0x01C00100: first + b"junk"}))
    assert odd.notes == ("EK issuer chain: 4 bytes after certificate 1 are not one",)
