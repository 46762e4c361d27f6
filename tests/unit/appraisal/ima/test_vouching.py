"""File signatures, keys loaded at run time, and device-mapper tables."""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding

from tests.conftest import shared_path
from tests.ima_kernel import ImaKernel
from tests.runtime_reference import ALLOW, Known
from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.crypto.file_signature import key_of_certificate
from verifier.errors import MalformedInputError
from verifier.policy.runtime.reference import RuntimeOptions, SignatureUse, SigningKey, TargetRule
from verifier.reasons import Tier
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.device_mapper import parse_targets
from verifier.tcg.ima.parse import parse_list
from verifier.tcg.ima.signature import KERNEL_HASHES, parse_file_signature

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
SMALL = rsa.generate_private_key(65537, 1024)
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
Signer = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def certificate(key: Signer, name: str = "file signing key") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return built.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def signing_key(key: Signer) -> SigningKey:
    found = key_of_certificate(certificate(key))
    assert found is not None
    return SigningKey(*found)


def sign(key: Signer, content: bytes, algorithm: str = "sha256", *, version: int = 2, kind: int = 3) -> bytes:
    """As `evmctl ima_sign` does (version 2), or over struct ima_file_id (version 3)."""
    digest = hashlib.new(algorithm, content).digest()
    hashed = digest
    if version == 3:
        hashed = hashlib.new(algorithm, bytes((kind, KERNEL_HASHES.index(algorithm))) + digest).digest()
    scheme = Prehashed(HASHES[algorithm])
    if isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(hashed, padding.PKCS1v15(), scheme)
    else:
        raw = key.sign(hashed, ec.ECDSA(scheme))
    head = struct.pack(
        ">BBB4sH", kind, version, KERNEL_HASHES.index(algorithm), signing_key(key).key_id, len(raw)
    )
    return head + raw


def judged(kernel: ImaKernel, reference: Known) -> ImaOutcome:
    quoted = {HashAlg.SHA256: dict(kernel.pcrs["sha256"])}
    return judge(INITIAL, ImaSegment(kernel.list), quoted, reference)


def reference(use: SignatureUse = SignatureUse.ACCEPTED, *keys: Signer, **options: object) -> Known:
    trusted = tuple(signing_key(key) for key in keys)
    known = Known(options=RuntimeOptions(signatures=use, **options), trusted=trusted)  # type: ignore[arg-type]
    return known.knows("/usr/bin/a", "a")


def codes(outcome: ImaOutcome) -> list[str]:
    return [one.reason.value for one in outcome.findings if one.tier is not Tier.AFFIRMING]


@pytest.mark.parametrize("key", [RSA, EC], ids=["RSA", "EC"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_file_that_a_trusted_key_signed_is_good(key: Signer, algorithm: str, version: int) -> None:
    kernel = ImaKernel(template="ima-sig", banks=("sha256",), algorithm=algorithm)
    kernel.measure("/usr/bin/new", "new", sig=sign(key, b"new", algorithm, version=version))
    outcome = judged(kernel, reference(SignatureUse.ACCEPTED, key))
    assert codes(outcome) == []
    assert outcome.claims is not None
    assert outcome.claims.signed == 1
    assert codes(judged(kernel, reference(SignatureUse.IGNORED, key))) == ["ima-file-unknown"]
    other = EC if key is RSA else RSA
    stranger = judged(kernel, reference(SignatureUse.REQUIRED, other))
    assert codes(stranger) == ["ima-signature-key-unknown"]
    assert signing_key(key).key_id.hex() in stranger.findings[1].message


def test_a_verity_signature_vouches_for_a_verity_digest_and_for_nothing_else() -> None:
    digest = hashlib.sha256(b"tree").digest()
    signature = sign(EC, b"tree", version=3, kind=6)
    kernel = ImaKernel(template="ima-sigv2")
    kernel.measure("/usr/bin/v", d_ngv2=b"verity:sha256:\0" + digest, sig=signature)
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, EC))) == []
    kernel = ImaKernel(template="ima-sigv2")
    kernel.measure("/usr/bin/v", d_ngv2=b"ima:sha256:\0" + digest, sig=signature)
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, EC))) == ["ima-signature-invalid"]


