import hashlib
import itertools
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator import RSA_EK, EkProfile, SoftwareTpm, TpmRefusal
from tests.swtpm import real_tpm
from verifier.crypto.credential import make_credential, rsa_oaep
from verifier.crypto.kdf import kdfa, kdfe
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.public import parse_public

SECRET = bytes(range(32))
EKS = [
    EkProfile(),
    RSA_EK,
    EkProfile(kind="p384", name_alg=HashAlg.SHA384, aes_bits=256),
    EkProfile(kind="p521", name_alg=HashAlg.SHA512, aes_bits=256),
    EkProfile(kind="rsa2048", name_alg=HashAlg.SHA384, aes_bits=192),
]


def counted(seed: bytes):
    """Deterministic bytes: the same for the same seed, never twice the same from one source."""
    numbers = itertools.count()

    def random(count: int) -> bytes:
        return hashlib.shake_256(seed + next(numbers).to_bytes(4, "big")).digest(count)

    return random


def low_x(curve: ec.EllipticCurve) -> int:
    """The first private key whose public x coordinate begins with a zero byte."""
    for scalar in itertools.count(1):
        point = ec.derive_private_key(scalar, curve).public_key().public_numbers()
        if point.x.bit_length() <= (curve.key_size + 7) // 8 * 8 - 8:
            return scalar
    raise AssertionError


@pytest.mark.parametrize("profile", EKS, ids=lambda p: f"{p.kind}-{p.name_alg.label}")
@pytest.mark.parametrize("secret", [b"z", b"s" * 16, SECRET])
def test_the_tpm_that_holds_both_keys_reads_the_secret(profile, secret):
    tpm = SoftwareTpm("credential", ek=profile)
    made = make_credential(parse_public(tpm.ek_public), tpm.ak_name, secret, os.urandom)
    assert tpm.activate(made.credential_blob, made.encrypted_secret) == secret


@pytest.mark.parametrize("profile", EKS[:2], ids=["p256", "rsa2048"])
def test_another_tpm_or_another_ak_does_not(profile):
    tpm = SoftwareTpm("credential", ek=profile)
    made = make_credential(parse_public(tpm.ek_public), tpm.ak_name, SECRET, os.urandom)
    with pytest.raises(TpmRefusal):
        SoftwareTpm("another", ek=profile).activate(made.credential_blob, made.encrypted_secret)
    other = make_credential(parse_public(tpm.ek_public), b"\x00\x0b" + bytes(32), SECRET, os.urandom)
    with pytest.raises(TpmRefusal, match="INTEGRITY"):
        tpm.activate(other.credential_blob, other.encrypted_secret)


@pytest.mark.parametrize("profile", EKS[:2], ids=["p256", "rsa2048"])
def test_it_is_a_function_of_its_arguments(profile):
    tpm = SoftwareTpm("credential", ek=profile)
    ek = parse_public(tpm.ek_public)
    one = make_credential(ek, tpm.ak_name, SECRET, counted(b"1"))
    assert make_credential(ek, tpm.ak_name, SECRET, counted(b"1")) == one
    other = make_credential(ek, tpm.ak_name, SECRET, counted(b"2"))
    assert other.credential_blob != one.credential_blob
    assert other.encrypted_secret != one.encrypted_secret
    assert SECRET not in one.credential_blob


def test_an_ephemeral_key_whose_x_begins_with_a_zero_is_padded_to_the_field():
    tpm = SoftwareTpm("credential")
    scalar = low_x(ec.SECP256R1())
    made = make_credential(
        parse_public(tpm.ek_public), tpm.ak_name, SECRET, lambda count: (scalar - 1).to_bytes(count, "big")
    )
    assert made.encrypted_secret[2:5] == b"\x00\x20\x00"
    assert tpm.activate(made.credential_blob, made.encrypted_secret) == SECRET


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_a_secret_that_no_tpm_takes_is_a_programming_error(secret):
    tpm = SoftwareTpm("credential")
    with pytest.raises(ValueError, match="takes 1 to 32"):
        make_credential(parse_public(tpm.ek_public), tpm.ak_name, secret, os.urandom)


def test_an_ek_without_a_usable_cipher_is_unsupported():
    none = SoftwareTpm("credential", ek=EkProfile(aes_bits=None))
    with pytest.raises(UnsupportedError, match="not AES in CFB"):
        make_credential(parse_public(none.ek_public), none.ak_name, SECRET, os.urandom)
    ek = parse_public(SoftwareTpm("credential").ek_public)
    ctr = replace(ek, ecc=replace(ek.ecc, symmetric=replace(ek.ecc.symmetric, mode=0x0040)))
    with pytest.raises(UnsupportedError, match="not AES in CFB"):
        make_credential(ctr, none.ak_name, SECRET, os.urandom)


