"""TPMS_ATTEST: the quick readers of ordinary layouts say what the slow one says, and what was read can be written again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.corpora import captured, corpus
from tests.simulator import RSA_AK, RSA_EK, SoftwareTpm, marshal
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.tcg import attest as subject
from verifier.tcg.pcr import PcrSelection
from verifier.tcg.reader import Reader

RAISES = (MalformedInputError, UnsupportedError)
RUNS = 2000


def seeds() -> Iterator[bytes]:
    tpms = [SoftwareTpm("fuzz"), SoftwareTpm("fuzz", ak=RSA_AK, ek=RSA_EK)]
    for tpm in tpms:
        yield tpm.quote(bytes(32), {"sha256": range(16)})[0]
        yield tpm.quote(b"n" * 20, {"sha256": range(24), "sha1": [10]})[0]
        tpm.nv_define_extend(0x01500000)
        tpm.nv_extend(0x01500000, b"x")
        yield tpm.nv_certify(bytes(32), 0x01500000)[0]
    yield from captured("quote_*.msg")
    yield from corpus("quote-attest")


def target(data: bytes) -> None:
    slow = outcome(subject._parse_any, data)
    assert outcome(subject.parse_attest, data) == slow
    quote = outcome(subject.parse_quote, data)
    assert quote == slow or isinstance(slow, subject.NvCertifyAttest) or "not a quote" in str(quote)
    attest = subject.parse_attest(data)
    assert written(attest, data) == data


def outcome(parse: Callable[[bytes], Any], data: bytes) -> object:
    try:
        return parse(data)
    except EvidenceError as refusal:
        assert refusal.offset is not None
        assert 0 <= refusal.offset <= len(data)
        return type(refusal), refusal.reason, str(refusal)


def written(attest: subject.QuoteAttest | subject.NvCertifyAttest, data: bytes) -> bytes:
    """As Part 2 has it, by the marshalling of the simulator."""
    common = {
        "magic": 0xFF544347, "signer": attest.qualified_signer, "extra": attest.extra_data,
        "clock": attest.clock, "firmware": attest.firmware_version,
    }  # fmt: skip
    if isinstance(attest, subject.NvCertifyAttest):
        content = (
            marshal.tpm2b(attest.index_name) + marshal.u16(attest.offset) + marshal.tpm2b(attest.contents)
        )
        return marshal.attest(content, kind=0x8014, **common)
    sizes = bitmap_sizes(data, attest)
    listed = marshal.u32(len(attest.selections)) + b"".join(
        selection(one, size) for one, size in zip(attest.selections, sizes, strict=True)
    )
    return marshal.attest(listed + marshal.tpm2b(attest.pcr_digest), kind=0x8018, **common)


def selection(one: PcrSelection, size: int) -> bytes:
    return marshal.u16(one.bank.tpm_id) + bytes([size]) + marshal.bitmap(one.pcrs, size)


def bitmap_sizes(data: bytes, attest: subject.QuoteAttest) -> list[int]:
    """Bytes of each bitmap, which is all of a selection that is not kept."""
    reader = Reader(data, "again")
    reader.take(10 + len(attest.qualified_signer) + len(attest.extra_data) + 25 + 4, "head")
    sizes = []
    for _ in attest.selections:
        reader.u16()
        sizes.append(reader.u8())
        reader.take(sizes[-1], "bitmap")
    return sizes