SPOILT = {
    "of another content": sign(EC, b"other"),
    "by another key under its id": sign(RSA, b"new")[:3] + signing_key(EC).key_id + sign(RSA, b"new")[7:],
    "by another algorithm than the list has": sign(EC, b"new", "sha512"),
    "by a hash of the same size, which ECDSA does not sign": sign(EC, b"new")[:2]
    + bytes([KERNEL_HASHES.index("sha3-256")])
    + sign(EC, b"new")[3:],
    "cut": sign(EC, b"new")[:-1],
    "of no known version": b"\x03\x01" + sign(EC, b"new")[2:],
    "a digest": b"\x04\x04" + hashlib.sha256(b"new").digest(),
}


@pytest.mark.parametrize("what", sorted(SPOILT))
def test_a_signature_that_does_not_hold_vouches_for_nothing(what: str) -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.measure("/usr/bin/new", "new", sig=SPOILT[what])
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, EC))) == ["ima-signature-invalid"]
    accepted = judged(kernel, reference(SignatureUse.ACCEPTED, EC))
    assert codes(accepted) == ["ima-file-unknown"]
    assert "; its signature" in accepted.findings[1].message


def test_weak_hashes_and_keys_vouch_for_nothing() -> None:
    kernel = ImaKernel(template="ima-sig", algorithm="sha1")
    kernel.measure("/usr/bin/new", "new", sig=sign(EC, b"new", "sha1"))
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, EC))) == ["ima-signature-invalid"]
    kernel = ImaKernel(template="ima-sig")
    kernel.measure("/usr/bin/new", "new", sig=sign(SMALL, b"new"))
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, SMALL))) == ["ima-signature-invalid"]


def test_where_signatures_are_required_a_known_digest_is_not_enough() -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.measure("/usr/bin/a", "a")
    assert codes(judged(kernel, reference(SignatureUse.REQUIRED, EC))) == ["ima-signature-missing"]
    assert codes(judged(kernel, reference(SignatureUse.ACCEPTED, EC))) == []
    unjudged = reference(SignatureUse.REQUIRED, EC, unknown_path=ALLOW)
    assert codes(judged(kernel, unjudged)) == ["ima-signature-missing"]


def test_a_key_measured_onto_a_trusted_keyring_vouches_from_there_on() -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.measure("/usr/bin/early", "early", sig=sign(EC, b"early"))
    kernel.buffer(".ima", certificate(EC))
    kernel.measure("/usr/bin/late", "late", sig=sign(EC, b"late"))
    learning = reference(SignatureUse.ACCEPTED, learn_keyrings=frozenset({".ima"}))
    outcome = judged(kernel, learning)
    assert codes(outcome) == ["ima-file-unknown"]
    assert "/usr/bin/early" in outcome.findings[1].message
    assert [key.name for key in outcome.state.summary.learned] == ["CN=file signing key"]
    strict = judged(kernel, reference(SignatureUse.ACCEPTED))
    assert codes(strict) == ["ima-file-unknown", "ima-key-unknown", "ima-file-unknown"]
    other = reference(SignatureUse.ACCEPTED, learn_keyrings=frozenset({".evm"}))
    assert "ima-key-unknown" in codes(judged(kernel, other))


def test_a_learned_key_is_remembered_for_the_next_tail() -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.buffer(".ima", certificate(EC))
    learning = reference(SignatureUse.REQUIRED, learn_keyrings=frozenset({".ima"}))
    state = judged(kernel, learning).state
    kernel.measure("/usr/bin/late", "late", sig=sign(EC, b"late"))
    quoted = {HashAlg.SHA256: dict(kernel.pcrs["sha256"])}
    stored = type(state).from_json(state.to_json())
    outcome = judge(stored, ImaSegment(kernel.list[state.offset :], state.offset), quoted, learning)
    assert codes(outcome) == []


def test_a_known_key_may_be_loaded() -> None:
    kernel = ImaKernel()
    digest = kernel.buffer(".ima", certificate(EC))
    known = reference()
    known.buffers = {".ima": [digest]}
    outcome = judged(kernel, known)
    assert codes(outcome) == []
    assert outcome.claims is not None
    assert outcome.claims.keys == 1


