"""Signatures in images: which hold, and which certificate they lead to."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pe
from tests.unit.predict.conftest import issue
from verifier.errors import EvidenceError, MalformedInputError
from verifier.predict.authenticode import (
    ImageSignature,
    RejectedSignature,
    is_module_signing_only,
    read_image,
    subject,
)
from verifier.tcg.algorithms import HashAlg

PLAIN = pe.build()


def only(image: bytes) -> ImageSignature | RejectedSignature:
    (signature,) = read_image("image", image).signatures
    return signature


@pytest.mark.parametrize("alg", [HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384])
def test_a_signature_holds_for_the_image_it_was_made_for(pki, alg):
    signature = only(pe.sign(PLAIN, pki.db.signer(), alg.label))
    assert isinstance(signature, ImageSignature)
    assert (signature.alg, signature.digest) == (alg, pe.reference_digest(PLAIN, alg.label))
    assert signature.anchored_in(pki.db.der)
    assert not signature.anchored_in(pki.stranger.der)


def test_an_unsigned_image_has_no_signatures(pki):
    assert read_image("image", PLAIN).signatures == ()


def test_the_trusted_certificate_may_stand_anywhere_in_the_chain(pki):
    root = issue("root")
    middle = issue("middle", root)
    leaf = issue("leaf", middle, ca=False)
    signature = only(pe.sign(PLAIN, leaf.signer(middle)))
    assert [signature.anchored_in(each.der) for each in (leaf, middle, root)] == [True, True, True]
    alone = only(pe.sign(PLAIN, leaf.signer()))
    assert [alone.anchored_in(each.der) for each in (leaf, middle, root)] == [True, True, False]


def test_a_certificate_that_is_no_ca_issues_nothing():
    parent = issue("parent", ca=False)
    signature = only(pe.sign(PLAIN, issue("child", parent, ca=False).signer()))
    assert not signature.anchored_in(parent.der)


def test_two_certificates_of_one_name_are_told_apart_by_their_keys(pki):
    namesake = issue("db")
    assert not only(pe.sign(PLAIN, pki.db.signer())).anchored_in(namesake.der)


@pytest.mark.parametrize("der", [b"", b"\x30\x82\x01\x00", b"junk" * 30])
def test_what_does_not_parse_anchors_nothing_and_still_has_a_name(pki, der):
    assert not only(pe.sign(PLAIN, pki.db.signer())).anchored_in(der)
    assert "not a certificate" in subject(der)
    assert not is_module_signing_only(der)


def test_a_signature_of_another_image_is_passed_over_with_the_reason(pki):
    signature = only(pe.sign(PLAIN, pki.db.signer(), stated=bytes(32)))
    assert isinstance(signature, RejectedSignature)
    assert "another image" in signature.why


def test_a_signature_by_another_key_than_its_certificate_says_is_passed_over(pki):
    forged = pe.Signer(pki.stranger.key, pki.db.certificate)
    assert "does not verify" in only(pe.sign(PLAIN, forged)).why


def test_a_signature_whose_attributes_speak_of_other_content_is_passed_over(pki):
    signed = pe.sign(PLAIN, pki.db.signer())
    stated = pe.reference_digest(PLAIN)
    at = signed.index(stated, len(PLAIN))
    tampered = signed[:at] + bytes(32) + signed[at + 32 :]
    assert "another image" in only(tampered).why


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            pe.oid(pe.SPC_INDIRECT_DATA),
            pe.oid(pe.SPC_INDIRECT_DATA)[:-1] + b"\5",
            "is not SpcIndirectDataContent",
        ),
        (pe.oid(pe.DIGESTS["sha256"]), pe.oid(pe.DIGESTS["sha256"])[:-1] + b"\4", "digest algorithm sha224"),
        (pe.oid(pe.SIGNED_DATA), pe.oid(pe.SIGNED_DATA)[:-1] + b"\6", "not a PKCS#7 signature"),
        (pe.oid(pe.MESSAGE_DIGEST), pe.oid(pe.MESSAGE_DIGEST)[:-1] + b"\7", "messageDigest is not that"),
    ],
)
def test_a_signature_of_another_form_is_passed_over_with_the_reason(pki, old, new, message):
    signed = pe.sign(PLAIN, pki.db.signer())
    assert message in only(signed[: len(PLAIN)] + signed[len(PLAIN) :].replace(old, new)).why


def test_a_signature_whose_signer_is_not_along_is_passed_over(pki):
    other = pe.Signer(pki.db.key, pki.stranger.certificate)
    signed = pe.sign(PLAIN, other)
    serial = pe.integer(pki.stranger.certificate.serial_number)
    at = signed.rindex(serial)
    renumbered = signed[: at + 2] + bytes(len(serial) - 2) + signed[at + len(serial) :]
    assert "certificate is not in the signature" in only(renumbered).why


def test_the_other_signatures_count_where_one_is_rotten(pki):
    image = pe.sign(pe.sign(PLAIN, pki.db.signer(), stated=bytes(32)), pki.ca.signer())
    first, second = read_image("image", image).signatures
    assert isinstance(first, RejectedSignature)
    assert isinstance(second, ImageSignature)


def table_with(kind: int, content: bytes) -> bytes:
    entry = struct.pack("<IHH", 8 + len(content), 0x0200, kind) + content
    entry += bytes(-len(entry) % 8)
    at = pe.directory_entry(PLAIN)
    return PLAIN[:at] + struct.pack("<II", len(PLAIN), len(entry)) + PLAIN[at + 8 :] + entry


def test_a_pkcs7_behind_a_guid_counts_and_other_kinds_do_not(pki):
    pkcs7 = pe.sign(PLAIN, pki.db.signer())[len(PLAIN) + 8 :]
    guid = bytes.fromhex("9dd2af4adf68ee498aa9347d375665a7")
    assert isinstance(only(table_with(0x0EF1, guid + pkcs7)), ImageSignature)
    assert read_image("image", table_with(0x0EF1, bytes(16) + pkcs7)).signatures == ()
    assert read_image("image", table_with(0x0001, pkcs7)).signatures == ()


@pytest.mark.parametrize("length", [0, 8, 0xFFFFFFFF])
def test_an_attribute_certificate_that_lies_about_its_length_is_malformed(pki, length):
    signed = pe.sign(PLAIN, pki.db.signer())
    lying = signed[: len(PLAIN)] + struct.pack("<I", length) + signed[len(PLAIN) + 4 :]
    with pytest.raises(MalformedInputError) as caught:
        read_image("image", lying)
    assert (caught.value.structure, caught.value.offset) == ("WIN_CERTIFICATE", len(PLAIN))


def test_more_signatures_than_anyone_makes_are_refused():
    entry = struct.pack("<IHH", 16, 0x0200, 0x0002) + bytes(8)
    at = pe.directory_entry(PLAIN)
    many = entry * 40
    image = PLAIN[:at] + struct.pack("<II", len(PLAIN), len(many)) + PLAIN[at + 8 :] + many
    with pytest.raises(MalformedInputError, match="more than 16"):
        read_image("image", image)


@settings(max_examples=250, deadline=1000)
@given(st.data())
def test_hostile_signatures_are_rejected_or_the_typed_error_never_believed(pki, data):
    signed = bytearray(pe.sign(PLAIN, pki.leaf.signer(pki.ca)))
    for _ in range(data.draw(st.integers(1, 3))):
        signed[data.draw(st.integers(len(PLAIN) + 8, len(signed) - 1))] = data.draw(st.integers(0, 255))
    try:
        (signature,) = read_image("image", bytes(signed)).signatures
    except EvidenceError:
        return
    if isinstance(signature, ImageSignature):  # its certificates are not signed by it, but by their issuer
        assert signature.digest == pe.reference_digest(PLAIN)
        assert signature.signer == pki.leaf.certificate or not signature.anchored_in(pki.ca.der)


@settings(max_examples=250, deadline=1000)
@given(st.data())
def test_hostile_certificates_in_a_database_anchor_nothing(pki, data):
    signature = only(pe.sign(PLAIN, pki.leaf.signer()))
    der = bytearray(pki.ca.der)
    body = len(der) - 256  # before the signature over it, which firmware does not check of an anchor
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, body - 1))] = data.draw(st.integers(0, 255))
    anchored = signature.anchored_in(bytes(der))
    assert anchored in (True, False)
    subject(bytes(der))
    is_module_signing_only(bytes(der))
    if anchored:  # what an anchor is known by
        changed, whole = x509.load_der_x509_certificate(bytes(der)), pki.ca.certificate
        assert changed.subject == whole.subject
        assert changed.public_key() == whole.public_key()


def test_a_signature_by_a_key_that_firmware_does_not_know_is_passed_over(pki):
    class Elliptic:
        """Signs like an RSA key, but its certificate holds another."""

        def sign(self, data, *_):
            return b"signature"

    from cryptography.hazmat.primitives.asymmetric import ec

    odd = issue("elliptic", pki.ca, key=ec.generate_private_key(ec.SECP256R1()), ca=False)
    told = only(pe.sign(PLAIN, pe.Signer(Elliptic(), odd.certificate)))
    assert isinstance(told, RejectedSignature)
    assert "not RSA" in told.why


@pytest.mark.skipif(shutil.which("sbsign") is None, reason="SKIPPED: sbsign is not installed, no second tool")
def test_sbsign_signs_what_we_read_and_sbverify_reads_what_we_sign(pki, tmp_path: Path):
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, certificate, image = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "image.efi"
    key.write_bytes(pki.db.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(pki.db.certificate.public_bytes(Encoding.PEM))
    image.write_bytes(pe.build(pe.Shape(trailing=b"odd")))
    signed = tmp_path / "signed.efi"
    subprocess.run(["sbsign", "--key", key, "--cert", certificate, "--output", signed, image], check=True)
    assert isinstance(only(signed.read_bytes()), ImageSignature)
    signed.write_bytes(pe.sign(PLAIN, pki.db.signer()))
    assert subprocess.run(["sbverify", "--cert", certificate, signed], check=False).returncode == 0


@pytest.mark.skipif(shutil.which("pesign") is None, reason="SKIPPED: pesign is not installed, no second tool")
def test_pesign_computes_the_same_digest(tmp_path: Path):
    image = tmp_path / "image.efi"
    image.write_bytes(pe.build(pe.Shape(parts=[pe.Part(".text", b"x" * 700), pe.Part(".data", b"y" * 9)])))
    told = subprocess.run(["pesign", "-h", "-i", image], check=True, capture_output=True, text=True).stdout
    assert read_image("image", image.read_bytes()).digest(HashAlg.SHA256).hex() in told


REAL = [
    path
    for folder in ("/usr/lib/shim", "/usr/lib/systemd/boot/efi", "/usr/lib/grub/x86_64-efi-signed", "/boot")
    for path in sorted(Path(folder).glob("*"))
    if path.suffix in (".signed", ".efi") or path.name.startswith("vmlinuz")
]


@pytest.mark.skipif(not REAL, reason="SKIPPED: no distribution's boot loaders or kernels are installed here")
def test_the_signatures_of_installed_loaders_and_kernels_hold():
    for path in REAL:
        for signature in read_image(path.name, path.read_bytes()).signatures:
            assert isinstance(signature, ImageSignature), f"{path}: {signature}"
