"""Every parser of TPM structures returns, or raises the one typed error; and it agrees with tpm2-pytss.

Agreement goes one way: whatever we accept, the TSS accepts to the last byte and reads as the same values. We
refuse more than it does (trailing bytes, a `safe` that is neither 0 nor 1, keys no TPM has).
"""

from __future__ import annotations

import os

os.environ.setdefault("TSS2_LOG", "all+NONE")  # the TSS would print every refusal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import shared_path
from tests.simulator import RSA_AK, RSA_EK, AkProfile, Clock, SoftwareTpm, marshal
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.attest import NvCertifyAttest, QuoteAttest, parse_attest, parse_quote
from verifier.tcg.credential import parse_id_object
from verifier.tcg.public import parse_public
from verifier.tcg.signature import EcdsaSignature, parse_signature

pytss = pytest.importorskip("tpm2_pytss")

# Milliseconds: far above what 4 KB takes even on a loaded machine, far below what an unbounded loop would.
BOUNDED = settings(deadline=1000, max_examples=300)


def _samples() -> dict[str, list[bytes]]:
    tpms = [SoftwareTpm("property"), SoftwareTpm("property", ak=RSA_AK, ek=RSA_EK), _p384()]
    tpms[0].nv_define_extend(0x01500000)
    tpms[0].nv_extend(0x01500000, b"x")
    quotes = [tpm.quote(bytes(32), {"sha256": range(16), "sha1": [10]}) for tpm in tpms]
    quotes += [tpm.quote(b"n" * 32, {"sha256": range(24)}) for tpm in tpms]
    quotes += [tpms[0].nv_certify(nonce, 0x01500000) for nonce in (b"nonce", bytes(32))]
    return {
        "attest": [attest for attest, _ in quotes],
        "signature": [signature for _, signature in quotes],
        "public": [public for tpm in tpms for public in (tpm.ek_public, tpm.ak_public)],
    }


def _p384() -> SoftwareTpm:
    return SoftwareTpm("property", ak=AkProfile(kind="p384", hash_alg=HashAlg.SHA384))


SAMPLES = _samples()


@st.composite
def mutated(draw, kind: str) -> bytes:
    """A valid structure with a few bytes changed, cut, repeated, or made into a hostile size."""
    data = bytearray(draw(st.sampled_from(SAMPLES[kind])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        edit = draw(st.sampled_from(["set", "size", "cut", "insert", "truncate"]))
        if edit == "set":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif edit == "size":
            data[at : at + 2] = draw(
                st.sampled_from([b"\0\0", b"\xff\xff", b"\0\x01", b"\x7f\xff", b"\0\x40"])
            )
        elif edit == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif edit == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[at:]
    return bytes(data)


def hostile(kind: str) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=4096), mutated(kind))


def parsed(parse, data: bytes):
    """The result, or None for a typed refusal whose offset lies inside what was read."""
    try:
        return parse(data)
    except (MalformedInputError, UnsupportedError) as error:
        refusal = error
    assert refusal.structure
    assert refusal.detail
    assert refusal.offset is not None
    assert 0 <= refusal.offset <= len(data)
    return None


def tss(kind, data: bytes):
    value, consumed = kind.unmarshal(data)
    assert consumed == len(data)
    return value


@BOUNDED
@given(hostile("attest"))
@example(b"")
@example(b"\xffTCG\x80\x18" + b"\xff" * 64)
def test_attest_parses_as_the_tss_does_or_is_refused(data):
    attest = parsed(parse_attest, data)
    quote = parsed(parse_quote, data)
    assert quote == (attest if isinstance(attest, QuoteAttest) else None)
    if attest is not None and len(attest.extra_data) <= 64:  # 66 by the specification, 64 by the TSS's buffer
        _assert_read_as_the_tss_does(attest, data)


@pytest.mark.parametrize(
    "file",
    [
        "automata-network_automata-tpm-attestation/TPMTest_quote0.bin",
        "automata-network_automata-tpm-attestation/TPMTest_quote4.bin",
        "confidential-containers_trustee/az-tdx-vtpm__tpm-quote.msg",
        "confidential-containers_trustee/tpm-quote.msg",
        "keylime_keylime/quote.out",
        "kinvolk_azure-cvm-tooling/quote_msg",
        "nokia_AttestationEngine/m.dAT",
        "nokia_AttestationEngine/q.dat",
        "tpm2-software_tpm2-tools/quote.TPMS_ATTEST",
    ],
)
def test_quotes_of_real_tpms_are_read_as_the_tss_reads_them(file):
    """Outside vectors: the corpus' manifest names repository, commit and licence of each."""
    data = shared_path(f"corpus/{file}").read_bytes()
    _assert_read_as_the_tss_does(parse_quote(data), data)


