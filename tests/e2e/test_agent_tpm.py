"""The agent's TPM side on a real software TPM: certificates, keys, activation, quotes, reboot, lockout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.cli import main
from agent.ek import chosen_ek, read_endorsements
from agent.errors import BankMissingError, NoTpmError, TpmAuthError, TpmError, TpmLockoutError
from agent.esapi import open_tpm
from agent.evidence import quote_with_pcrs
from agent.templates import EK_SLOTS, AkKind, ak_template
from tests import swtpm
from tests.conftest import ROOT
from tests.fake_verifier import FakeVerifier
from tests.nv import define_nv
from verifier.crypto.credential import make_credential
from verifier.crypto.keys import public_key
from verifier.crypto.signatures import verify
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_quote
from verifier.tcg.pcr import quoted_digest
from verifier.tcg.public import ak_attribute_problems, ek_attribute_problems, parse_public
from verifier.tcg.signature import parse_signature

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or its tools are not installed"
    ),
]
EVIDENCE = ROOT / "policies" / "evidence" / "uki-sb-on"
NONCE = bytes(range(32))
SELECTION = {"sha256": list(range(16))}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> swtpm.Manufactured:
    """Manufactured once; every test runs a copy."""
    folder = tmp_path_factory.mktemp("swtpm")
    return swtpm.manufacture(folder / "tpm", folder / "ca")


@pytest.fixture
def machine(made, tmp_path):
    with swtpm.Swtpm(made.copy(tmp_path / "tpm").state) as running:
        yield running


@pytest.fixture
def tpm(machine):
    with open_tpm(machine.tcti) as opened:
        yield opened


def evict_persistent_eks(machine: swtpm.Swtpm) -> None:
    """As on a TPM whose maker left no EK in it: the agent must create the key."""
    from tpm2_pytss.constants import ESYS_TR

    with machine.esapi() as esapi:
        for handle in (0x81010001, 0x81010016):
            esapi.evict_control(ESYS_TR.OWNER, esapi.tr_from_tpmpublic(handle), handle)


def transient_handles(machine: swtpm.Swtpm) -> list[int]:
    with machine.esapi() as esapi:
        answer = esapi.get_capability(1, 0x80000000, 10)
        sessions = esapi.get_capability(1, 0x02000000, 10)
        return [int(item) for part in (answer, sessions) for item in part[1].data.handles]


# --- endorsement


def test_ek_certificates_are_read_whole_and_without_padding(tpm, made):
    endorsements = read_endorsements(tpm)
    issuer = x509.load_pem_x509_certificate(made.issuer_pem)
    assert [item.slot.name for item in endorsements.certificates] == ["ecc-p384-high", "rsa-2048"]
    for der in endorsements.ders:
        certificate = x509.load_der_x509_certificate(der)
        assert certificate.public_bytes(serialization.Encoding.DER) == der
        certificate.verify_directly_issued_by(issuer)
    assert endorsements.notes == ()


@pytest.mark.parametrize("stored", [True, False], ids=["persistent", "created"])
@pytest.mark.parametrize("slot", ["rsa-2048", "ecc-p384-high"])
def test_the_ek_is_the_one_its_certificate_names(machine, slot, stored):
    if not stored:
        evict_persistent_eks(machine)
    with open_tpm(machine.tcti) as tpm, chosen_ek(tpm, read_endorsements(tpm), slot) as ek:
        certificate = x509.load_der_x509_certificate(ek.certificate)
        public = parse_public(ek.key.public)
        assert public_key(public).public_numbers() == certificate.public_key().public_numbers()
        assert ek_attribute_problems(public) == ()
        assert ek.slot == slot
        assert ek.notes == ()


def test_a_tpm_without_certificates_still_gives_an_ek_and_says_so(tmp_path):
    bare = swtpm.manufacture(tmp_path / "bare", tmp_path / "ca", certificates=False)
    with (
        swtpm.Swtpm(bare.state) as machine,
        open_tpm(machine.tcti) as tpm,
        chosen_ek(tpm, read_endorsements(tpm)) as ek,
    ):
        assert ek.certificate is None
        assert ek.slot == "ecc-p256"
        assert ek.notes == ("no EK certificate in this TPM",)


def test_an_nv_index_larger_than_one_transfer_and_padded_is_read_and_trimmed(machine, made):
    """The issuer chain split over two indices, each larger than TPM_PT_NV_BUFFER_MAX, padded with 0xff."""
    chain = [
        x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        for pem in (made.issuer_pem, made.root_pem)
    ]
    stream = b"".join(chain)
    define_nv(machine, 0x01C00100, stream[:1100])
    define_nv(machine, 0x01C00101, stream[1100:] + b"\xff" * 600)
    with open_tpm(machine.tcti) as tpm:
        endorsements = read_endorsements(tpm)
        assert endorsements.chain == tuple(chain)
        assert endorsements.notes == ()


def test_an_unreadable_index_is_a_note_not_a_failure(machine):
    define_nv(machine, 0x01C0000A, b"\x30\x03abc", readable=False)
    define_nv(machine, 0x01C00014, b"not a certificate")
    with open_tpm(machine.tcti) as tpm:
        endorsements = read_endorsements(tpm)
        assert len(endorsements.certificates) == 2
        assert [note[:13] for note in endorsements.notes] == ["NV 0x01c0000a", "NV 0x01c00014"]


# --- attestation key


@pytest.mark.parametrize("kind", list(AkKind))
def test_the_ak_is_the_same_after_a_reboot_and_another_for_another_generation(machine, kind):
    names = []
    for generation in (0, 0, 1):
        with open_tpm(machine.tcti) as tpm, tpm.primary(ak_template(kind, generation)) as ak:
            names.append(ak.name)
            public = parse_public(ak.public)
            assert ak_attribute_problems(public) == ()
            assert public.name == ak.name
        machine.reboot()
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("kind", list(AkKind))
@pytest.mark.parametrize(
    "slot", [slot.name for slot in EK_SLOTS if slot.template and "4096" not in slot.name]
)
def test_every_kind_of_ek_activates_a_credential_for_the_ak(machine, slot, kind):
    with (
        open_tpm(machine.tcti) as tpm,
        tpm.primary(ak_template(kind, 0)) as ak,
        chosen_ek(tpm, read_endorsements(tpm), slot) as ek,
    ):
        assert ek.slot == slot
        made = make_credential(parse_public(ek.key.public), ak.name, b"s" * 32, os.urandom)
        assert tpm.activate_credential(ak, ek.key, made.credential_blob, made.encrypted_secret) == b"s" * 32
        other = make_credential(parse_public(ek.key.public), b"\0\x0b" + bytes(32), b"s" * 32, os.urandom)
        with pytest.raises(TpmError, match="activating the credential"):
            tpm.activate_credential(ak, ek.key, other.credential_blob, other.encrypted_secret)
    assert transient_handles(machine) == []


# --- quote


@pytest.mark.parametrize("kind", list(AkKind))
def test_a_quote_verifies_and_its_pcrs_are_the_captured_machine_s(machine, kind):
    log = (EVIDENCE / "binary_bios_measurements").read_bytes()
    assert swtpm.replay_boot_log(machine.tcti, log) > 30
    with open_tpm(machine.tcti) as tpm, tpm.primary(ak_template(kind, 0)) as ak:
        quoted = quote_with_pcrs(tpm, ak, NONCE, SELECTION)
        public = parse_public(ak.public)
    attest = parse_quote(quoted.quote.attest)
    assert verify(public_key(public), parse_signature(quoted.quote.signature), quoted.quote.attest)
    assert attest.extra_data == NONCE
    values = {HashAlg.SHA256: dict(quoted.values["sha256"])}
    assert quoted_digest(HashAlg.SHA256, attest.selections, values) == attest.pcr_digest
    captured = json.loads((EVIDENCE / "pcrs.json").read_text())["sha256"]
    differing = [pcr for pcr, value in quoted.values["sha256"].items() if value.hex() != captured[str(pcr)]]
    assert differing == [10], "all but IMA's register, which no boot log fills"


def test_two_banks_in_one_quote(tpm):
    selection = {"sha1": [0, 7], "sha256": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 23]}
    with tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak:
        quoted = quote_with_pcrs(tpm, ak, NONCE, selection)
    attest = parse_quote(quoted.quote.attest)
    assert [(part.bank.label, list(part.pcrs)) for part in attest.selections] == list(selection.items())


def test_the_reset_count_is_the_tpm_s_own(machine):
    """The endorsement hierarchy shows it in the clear; another hierarchy would hide it behind an offset."""
    counts = []
    for _ in range(2):
        with open_tpm(machine.tcti) as tpm, tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak:
            counts.append(parse_quote(tpm.quote(ak, NONCE, SELECTION).attest).clock.reset_count)
        machine.reboot()
    assert counts[1] == counts[0] + 1 < 20


def test_a_bank_that_is_off_is_named_with_those_that_are_on(tpm):
    with tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak, pytest.raises(BankMissingError) as caught:
        quote_with_pcrs(tpm, ak, NONCE, {"sha384": [0, 1]})
    assert "sha384" in caught.value.message
    assert "sha1, sha256" in caught.value.message
    assert "tpm2_pcrallocate" in caught.value.remedy


# --- trouble


def lock_out(machine: swtpm.Swtpm) -> None:
    with machine.esapi() as esapi:
        esapi.dictionary_attack_parameters(0, 1000, 1000)  # no failure allowed: locked at once


def test_a_tpm_in_lockout_still_attests_and_status_tells(machine, tmp_path, capsys):
    """The AK and the EK's policy need no protected authorisation, so an attacker cannot silence a guest so."""
    lock_out(machine)
    with open_tpm(machine.tcti) as tpm:
        assert tpm.properties().in_lockout
        with tpm.primary(ak_template(AkKind.ECC_P256, 0)) as ak, chosen_ek(tpm, read_endorsements(tpm)) as ek:
            quote_with_pcrs(tpm, ak, NONCE, SELECTION)
            made = make_credential(parse_public(ek.key.public), ak.name, b"s" * 32, os.urandom)
            assert (
                tpm.activate_credential(ak, ek.key, made.credential_blob, made.encrypted_secret) == b"s" * 32
            )
    assert main(["status", "--tcti", machine.tcti, "--state-dir", str(tmp_path)]) == 0
    assert "IN LOCKOUT" in capsys.readouterr().out


