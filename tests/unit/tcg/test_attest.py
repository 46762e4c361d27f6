import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulator import Clock, SoftwareTpm, Tamper, marshal
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.attest import ClockInfo, NvCertifyAttest, _parse_any, parse_attest, parse_quote
from verifier.tcg.pcr import PcrSelection, quoted_digest
from verifier.tcg.signature import parse_signature

EVIDENCE = Path(__file__).parents[3] / "policies" / "evidence"
CAPTURES = sorted(path.parent for path in EVIDENCE.glob("*/quote_rsa.msg"))
NONCE = bytes(range(32))
CLOCK = Clock(0x1122334455667788, 0x01020304, 0x0A0B0C0D, safe=True)


def build(
    *, kind=0x8018, attested=None, signer=b"\x00\x0b" + b"s" * 32, extra=NONCE, clock=CLOCK, magic=0xFF544347
):
    if attested is None:
        attested = marshal.pcr_selection_list({"sha256": range(16)}) + marshal.tpm2b(b"d" * 32)
    return marshal.attest(
        attested, magic=magic, kind=kind, signer=signer, extra=extra, clock=clock, firmware=0x8000000000000001
    )


def test_every_field_of_a_quote_is_read():
    quote = parse_quote(build())
    assert quote.qualified_signer == b"\x00\x0b" + b"s" * 32
    assert quote.extra_data == NONCE
    assert quote.clock == ClockInfo(0x1122334455667788, 0x01020304, 0x0A0B0C0D, safe=True)
    assert quote.firmware_version == 0x8000000000000001
    assert quote.selections == (PcrSelection(HashAlg.SHA256, tuple(range(16))),)
    assert quote.pcr_digest == b"d" * 32


@pytest.mark.parametrize("extra", [b"", b"n" * 20, b"n" * 32, b"n" * 64])
@pytest.mark.parametrize("banks", [{"sha256": [0]}, {"sha1": [1], "sha384": [0, 23]}, {}])
def test_the_fast_path_and_the_reader_agree_on_every_layout(extra, banks):
    data = build(extra=extra, attested=marshal.pcr_selection_list(banks) + marshal.tpm2b(b"d" * 32))
    assert parse_quote(data) == parse_attest(data)


def test_the_fast_path_of_certified_indices_reads_what_the_reader_reads_and_leaves_every_fault_to_it():
    attested = marshal.tpm2b(b"\x00\x0b" + b"N" * 32) + marshal.u16(7) + marshal.tpm2b(b"c" * 32)
    data = build(kind=0x8014, attested=attested)
    assert parse_attest(data) == NvCertifyAttest(
        b"\x00\x0b" + b"s" * 32,
        NONCE,
        ClockInfo(0x1122334455667788, 0x01020304, 0x0A0B0C0D, safe=True),
        0x8000000000000001,
        b"\x00\x0b" + b"N" * 32,
        7,
        b"c" * 32,
    )
    for at, bits in itertools.product(range(len(data)), (0x41, 0x03)):
        changed = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
        assert outcome(parse_attest, changed) == outcome(_parse_any, changed)


def outcome(parse, data):
    try:
        return parse(data)
    except EvidenceError as error:
        return str(error)


def test_an_unsafe_clock_is_read_as_such():
    assert parse_quote(build(clock=replace(CLOCK, safe=False))).clock.safe is False


def test_nv_certification_is_read_and_is_no_quote():
    attested = marshal.tpm2b(b"\x00\x0bN") + marshal.u16(7) + marshal.tpm2b(b"contents")
    data = build(kind=0x8014, attested=attested)
    attest = parse_attest(data)
    assert isinstance(attest, NvCertifyAttest)
    assert (attest.index_name, attest.offset, attest.contents) == (b"\x00\x0bN", 7, b"contents")
    assert (attest.extra_data, attest.clock.reset_count) == (NONCE, 0x01020304)
    with pytest.raises(MalformedInputError, match="not a quote") as caught:
        parse_quote(data)
    assert caught.value.reason is Reason.QUOTE_TYPE


@pytest.mark.parametrize("parse", [parse_quote, parse_attest])
def test_another_magic_means_a_tpm_did_not_make_it(parse):
    with pytest.raises(MalformedInputError, match="magic 0xff544348") as caught:
        parse(build(magic=0xFF544348))
    assert (caught.value.reason, caught.value.offset) == (Reason.QUOTE_MAGIC, 0)


