import pytest

from tests.simulator import marshal
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.signature import EcdsaSignature, RsaScheme, RsaSignature, _parse_any, parse_signature


def test_rsa_signatures_of_both_schemes():
    for scheme in RsaScheme:
        for size in (256, 384, 512):
            data = marshal.u16(scheme.value) + marshal.u16(0x000C) + marshal.tpm2b(b"s" * size)
            assert parse_signature(data) == RsaSignature(scheme, HashAlg.SHA384, b"s" * size)


def test_ecdsa_numbers_are_big_endian_and_may_be_short_or_padded():
    data = (
        marshal.u16(0x0018)
        + marshal.u16(0x000B)
        + marshal.tpm2b(b"\x01\x02")
        + marshal.tpm2b(bytes(31) + b"\x03")
    )
    assert parse_signature(data) == EcdsaSignature(HashAlg.SHA256, 0x0102, 3)


@pytest.mark.parametrize("scheme", [0x0018, 0x0014])
def test_the_fast_paths_read_what_the_reader_reads_and_leave_every_fault_to_it(scheme):
    numbers = marshal.tpm2b(b"r" * 32) + marshal.tpm2b(b"s" * 32)
    body = numbers if scheme == 0x0018 else marshal.tpm2b(b"s" * 256)
    data = marshal.u16(scheme) + marshal.u16(0x000B) + body
    assert parse_signature(data) == _parse_any(data)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        assert outcome(parse_signature, changed) == outcome(_parse_any, changed)


def outcome(parse, data):
    try:
        return parse(data)
    except EvidenceError as error:
        return str(error)


@pytest.mark.parametrize("algorithm", [0x0005, 0x0010, 0x001A, 0x001B, 0x0000])
def test_other_algorithms_are_unsupported_not_ignored(algorithm):
    with pytest.raises(UnsupportedError, match=f"0x{algorithm:04x}") as caught:
        parse_signature(marshal.u16(algorithm) + marshal.u16(0x000B) + marshal.tpm2b(b""))
    assert (caught.value.structure, caught.value.offset) == ("TPMT_SIGNATURE", 0)


def test_an_unknown_hash_is_unsupported():
    with pytest.raises(UnsupportedError, match="0x00ff") as caught:
        parse_signature(marshal.u16(0x0014) + marshal.u16(0x00FF) + marshal.tpm2b(b""))
    assert caught.value.offset == 2


@pytest.mark.parametrize(
    ("data", "error", "offset"),
    [
        (b"", "sigAlg needs 2 bytes", 0),
        (b"\x00\x14\x00\x0b\x02\x01" + bytes(513), "sig is 513 bytes", 4),
        (b"\x00\x14\x00\x0b\x00\x10" + bytes(15), "sig claims 16 bytes, 15 are left", 4),
        (b"\x00\x14\x00\x0b\x00\x01\x00\x00", "1 bytes follow", 7),
        (b"\x00\x14\x00\x0b\x00\xff" + bytes(256), "1 bytes follow", 261),
        (b"\x00\x14\x00\x0b\x01\x01" + bytes(256), "sig claims 257 bytes, 256 are left", 4),
        (b"\x00\x18\x00\x0b\x00\x43" + bytes(67), "signatureR is 67 bytes", 4),
        (b"\x00\x18\x00\x0b\x00\x01\x01", "size of signatureS needs 2 bytes", 7),
        (b"\x00\x18\x00\x0b\x00\x01\x01\x00\x01\x01\xff", "1 bytes follow", 10),
    ],
)
def test_lying_sizes_and_trailing_bytes(data, error, offset):
    with pytest.raises(MalformedInputError, match=error) as caught:
        parse_signature(data)
    assert caught.value.offset == offset