def test_the_kernels_signatures_in_a_real_list_parse() -> None:
    path = shared_path("corpus/keylime_keylime/inline/test__test_ima_verification.ima_ascii.txt")
    signed = [one.fields for one in parse_list(path.read_bytes()).entries if one.fields.signature]
    assert signed
    for fields in signed:
        signature = parse_file_signature(fields.signature)
        assert (signature.version, signature.algorithm) == (2, fields.algorithm)


@pytest.mark.parametrize("cut", range(12))
def test_a_cut_signature_is_refused_with_an_offset(cut: int) -> None:
    with pytest.raises(MalformedInputError) as refusal:
        parse_file_signature(sign(EC, b"x")[:cut])
    assert refusal.value.offset is not None


TABLE = (
    b"dm_version=4.45.0;name=te\\,st,uuid=CRYPT-VERITY-x,major=253,minor=0,minor_count=1,num_targets=1;target_index=0,"
    b"target_begin=0,target_len=204808,target_name=verity,target_version=1.8.0,verity_algorithm=sha256,root_digest=6e,salt=d7;"
)


def test_a_table_is_held_against_the_rules_of_its_target() -> None:
    kernel = ImaKernel()
    kernel.buffer("dm_table_load", TABLE)
    kernel.buffer("dm_device_resume", b"dm_version=4.45.0;name=x;active_table_hash=sha256:00;")
    for rule, want in (
        (TargetRule("verity"), []),
        (TargetRule("verity", {"root_digest": "6e"}), []),
        (TargetRule("verity", {"root_digest": "6f"}), ["ima-target-unknown"]),
        (TargetRule("linear"), ["ima-target-unknown"]),
    ):
        assert codes(judged(kernel, reference(targets=(rule,)))) == want, rule
    assert codes(judged(kernel, reference(targets=()))) == ["ima-target-unknown"]
    assert codes(judged(kernel, reference())) == ["ima-buffer-unknown"] * 2


@pytest.mark.parametrize(
    "edit",
    [
        (b"num_targets=1", b"num_targets=2"),
        (b"num_targets=1;", b"num_targets=1,num_targets=1;"),
        (b"root_digest=6e", b"root_digest=6f,root_digest=6e"),
        (b"salt=d7", b"salt"),
        (b"salt=d7;", b"salt=d7;target_index=1,target_name=linear;"),
        (b"salt=d7;", b"salt=" + b"d" * 70_000 + b";"),
    ],
    ids=["count", "count-twice", "attribute-twice", "no-value", "hidden-target", "too-long"],
)
def test_a_table_that_does_not_add_up_is_denied(edit: tuple[bytes, bytes]) -> None:
    kernel = ImaKernel()
    kernel.buffer("dm_table_load", TABLE.replace(*edit))
    rules = (TargetRule("verity", {"root_digest": "6e"}),)
    assert codes(judged(kernel, reference(targets=rules))) == ["ima-target-unknown"]


def test_real_tables_read() -> None:
    path = shared_path("corpus/keylime_keylime/inline/test__test_ima_dm.ima_ascii.txt")
    loads = [
        one.fields for one in parse_list(path.read_bytes()).entries if one.fields.path == "dm_table_load"
    ]
    names = [target.name for fields in loads for target in parse_targets(fields.buffer or b"")]
    assert names == ["verity", "linear", "snapshot", "integrity", "crypt", "cache", "mirror", "linear"]


def test_what_is_kept_of_a_boot_stays_small_whatever_is_measured() -> None:
    """Root can extend the PCR by any entry it likes, with names and digests of megabytes."""
    kernel = ImaKernel(template="ima-sig")
    huge = 200_000
    for number in range(40):
        kernel.measure(f"/{number}" + "x" * huge, "x", sig=sign(EC, b"x"))
        kernel.measure_digest(f"/tmp/{number}", b"\1" * huge)
        kernel.buffer(f"b{number}" + "\udcff" * huge, b"y" * huge)
        kernel.buffer(".ima", certificate(EC, "N" * 60))
    kernel.buffer("dm_table_load", b"num_targets=" + b"9" * huge + b";")
    kernel.measure("/lib/" + "m" * huge + ".ko", "x")
    learning = reference(SignatureUse.ACCEPTED, learn_keyrings=frozenset({".ima"}), targets=())
    outcome = judged(kernel, learning)
    assert len(outcome.findings) > 80
    assert len(outcome.state.to_json()) < 250_000
