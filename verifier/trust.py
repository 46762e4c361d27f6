"""Trust anchors and revocation lists as files: read once, at start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from verifier.crypto.anchors import TrustAnchors, UnusableAnchor, split_bundle
from verifier.crypto.revocation import parse_crl
from verifier.errors import EvidenceError, VerifierFault

_CRL_NAME: Final = re.compile(r"\.(crl|r[0-9])$", re.IGNORECASE)
_CERTIFICATE_NAME: Final = re.compile(r"\.(pem|crt|cer|der|[0-9])$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trust:
    """What an operator put in the trust folders. `unusable` are certificates that cannot be anchors."""

    anchors: TrustAnchors
    crls: tuple[bytes, ...]
    unusable: tuple[UnusableAnchor, ...]


def load_trust(paths: Iterable[Path]) -> Trust:
    """Read files and folders: certificates as PEM or DER (`.pem .crt .cer .der .0`), CRLs (`.crl .r0`).

    A vCenter's download of its root certificates, unpacked, can be named as it is. A file named here by
    itself is a certificate whatever its name, unless that is a CRL's.

    Raises:
        VerifierFault: a path does not exist or a file cannot be read; trust is never guessed at.
    """
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for path in paths:
        for file in _files(path):
            content = _read(file)
            if _CRL_NAME.search(file.name):
                crls.append(_crl_der(content, file))
            else:
                certificates += _certificates(content, file)
    anchors, unusable = TrustAnchors.sift(certificates)
    return Trust(anchors, tuple(crls), unusable)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = (file for file in sorted(path.rglob("*")) if file.is_file())
        return [file for file in found if _CERTIFICATE_NAME.search(file.name) or _CRL_NAME.search(file.name)]
    return [path]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise VerifierFault(f"cannot read trust anchor {file}: {error.strerror}") from error


def _certificates(content: bytes, file: Path) -> tuple[bytes, ...]:
    try:
        return split_bundle(content)
    except EvidenceError as error:
        raise VerifierFault(f"cannot read trust anchor {file}: {error}") from error


def _crl_der(content: bytes, file: Path) -> bytes:
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            content = x509.load_pem_x509_crl(content).public_bytes(Encoding.DER)
        parse_crl(content)
    except (EvidenceError, ValueError) as error:
        raise VerifierFault(f"cannot read revocation list {file}: {error}") from error
    return content
