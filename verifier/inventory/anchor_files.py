"""Trust anchors and revocation lists from what vendors hand out: files, folders, zip and cabinet archives.

Reads VMCA's `download.zip` (certs/lin/*.0, certs/win/*.crt, *.r0 and *.crl), Microsoft's TrustedTpm.cab, PEM,
DER and PKCS#7, told apart by content and not by name. Every size is bounded before memory is spent on it.
What an archive says of itself proves nothing: check its origin before you import it (TrustedTpm.cab carries an
Authenticode signature, which is not verified here).
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from asn1crypto import pem
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from verifier.crypto.anchors import MAX_BUNDLE, AnchorCollection, Rejected, TrustAnchors, UnusableAnchor
from verifier.crypto.revocation import MAX_CRL, parse_crl
from verifier.errors import EvidenceError, MalformedInputError
from verifier.inventory import cabinet
from verifier.refusals import REFUSALS

__all__ = ["MAX_ARCHIVE", "MAX_FILES", "AnchorCollection", "Rejected", "read_anchor_bytes", "read_anchors"]

MAX_ARCHIVE: Final = 64 * 1024 * 1024
"""Bytes of an archive, and of all it expands to."""
MAX_FILES: Final = 20_000
_ZIP_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for archives that are damaged, encrypted or packed in a way it does not read."""
_ZIP: Final = b"PK\x03\x04"
_ZIP_ENTRY: Final = b"PK\x01\x02"
_ZIP_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Of others, `zipfile` expands all it has read at once: a kilobyte of bzip2 to gigabytes."""
_PEM: Final = b"-----BEGIN "
_DER_SEQUENCE: Final = 0x30
_CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_CRL_LABEL: Final = "X509 CRL"
_PKCS7_LABEL: Final = "PKCS7"
_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_LOOK_AHEAD: Final = 32


@dataclass(slots=True)
class _Findings:
    certificates: list[tuple[str, bytes]]
    crls: list[bytes]
    rejected: list[Rejected]
    ignored: list[str]


def read_anchors(path: Path, seen: Callable[[str], None] | None = None) -> AnchorCollection:
    """Read trust anchors and revocation lists from a file, an archive or a folder (all levels).

    Args:
        path: what to read.
        seen: told of each file as it is read, for a display of progress.

    Raises:
        OSError: the path cannot be read.
        MalformedInputError: too many files, or an archive that is damaged or expands beyond bounds.
    """
    return _collect(_files(path), seen)


def read_anchor_bytes(name: str, data: bytes) -> AnchorCollection:
    """Read trust anchors and revocation lists from the bytes of one file or archive; see `read_anchors`."""
    if len(data) > MAX_ARCHIVE:
        raise MalformedInputError(name, 0, f"more than {MAX_ARCHIVE} bytes")
    return _collect(_contents(name, data))


def _collect(
    files: Iterable[tuple[str, bytes]], seen: Callable[[str], None] | None = None
) -> AnchorCollection:
    findings = _Findings([], [], [], [])
    for source, data in files:
        if seen is not None:
            seen(source)
        _take(source, data, findings)
    anchors, unusable = TrustAnchors.sift(der for _, der in findings.certificates)
    sources = {UnusableAnchor.digest_of(der): source for source, der in findings.certificates}
    rejected = [Rejected(sources[one.sha256], one.subject, one.problem) for one in unusable]
    return AnchorCollection(
        anchors=anchors,
        crls=tuple(dict.fromkeys(findings.crls)),
        rejected=(*findings.rejected, *rejected),
        ignored=tuple(findings.ignored),
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_dir():
        yield from _contents(path.name, _read_bounded(path))
        return
    count = 0
    for entry in sorted(path.rglob("*")):
        if not entry.is_file():
            continue
        count += 1
        if count > MAX_FILES:
            raise MalformedInputError(str(path), 0, f"more than {MAX_FILES} files")
        yield from _contents(str(entry.relative_to(path)), _read_bounded(entry))


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_ARCHIVE + 1)
    if len(data) > MAX_ARCHIVE:
        raise MalformedInputError(path.name, 0, f"more than {MAX_ARCHIVE} bytes")
    return data


def _contents(source: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if data.startswith(_ZIP):
        yield from _zip_members(source, data)
    elif data.startswith(cabinet.MAGIC):
        for name, content in cabinet.read_members(source, data, MAX_ARCHIVE):
            yield f"{source}/{name}", content
    else:
        yield source, data


def _zip_members(source: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of a zip archive. Sizes are counted as they come out: an archive's own figures may lie."""
    if (
        data.count(_ZIP_ENTRY) > MAX_FILES
    ):  # each becomes an object of hundreds of bytes before it can be counted
        raise MalformedInputError(source, 0, f"more than {MAX_FILES} files")
    left = MAX_ARCHIVE
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                if member.compress_type not in _ZIP_METHODS:
                    detail = f"{member.filename[:200]!r} is packed in a way that is not read; unpack and import the folder"
                    raise MalformedInputError(source, member.header_offset, detail)
                with archive.open(member) as stream:
                    content = stream.read(left + 1)
                left -= len(content)
                if left < 0:
                    detail = f"expands to more than {MAX_ARCHIVE} bytes"
                    raise MalformedInputError(source, member.header_offset, detail)
                yield f"{source}/{member.filename}", content
    except _ZIP_DAMAGE as error:
        raise MalformedInputError(source, 0, f"the archive cannot be read: {error}") from error


def _take(source: str, data: bytes, findings: _Findings) -> None:
    try:
        if _PEM in data[:MAX_BUNDLE]:
            _take_pem(source, data, findings)
        elif data[:1] == bytes([_DER_SEQUENCE]):
            _take_der(source, data, findings)
        else:
            findings.ignored.append(source)
    except (*REFUSALS, EvidenceError) as error:
        findings.rejected.append(Rejected(source, "", str(error)))


def _take_pem(source: str, data: bytes, findings: _Findings) -> None:
    if len(data) > MAX_CRL:
        raise MalformedInputError(source, 0, f"more than {MAX_CRL} bytes of PEM")
    useful = False
    for label, _, der in pem.unarmor(data[data.index(_PEM) :], multiple=True):
        if label in _CERTIFICATE_LABELS:
            findings.certificates.append((source, der))
        elif label == _CRL_LABEL:
            _take_crl(der, findings)
        elif label == _PKCS7_LABEL:
            _take_pkcs7(source, der, findings)
        else:
            continue
        useful = True
    if not useful:
        findings.ignored.append(source)


def _take_der(source: str, data: bytes, findings: _Findings) -> None:
    if _SIGNED_DATA in data[:_LOOK_AHEAD]:
        _take_pkcs7(source, data, findings)
    elif _is_crl(data):
        _take_crl(data, findings)
    else:
        findings.certificates.append((source, data))


def _is_crl(data: bytes) -> bool:
    try:
        parse_crl(data)
    except MalformedInputError:
        return False
    return True


def _take_crl(data: bytes, findings: _Findings) -> None:
    parse_crl(data)
    findings.crls.append(data)


def _take_pkcs7(source: str, data: bytes, findings: _Findings) -> None:
    for certificate in pkcs7.load_der_pkcs7_certificates(data):
        findings.certificates.append((source, certificate.public_bytes(Encoding.DER)))
