"""Fields of IMA entries that have a form of their own: signatures of files, keys, tables of the device mapper."""

from __future__ import annotations

from collections.abc import Iterator

from tests import pki
from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import ROOT
from verifier.crypto.file_signature import key_of_certificate
from verifier.errors import MalformedInputError
from verifier.tcg.ima.device_mapper import parse_targets
from verifier.tcg.ima.signature import parse_file_signature

RAISES = (
    MalformedInputError,
    ValueError,
)  # ValueError: `parse_targets` says so; its one caller turns it into a finding
RUNS = 1000
MEMORY = Bound(300, 2 << 20)


def seeds() -> Iterator[bytes]:
    signature = b"\x03\x02\x04" + b"\x01\x02\x03\x04" + b"\x00\x08" + b"s" * 8
    extension = pki.basic_constraints(ca=False)
    certificates = [ROOT.der, ROOT.ek(extensions=(extension, extension))]
    table = (
        b"dm_version=4.45.0;name=vroot,uuid=CRYPT-VERITY-1,major=253,minor=0,minor_count=1,num_targets=1;"
        b"target_index=0,target_begin=0,target_len=1024,target_name=verity,target_version=1.8.0,hash_failed=V,"
        b"verity_version=1,data_device_name=254:1,root_digest=00,salt=-,ignore_zero_blocks=n;"
    )
    yield from choices(
        {
            0: [signature, b"\x06\x03" + signature[2:]],
            1: [table, table.replace(b"vroot", b"a\\;b\\,c")],
            2: certificates,
        }
    )


def target(data: bytes) -> None:
    if data[:1] == b"\x01":
        assert all(one.name == one.attributes["target_name"] for one in parse_targets(data[1:]))
    elif data[:1] == b"\x02":
        key_of_certificate(data[1:])
    else:
        try:
            signature = parse_file_signature(data[1:])
        except ValueError as error:
            raise AssertionError("the reader of signatures names no ValueError") from error
        signature.signed(bytes(32))