def test_a_key_under_lockout_protection_gives_the_lockout_error(machine):
    lock_out(machine)
    template = bytearray(ak_template(AkKind.ECC_P256, 0))
    template[2 + 6] &= ~0x04  # noDA off
    with (
        open_tpm(machine.tcti) as tpm,
        tpm.primary(bytes(template)) as ak,
        pytest.raises(TpmLockoutError) as caught,
    ):
        tpm.quote(ak, NONCE, SELECTION)
    assert "lockout" in caught.value.message
    assert "tpm2_dictionarylockout" in caught.value.remedy


def test_a_password_on_the_endorsement_hierarchy_is_named(machine):
    from tpm2_pytss.constants import ESYS_TR

    with machine.esapi() as esapi:
        esapi.hierarchy_change_auth(ESYS_TR.ENDORSEMENT, b"secret")
    with (
        open_tpm(machine.tcti) as tpm,
        pytest.raises(TpmAuthError) as caught,
        tpm.primary(ak_template(AkKind.ECC_P256, 0)),
    ):
        pytest.fail("made a key without the password")
    assert "tpm2_changeauth" in caught.value.remedy


def test_a_tpm_that_is_gone_is_no_tpm(machine):
    tcti = machine.tcti
    machine.stop()
    with pytest.raises(NoTpmError, match="does not answer"):
        open_tpm(tcti)


