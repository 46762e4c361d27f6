"""Files of trust anchors: certificates, lists, PEM, PKCS#7, zip and cabinet archives; and what issuers' addresses answer."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

from cabarchive import CabArchive, CabFile
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests import pki
from tests.fuzz.corpora import CORPUS, files
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import ROOT, SUB
from verifier.crypto.aia import read_issuers
from verifier.crypto.anchors import TrustAnchors
from verifier.errors import EvidenceError, MalformedInputError
from verifier.inventory.anchor_files import read_anchor_bytes

RAISES = (MalformedInputError,)
RUNS = 250
MEMORY = Bound(600, 4 << 20)
CALLS = Bound(400, 100_000)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def cabinet(members: dict[str, bytes], *, compress: bool = True) -> bytes:
    archive = CabArchive()
    for name, data in members.items():
        archive[name] = CabFile(data)
    return archive.save(compress=compress)


def seeds() -> Iterator[bytes]:
    members = {"certs/lin/a.0": ROOT.der, "certs/win/b.crl": pki.crl(ROOT, [7]), "README": b"nothing"}
    pem = (
        pki.pem("CERTIFICATE", ROOT.der)
        + pki.pem("X509 CRL", pki.crl(ROOT))
        + pki.pem("CERTIFICATE", SUB.der)
    )
    bundle = pkcs7.serialize_certificates([x509.load_der_x509_certificate(SUB.der)], Encoding.DER)
    yield from (ROOT.der, pki.crl(ROOT), pem, bundle, pki.pem("PKCS7", bundle))
    yield from (zipped(members), zipped(members, zipfile.ZIP_STORED))
    yield from (cabinet(members), cabinet(members, compress=False))
    block = struct.pack("<IHH", 0, 4, 8) + b"CK" + zlib.compress(b"x" * 8)[2:-4]
    yield cabinet({"a": b"x"}).replace(b"x", block)
    yield from list(files(CORPUS / "tpm-ca-store", "*", longest=8_000))[:6]


def target(data: bytes) -> None:
    for der in read_issuers(data):
        assert isinstance(der, bytes)
    with contextlib.suppress(EvidenceError):
        TrustAnchors.from_bundle(data)
    found = read_anchor_bytes("fuzz", data)
    assert len(found.anchors) + len(found.rejected) + len(found.ignored) + len(found.crls) >= 0
