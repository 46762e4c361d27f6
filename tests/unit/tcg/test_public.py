from pathlib import Path

import pytest

from tests.conftest import shared_path
from tests.simulator import GOOD_AK_ATTRIBUTES, RSA_AK, RSA_EK, AkProfile, EkProfile, SoftwareTpm, marshal
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.tcg import algorithms as alg
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.public import (
    EccCurve,
    KeyScheme,
    ObjectAttributes,
    SymmetricDef,
    ak_attribute_problems,
    ek_attribute_problems,
    parse_public,
)

EVIDENCE = Path(__file__).parents[3] / "policies" / "evidence"
CAPTURES = sorted(path.parent for path in EVIDENCE.glob("*/ak_rsa.pub"))
AES_128_CFB = SymmetricDef(alg.TPM_ALG_AES, 128, alg.TPM_ALG_CFB)
MODULUS = (1 << 2047) + 1


def rsa_area(
    *, symmetric=b"\x00\x10", scheme=b"\x00\x14\x00\x0b", bits=2048, exponent=0, modulus=None, tail=b""
):
    modulus = MODULUS.to_bytes(256, "big") if modulus is None else modulus
    parameters = (
        symmetric + scheme + marshal.u16(bits) + marshal.u32(exponent) + marshal.tpm2b(modulus) + tail
    )
    return marshal.tpm2b(marshal.public_area("rsa", HashAlg.SHA256, GOOD_AK_ATTRIBUTES, b"", parameters))


def ecc_area(*, scheme=b"\x00\x18\x00\x0b", curve=3, kdf=b"\x00\x10", x=b"x" * 32, y=b"y" * 32):
    parameters = b"\x00\x10" + scheme + marshal.u16(curve) + kdf + marshal.tpm2b(x) + marshal.tpm2b(y)
    return marshal.tpm2b(marshal.public_area("ecc", HashAlg.SHA256, GOOD_AK_ATTRIBUTES, b"", parameters))


def ak(**changes):
    return parse_public(SoftwareTpm("public", ak=AkProfile(**changes)).ak_public)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_names_of_captured_keys_are_those_the_tpm_gave(capture, kind):
    public = parse_public((capture / f"ak_{kind}.pub").read_bytes())
    assert public.name.hex() == (capture / f"ak_{kind}.name").read_text().strip()
    assert ak_attribute_problems(public) == ()


def test_a_captured_ek_is_fit_to_be_one():
    public = parse_public((CAPTURES[0] / "ek_rsa.pub").read_bytes())
    assert public.rsa.key_bits == 2048
    assert public.rsa.exponent == 65537
    assert public.symmetric == AES_128_CFB
    assert public.scheme is None
    assert ek_attribute_problems(public) == ()


@pytest.mark.parametrize("file", ["google_go-tpm/vmware_ek-rsa.bin", "keylime_keylime/test-data/ek.pub"])
def test_eks_of_other_tpms_are_fit_to_be_one(file):
    """Outside vectors (a vSphere vTPM and swtpm); the corpus' manifest names origin and licence."""
    public = parse_public(shared_path(f"corpus/{file}").read_bytes())
    assert public.symmetric == AES_128_CFB
    assert ek_attribute_problems(public) == ()
    assert ak_attribute_problems(public) != ()


def test_an_ecc_ek_of_the_default_template():
    tpm = SoftwareTpm("public")
    public = parse_public(tpm.ek_public)
    assert public.type_alg == alg.TPM_ALG_ECC
    assert public.name_alg is HashAlg.SHA256
    assert public.auth_policy.hex().startswith("837197674484b3f8")
    assert public.ecc.curve is EccCurve.NIST_P256
    assert (public.symmetric, public.scheme, public.ecc.kdf) == (AES_128_CFB, None, None)
    assert public.name == tpm.ek.name


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048"])
@pytest.mark.parametrize("hash_alg", [HashAlg.SHA256, HashAlg.SHA512])
def test_kinds_hashes_and_names_of_attestation_keys(kind, hash_alg):
    tpm = SoftwareTpm("public", ak=AkProfile(kind=kind, hash_alg=hash_alg, name_alg=hash_alg))
    public = parse_public(tpm.ak_public)
    algorithm = alg.TPM_ALG_RSASSA if kind == "rsa2048" else alg.TPM_ALG_ECDSA
    assert public.scheme == KeyScheme(algorithm, hash_alg)
    assert public.symmetric is None
    assert public.name == tpm.ak_name
    assert ak_attribute_problems(public) == ()


def test_short_coordinates_and_an_explicit_exponent_are_the_same_numbers():
    assert parse_public(ecc_area(x=b"\x01", y=b"")).ecc.x == 1
    assert parse_public(rsa_area(exponent=65537)).rsa.exponent == 65537
    assert parse_public(rsa_area(exponent=65539)).rsa.exponent == 65539


def test_a_scheme_without_a_hash_and_a_named_kdf_are_represented():
    assert parse_public(rsa_area(scheme=b"\x00\x15")).scheme == KeyScheme(alg.TPM_ALG_RSAES, None)
    kdf = parse_public(ecc_area(kdf=b"\x00\x20\x00\x0b")).ecc.kdf
    assert kdf == KeyScheme(0x0020, HashAlg.SHA256)


GOOD = ObjectAttributes(GOOD_AK_ATTRIBUTES)