def test_contact_lost_in_the_middle_is_named(machine):
    with suppress(NoTpmError), open_tpm(machine.tcti) as tpm:
        machine.stop()
        with pytest.raises(NoTpmError, match="lost contact"):
            tpm.properties()


# --- the commands


def guest_root(folder: Path) -> Path:
    log = folder / "sys/kernel/security/tpm0/binary_bios_measurements"
    log.parent.mkdir(parents=True)
    log.write_bytes((EVIDENCE / "binary_bios_measurements").read_bytes())
    for path, text in {
        "sys/class/dmi/id/product_uuid": "4C4C4544-0000-2010-8020-80C04F202020\n",
        "proc/cmdline": "root=/dev/vda ro\n",
        "proc/sys/kernel/random/boot_id": "0d9f2a7e-0000-4000-8000-000000000001\n",
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "etc/hostname": "guest-1\n",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.parametrize("kind", list(AkKind))
def test_enroll_then_attest_as_the_user_runs_them(machine, tmp_path, capsys, kind):
    options = [
        "--tcti",
        machine.tcti,
        "--state-dir",
        str(tmp_path / "state"),
        "--root",
        str(guest_root(tmp_path / "r")),
    ]
    with FakeVerifier(tmp_path, selection=tuple(range(16))) as verifier:
        assert (
            main(["enroll", "--server", verifier.url, "--token", verifier.token, "--ak", kind, *options]) == 0
        )
        machine.reboot()
        assert main(["attest", "--once", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"]["status"] == "affirming"
        (request,) = [message for path, message in verifier.seen if path == "/v1/attestations"]
    assert request.identity.smbios_uuid == "4c4c4544-0000-2010-8020-80c04f202020"
    assert request.identity.hostname == "guest-1"
    assert request.kernel_command_line == "root=/dev/vda ro"
    assert request.boot_log.content == (EVIDENCE / "binary_bios_measurements").read_bytes()
    assert transient_handles(machine) == []


def test_a_collected_bundle_holds_a_quote_over_the_given_nonce(machine, tmp_path):
    root, out = guest_root(tmp_path / "r"), tmp_path / "bundle.json"
    arguments = ["--tcti", machine.tcti, "--root", str(root), "--state-dir", str(tmp_path)]
    assert main(["collect", "--out", str(out), "--nonce", "00" * 20, *arguments]) == 0
    bundle = json.loads(out.read_text())
    assert bundle["format"] == "vtpm-attest/bundle/1"
    assert bundle["nonce"] == "00" * 20
    assert set(bundle["pcrs"]["sha256"]) == {str(pcr) for pcr in range(16)}
    assert len(bundle["ek_certificates"]) == 2
    assert bundle["ima_log"] is None


def test_the_verifier_s_own_tool_reads_the_bundle(machine, tmp_path):
    bundles = pytest.importorskip("verifier.cli.bundle")
    out = tmp_path / "bundle.json"
    arguments = [
        "--tcti",
        machine.tcti,
        "--root",
        str(guest_root(tmp_path / "r")),
        "--state-dir",
        str(tmp_path),
    ]
    assert main(["collect", "--out", str(out), *arguments]) == 0
    bundle = bundles.read_bundle(out)
    assert parse_quote(bundle.evidence.attest).extra_data == bundle.nonce


def test_sigterm_in_the_middle_of_a_pause_ends_at_once_and_leaves_no_object(machine, tmp_path):
    with FakeVerifier(tmp_path) as verifier:
        command = [
            sys.executable,
            "-m",
            "agent.cli",
            "run",
            "--server",
            verifier.url,
            "--token",
            verifier.token,
        ]
        command += ["--tcti", machine.tcti, "--state-dir", str(tmp_path / "state"), "--root", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert verifier.attested.wait(15)
            process.terminate()
            assert process.wait(5) == 0
    assert transient_handles(machine) == []
