"""Private keys and certificates as PEM files: what cannot be read is named, with what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, unreadable, write_file
from verifier.refusals import REFUSALS

_CUT: Final = "or only half of one"


def read_key(path: Path) -> PrivateKeyTypes:
    """A private key without a passphrase; raises `VerifierFault`."""
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise unreadable(path, error) from error
    except REFUSALS as error:
        raise VerifierFault(f"{path} is not an unencrypted PEM private key, {_CUT}; {RESTORE}") from error


def read_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key on P-256; raises `VerifierFault`."""
    key = read_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerifierFault(f"{path} is not a P-256 key")
    return key


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """PKCS#8 PEM, for this user alone."""
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file; raises `VerifierFault`."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except REFUSALS as error:
        raise VerifierFault(f"{path} is not a PEM certificate, {_CUT}; {RESTORE}") from error