@pytest.mark.parametrize(
    ("attributes", "problems"),
    [
        (GOOD, ()),
        (GOOD & ~ObjectAttributes.RESTRICTED, ("restricted is not set",)),
        (GOOD & ~ObjectAttributes.SIGN, ("sign is not set",)),
        (GOOD & ~ObjectAttributes.FIXED_TPM, ("fixedTPM is not set",)),
        (GOOD & ~ObjectAttributes.FIXED_PARENT, ("fixedParent is not set",)),
        (GOOD & ~ObjectAttributes.SENSITIVE_DATA_ORIGIN, ("sensitiveDataOrigin is not set",)),
        (GOOD | ObjectAttributes.DECRYPT, ("decrypt is set",)),
        (GOOD | ObjectAttributes.NO_DA, ()),
        (
            ObjectAttributes.SIGN,
            (
                "restricted is not set",
                "fixedTPM is not set",
                "fixedParent is not set",
                "sensitiveDataOrigin is not set",
            ),
        ),
    ],
)
def test_trust_rule_2_each_ak_attribute_is_demanded(attributes, problems):
    assert ak_attribute_problems(ak(attributes=int(attributes))) == problems


def test_trust_rule_2_a_sha1_name_is_refused():
    """Activation proves a name; SHA-1 lets two public areas share one."""
    problems = ak_attribute_problems(ak(name_alg=HashAlg.SHA1))
    assert problems == ("its name is a SHA-1 digest, for which collisions can be made",)


def test_trust_rule_2_an_ak_without_a_scheme_is_refused():
    problems = ak_attribute_problems(parse_public(rsa_area(scheme=b"\x00\x10")))
    assert problems == ("it has no signing scheme, which every restricted signing key has",)


def test_an_ek_must_be_a_restricted_storage_key_of_this_tpm():
    def problems(attributes):
        tpm = SoftwareTpm("public", ek=EkProfile(attributes=attributes))
        return ek_attribute_problems(parse_public(tpm.ek_public))

    assert problems(0x000300B2) == ()
    assert problems(0x000300F2) == ()
    assert problems(0x000700B2) == ("sign is set",)
    assert problems(0x00010000) == ("fixedTPM is not set", "fixedParent is not set", "decrypt is not set")
    assert problems(0x00020012) == ("restricted is not set",)


@pytest.mark.parametrize(
    ("data", "error", "kind", "offset"),
    [
        (rsa_area(bits=1024, modulus=b"\x81" * 128), "RSA key of 1024 bits", UnsupportedError, 18),
        (rsa_area(exponent=3), "exponent of 3", UnsupportedError, 20),
        (rsa_area(exponent=65538), "exponent of 65538", UnsupportedError, 20),
        (rsa_area(modulus=b""), "no odd number of 2048 bits", MalformedInputError, 24),
        (rsa_area(modulus=b"\x7f" + b"\xff" * 255), "no odd number", MalformedInputError, 24),
        (rsa_area(modulus=b"\xff" * 255 + b"\xfe"), "no odd number", MalformedInputError, 24),
        (rsa_area(modulus=b"\xff" * 257), "modulus is 257 bytes", MalformedInputError, 24),
        (rsa_area(scheme=b"\x00\x18\x00\x0b"), "scheme 0x0018", UnsupportedError, 14),
        (rsa_area(scheme=b"\x00\x14\x00\x99"), "hash of scheme 0x0099", UnsupportedError, 16),
        (rsa_area(symmetric=b"\x00\x13\x00\x80\x00\x43"), "symmetric algorithm 0x0013", UnsupportedError, 12),
        (rsa_area(symmetric=b"\x00\x06\x00\x40\x00\x43"), "AES with a key of 64 bits", UnsupportedError, 14),
        (rsa_area(tail=b"\0"), "1 bytes follow the end", MalformedInputError, 282),
        (ecc_area(curve=0x20), "curve 0x0020", UnsupportedError, 18),
        (ecc_area(scheme=b"\x00\x1a\x00\x0b\x00\x00"), "scheme 0x001a", UnsupportedError, 14),
        (ecc_area(kdf=b"\x00\x23\x00\x0b"), "kdf 0x0023", UnsupportedError, 20),
        (ecc_area(x=b"x" * 33), "x is 33 bytes, at most 32", MalformedInputError, 22),
        (b"\x00\x02\x00\x08", "object type 0x0008", UnsupportedError, 2),
        (b"\x00\x04\x00\x01\x00\x10", "nameAlg 0x0010", UnsupportedError, 4),
        (b"\x00\x03\x00\x01", "size 3, but 2 bytes follow", MalformedInputError, 0),
        (b"\x00\x01\x00\x01", "size 1, but 2 bytes follow", MalformedInputError, 0),
        (b"", "size needs 2 bytes", MalformedInputError, 0),
    ],
)
def test_what_no_tpm_key_is_or_what_is_not_judged(data, error, kind, offset):
    with pytest.raises(EvidenceError, match=error) as caught:
        parse_public(data)
    assert type(caught.value) is kind
    assert (caught.value.structure, caught.value.offset) == ("TPM2B_PUBLIC", offset)


def test_truncated_areas_are_refused_even_with_a_matching_size():
    for profile in (AkProfile(), RSA_AK):
        area = SoftwareTpm("public", ak=profile).ak.area
        for size in range(len(area)):
            with pytest.raises(MalformedInputError):
                parse_public(marshal.tpm2b(area[:size]))


def test_changing_any_byte_of_the_area_changes_the_name():
    tpm = SoftwareTpm("public", ek=RSA_EK)
    claimed = tpm.ak.with_attributes(GOOD_AK_ATTRIBUTES | ObjectAttributes.NO_DA)
    assert parse_public(claimed.public).name != tpm.ak_name
    assert parse_public(claimed.public).name == claimed.name