def _assert_read_as_the_tss_does(attest, data):
    theirs = tss(pytss.TPMS_ATTEST, data)
    assert bytes(theirs.qualifiedSigner) == attest.qualified_signer
    assert bytes(theirs.extraData) == attest.extra_data
    info = theirs.clockInfo
    assert (info.clock, info.resetCount, info.restartCount, bool(info.safe)) == (
        attest.clock.clock,
        attest.clock.reset_count,
        attest.clock.restart_count,
        attest.clock.safe,
    )
    assert theirs.firmwareVersion == attest.firmware_version
    if isinstance(attest, NvCertifyAttest):
        nv = theirs.attested.nv
        assert (bytes(nv.indexName), nv.offset, bytes(nv.nvContents)) == (
            attest.index_name,
            attest.offset,
            attest.contents,
        )
        return
    assert bytes(theirs.attested.quote.pcrDigest) == attest.pcr_digest
    select = theirs.attested.quote.pcrSelect
    assert [(HASH_BY_ID[one.hash], _pcrs(one)) for one in list(select)] == [
        (one.bank, one.pcrs) for one in attest.selections
    ]


def _pcrs(selection) -> tuple[int, ...]:
    size = selection.sizeofSelect
    bits = int.from_bytes(bytes(selection.pcrSelect)[:size], "little")
    return tuple(pcr for pcr in range(8 * size) if bits >> pcr & 1)


@BOUNDED
@given(hostile("signature"))
@example(b"\x00\x14\x00\x0b\xff\xff")
def test_signature_parses_as_the_tss_does_or_is_refused(data):
    signature = parsed(parse_signature, data)
    if signature is None:
        return
    theirs = tss(pytss.TPMT_SIGNATURE, data)
    if isinstance(signature, EcdsaSignature):
        ecdsa = theirs.signature.ecdsa
        numbers = (bytes(ecdsa.signatureR), bytes(ecdsa.signatureS))
        assert tuple(int.from_bytes(number, "big") for number in numbers) == (signature.r, signature.s)
        assert ecdsa.hash == signature.hash_alg.tpm_id
    else:
        assert theirs.sigAlg == signature.scheme.value
        assert bytes(theirs.signature.rsassa.sig) == signature.signature
        assert theirs.signature.rsassa.hash == signature.hash_alg.tpm_id


@BOUNDED
@given(hostile("public"))
@example(b"\xff\xff")
def test_public_parses_as_the_tss_does_or_is_refused(data):
    public = parsed(parse_public, data)
    if public is None:
        return
    theirs = tss(pytss.TPM2B_PUBLIC, data)
    area = theirs.publicArea
    assert (area.type, area.nameAlg, area.objectAttributes) == (
        public.type_alg,
        public.name_alg.tpm_id,
        int(public.attributes),
    )
    assert bytes(area.authPolicy) == public.auth_policy
    if public.name_alg in (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512):
        assert bytes(area.get_name()) == public.name
    if public.rsa:
        assert area.parameters.rsaDetail.keyBits == public.rsa.key_bits
        assert (area.parameters.rsaDetail.exponent or 65537) == public.rsa.exponent
        assert int.from_bytes(bytes(area.unique.rsa), "big") == public.rsa.modulus
        return
    assert area.parameters.eccDetail.curveID == public.ecc.curve.tpm_id
    assert int.from_bytes(bytes(area.unique.ecc.x), "big") == public.ecc.x
    assert int.from_bytes(bytes(area.unique.ecc.y), "big") == public.ecc.y


@BOUNDED
@given(st.binary(max_size=256))
def test_id_object_round_trips_or_is_refused(data):
    credential = parsed(parse_id_object, data)
    if credential is not None:
        assert credential.marshal() == data


@BOUNDED
@given(
    extra=st.binary(max_size=64),
    clock=st.builds(
        Clock,
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        safe=st.booleans(),
    ),
    firmware=st.integers(0, 2**64 - 1),
    selections=st.lists(
        st.tuples(st.sampled_from(HashAlg), st.frozensets(st.integers(0, 23), max_size=24)), max_size=16
    ),
    digest=st.binary(max_size=64),
)
def test_whatever_a_tpm_can_say_in_a_quote_is_read_back(extra, clock, firmware, selections, digest):
    attested = marshal.pcr_selection_list(selections) + marshal.tpm2b(digest)
    data = marshal.attest(
        attested, magic=0xFF544347, kind=0x8018, signer=b"", extra=extra, clock=clock, firmware=firmware
    )
    quote = parse_quote(data)
    assert (quote.extra_data, quote.firmware_version, quote.pcr_digest) == (extra, firmware, digest)
    assert (quote.clock.clock, quote.clock.reset_count, quote.clock.restart_count, quote.clock.safe) == (
        clock.clock,
        clock.reset_count,
        clock.restart_count,
        clock.safe,
    )
    assert [(one.bank, frozenset(one.pcrs)) for one in quote.selections] == selections
