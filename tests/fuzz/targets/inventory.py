"""Inventories from files, bundles of `attest-agent collect`, PCR values: files that people name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

from tests import pki
from tests.conftest import ROOT
from tests.fuzz.corpora import as_file, captured, choices, corpus, files
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import ROOT as CA
from verifier.cli.bundle import read_bundle
from verifier.cli.pcr_file import read_pcrs
from verifier.errors import VtpmAttestError
from verifier.inventory.static_files import read_static

RAISES = (VtpmAttestError,)
RUNS = 800
MEMORY = Bound(200, 70 << 20)
"""A file is read into room for the largest one, of which only what it fills is touched."""
CALLS = Bound(200, 50_000)


def bundle(data: bytes) -> None:
    found = read_bundle(as_file(data, "bundle.json"))
    assert isinstance(found.ak_public, bytes)
    assert all(
        isinstance(value, bytes) for values in found.evidence.pcrs.values() for value in values.values()
    )


READERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: read_static("fuzz", as_file(data, "inventory.csv")),
    lambda data: read_static("fuzz", as_file(data, "inventory.json")),
    bundle,
    lambda data: read_pcrs(as_file(data, "pcrs")),
)


def seeds() -> Iterator[bytes]:
    uuid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    rows = (
        "name,smbios_uuid,secure_boot,ek_sha256,label.env\n"
        f'vm-1,{uuid},true,{"ab" * 32},prod\n"vm,2",,false,{":".join(["cd"] * 32)};{"ef" * 32},\n'
    )

    machine = {
        "name": "vm-1", "smbios_uuid": uuid, "secure_boot": True, "ek_sha256": ["ab" * 32],
        "ek_certificate": [base64.b64encode(CA.ek()).decode()], "labels": {"env": "prod"},
    }  # fmt: skip
    pem = {"name": "vm-2", "ek_certificate": [pki.pem("CERTIFICATE", CA.ek()).decode()]}
    bundles = list(files(ROOT / "tests/vectors/userspace", "systemd-262.json"))
    minimal = {
        "format": "vtpm-attest/bundle/1", "nonce": "00" * 32, "ak_public": "AAAA", "quote": {"attest": "AAAA", "signature": "AAAA"},
        "pcrs": {"sha256": {"0": "00" * 32}}, "identity": {"smbios_uuid": uuid}, "boot_log": "AAAA", "nvpcrs": [],
    }  # fmt: skip
    printed = b"  sha256:\n    0 : 0x" + b"AB" * 32 + b"\n    1 : 0x" + b"00" * 32 + b"\n  sha1:\n"
    yield from choices(
        {
            0: [rows.encode(), b"\xef\xbb\xbf" + rows.encode()],
            1: [
                json.dumps({"machines": [machine, pem]}).encode(),
                json.dumps([machine]).encode(),
                b"[" * 3000,
            ],
            2: [json.dumps(minimal).encode(), *bundles],
            3: [
                printed,
                *list(captured("pcrs.json"))[:1],
                *list(corpus("pcrs", longest=4_000))[:4],
                b"{" + b'"a":{' * 3000,
            ],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
