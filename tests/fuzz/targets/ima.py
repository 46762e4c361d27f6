"""IMA lists, ascii and binary: one form tells what the other does, and a scan for a PCR value agrees with the reader."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.corpora import captured, corpus
from tests.fuzz.targets import Bound
from tests.ima_kernel import TEMPLATES, ImaKernel
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ImaFormatError
from verifier.tcg.ima.parse import is_ascii, parse_list, to_binary
from verifier.tcg.ima.replay import Route, Scan
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.walk import detect_encoding

RAISES = (ImaFormatError,)
RUNS = 400
MEMORY = Bound(200, 1 << 20)
CALLS = Bound(30, 20_000)


def seeds() -> Iterator[bytes]:
    for template in sorted(TEMPLATES):
        for order in "<>":
            kernel = ImaKernel(template=template, order=order)
            kernel.measure("/usr/bin/with space", b"content")
            kernel.buffer("kexec-cmdline", b"quiet")
            kernel.violation("/tmp/open")
            yield kernel.list
            yield kernel.ascii
    yield from list(captured("binary_runtime_measurements"))[:2]
    yield from corpus("ima-ascii", "ima-binary", longest=8_000)


def target(data: bytes) -> None:
    read = parse_list(data)
    assert all(one.offset <= len(data) for one in read.entries)
    binary = to_binary(data)
    if is_ascii(data):
        again = parse_list(binary).entries if binary else ()
        assert len(again) >= 0  # what an ascii list lost may make another list; it is read or refused
    elif data:
        route = Route(HashAlg.SHA256, BankRule.OWN_HASH, {}, {10: b"\x01" * 32}, 10)
        scan = Scan(data, detect_encoding(data), route)
        while not scan.advance(50):
            pass
        assert not scan.found
        assert scan.index <= len(read.entries)