@pytest.mark.parametrize("parse", [parse_quote, parse_attest])
@pytest.mark.parametrize("kind", [0x8017, 0x8019, 0x801A, 0x0000, 0xFFFF])
def test_another_type_is_refused_by_name(parse, kind):
    with pytest.raises(MalformedInputError, match=f"0x{kind:04x}") as caught:
        parse(build(kind=kind))
    assert (caught.value.reason, caught.value.offset) == (Reason.QUOTE_TYPE, 4)


@pytest.mark.parametrize(
    ("offset", "change", "error", "at"),
    [
        (6, b"\x00\x43", "qualifiedSigner is 67 bytes", 6),
        (6, b"\x00\x21", "extraData claims|extraData is", 41),
        (42, b"\x00\x43", "extraData is 67 bytes", 42),
        (92, b"\x02", "safe is 2", 92),
        (101, b"\xff\xff\xff\xff", "4294967295 PCR selections", 101),
        (101, b"\x00\x00\x00\x02", "PCR bank|PCR selections|sizeofSelect|0x0020", 111),
        (107, b"\x04", "pcrDigest is 8292 bytes", 112),
        (107, b"\x08", "sizeofSelect 8", 107),
        (107, b"\x02", "33 bytes follow the end", 112),
        (101, b"\x00\x00\x00\x00", "27 bytes follow the end", 118),
        (111, b"\x00\x1f", "1 bytes follow the end", 144),
        (111, b"\x00\x21", "pcrDigest claims 33 bytes, 32 are left", 111),
    ],
)
def test_a_lying_field_is_reported_at_its_offset(offset, change, error, at):
    data = bytearray(build())
    data[offset : offset + len(change)] = change
    with pytest.raises(EvidenceError, match=error) as caught:
        parse_quote(bytes(data))
    assert caught.value.offset == at
    assert caught.value.structure == "TPMS_ATTEST"


def test_an_unknown_bank_is_unsupported_at_its_offset():
    data = bytearray(build())
    data[105:107] = b"\x77\x77"
    with pytest.raises(UnsupportedError, match="0x7777") as caught:
        parse_quote(bytes(data))
    assert caught.value.offset == 105


def test_every_truncation_and_any_trailing_byte_is_refused():
    data = build()
    for size in range(len(data)):
        with pytest.raises(MalformedInputError):
            parse_quote(data[:size])
    with pytest.raises(MalformedInputError, match="1 bytes follow"):
        parse_quote(data + b"\0")


def test_bytes_after_an_nv_certification_are_refused():
    attested = marshal.tpm2b(b"") + marshal.u16(0) + marshal.tpm2b(b"contents") + b"!"
    with pytest.raises(MalformedInputError, match="1 bytes follow"):
        parse_attest(build(kind=0x8014, attested=attested))


def test_nv_contents_larger_than_any_tpm_buffer_are_refused():
    attested = marshal.tpm2b(b"") + marshal.u16(0) + marshal.tpm2b(bytes(2049))
    with pytest.raises(MalformedInputError, match="nvContents is 2049 bytes"):
        parse_attest(build(kind=0x8014, attested=attested))


def test_a_simulated_forger_is_recognised_by_the_parser():
    tpm = SoftwareTpm("attest")
    attest, _ = tpm.quote(NONCE, {"sha256": [0]}, tamper=Tamper(magic=0x00544347))
    with pytest.raises(MalformedInputError) as caught:
        parse_quote(attest)
    assert caught.value.reason is Reason.QUOTE_MAGIC


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_captured_quotes_cover_the_pcr_values_captured_beside_them(capture, kind):
    """Self-made vectors: QEMU with OVMF and swtpm; origin and exceptions in the evidence's README."""
    quote = parse_quote((capture / f"quote_{kind}.msg").read_bytes())
    signature = parse_signature((capture / f"quote_{kind}.sig").read_bytes())
    values = {
        HASH_BY_LABEL[bank]: {int(pcr): bytes.fromhex(value) for pcr, value in pcrs.items()}
        for bank, pcrs in json.loads((capture / "pcrs.json").read_text()).items()
        if bank in HASH_BY_LABEL
    }
    assert quote.extra_data.hex() == json.loads((capture / "meta.json").read_text())["nonce"]
    assert quote.selections == (PcrSelection(HashAlg.SHA256, tuple(range(16))),)
    assert quoted_digest(signature.hash_alg, quote.selections, values) == quote.pcr_digest