def test_a_name_algorithm_this_build_lacks_is_unsupported(monkeypatch):
    ek = replace(parse_public(SoftwareTpm("credential").ek_public), name_alg=HashAlg.SM3_256)
    monkeypatch.setattr(HashAlg.SM3_256, "new", None)
    with pytest.raises(UnsupportedError, match="sm3_256"):
        make_credential(ek, b"", SECRET, os.urandom)


def test_an_ek_off_its_curve_is_malformed():
    ek = parse_public(SoftwareTpm("credential").ek_public)
    with pytest.raises(MalformedInputError, match="not on P-256"):
        make_credential(replace(ek, ecc=replace(ek.ecc, y=ek.ecc.y ^ 1)), b"", SECRET, os.urandom)


def test_randomness_of_the_wrong_length_is_refused_rather_than_used():
    tpm = SoftwareTpm("credential", ek=RSA_EK)
    with pytest.raises(ValueError, match="OAEP with a seed of 1"):
        make_credential(parse_public(tpm.ek_public), tpm.ak_name, SECRET, lambda _: b"x")
    rsa = parse_public(tpm.ek_public).rsa
    with pytest.raises(ValueError, match="room for 190"):
        rsa_oaep(rsa, HashAlg.SHA256, bytes(191), bytes(32))
    assert len(rsa_oaep(rsa, HashAlg.SHA256, bytes(190), bytes(32))) == 256


def test_kdfs_give_what_the_library_s_give():
    """NIST SP 800-108 counter mode and the SP 800-56A concatenation KDF, by `cryptography`'s implementations."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

    from tests.simulator.activation import _kdfa

    for size in (1, 16, 32, 33, 64, 100):
        ours = kdfa(HashAlg.SHA256, b"key", b"LABEL", b"context", size * 8)
        assert ours == _kdfa(HashAlg.SHA256, b"key", b"LABEL", b"context", size)
    theirs = ConcatKDFHash(hashes.SHA384(), 48, b"IDENTITY\0" + b"u" * 48 + b"v" * 48).derive(b"z" * 48)
    assert kdfe(HashAlg.SHA384, b"z" * 48, b"IDENTITY", b"u" * 48, b"v" * 48) == theirs


def test_the_tss_s_software_make_credential_is_activated_by_the_simulator():
    """The simulator is held against tpm2-pytss, so that it cannot be wrong in the same way as we are."""
    pytss = pytest.importorskip("tpm2_pytss")
    from tpm2_pytss.utils import make_credential as tss_make_credential

    for profile in (EkProfile(), RSA_EK):
        tpm = SoftwareTpm("credential", ek=profile)
        public, _ = pytss.TPM2B_PUBLIC.unmarshal(tpm.ek_public)
        blob, secret = tss_make_credential(public, SECRET, pytss.TPM2B_NAME(tpm.ak_name))
        assert tpm.activate(blob.marshal(), secret.marshal()) == SECRET


@pytest.mark.swtpm
def test_a_real_tpm_activates_what_we_make(tmp_path):
    """Every kind of EK that swtpm creates, and an ephemeral key whose x begins with a zero byte."""
    with real_tpm(tmp_path) as tpm:
        from tpm2_pytss import ESYS_TR, TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT, TPM2B_PUBLIC

        base = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted"
        template = TPM2B_PUBLIC.parse(alg="ecc256:ecdsa-sha256:null", objectAttributes=f"{base}|sign")
        ak, ak_public, *_ = tpm.create_primary(None, template, ESYS_TR.ENDORSEMENT)
        name = parse_public(ak_public.marshal()).name
        assert name == bytes(tpm.read_public(ak)[1])
        low = low_x(ec.SECP256R1())
        for alg, name_alg, random in (
            ("rsa2048:aes128cfb", "sha256", os.urandom),
            ("rsa2048:aes256cfb", "sha384", os.urandom),
            ("ecc256:aes128cfb", "sha256", lambda count: (low - 1).to_bytes(count, "big")),
            ("ecc384:aes256cfb", "sha384", os.urandom),
            ("ecc521:aes256cfb", "sha512", os.urandom),
        ):
            template = TPM2B_PUBLIC.parse(alg=alg, nameAlg=name_alg, objectAttributes=f"{base}|decrypt")
            handle, public, *_ = tpm.create_primary(None, template, ESYS_TR.ENDORSEMENT)
            made = make_credential(parse_public(public.marshal()), name, SECRET, random)
            blob, _ = TPM2B_ID_OBJECT.unmarshal(made.credential_blob)
            encrypted, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(made.encrypted_secret)
            assert bytes(tpm.activate_credential(ak, handle, blob, encrypted)) == SECRET, alg
            tpm.flush_context(handle)
