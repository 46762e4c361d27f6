"""A CA and a server certificate for an address of this machine, as files."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """`ca` is what a client trusts; `chain` and `key` are the server's; `thumbprint` its certificate's SHA-256."""

    ca: Path
    chain: Path
    key: Path
    thumbprint: bytes


def make_tls(folder: Path, *, address: str = "127.0.0.1") -> TlsFiles:
    """A root, a subordinate CA and a certificate for `address`; each call has keys of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, sub_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _certificate("Test root", root_key.public_key(), "Test root", root_key, ca=True)
    sub = _certificate("Test VMCA", sub_key.public_key(), "Test root", root_key, ca=True)
    san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    leaf = _certificate("vcenter", key.public_key(), "Test VMCA", sub_key, ca=False, san=san)
    thumbprint = x509.load_pem_x509_certificate(leaf).fingerprint(hashes.SHA256())
    files = TlsFiles(folder / "ca.pem", folder / "chain.pem", folder / "key.pem", thumbprint)
    files.ca.write_bytes(root)
    (folder / "subordinate.pem").write_bytes(sub)
    files.chain.write_bytes(leaf + sub)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _certificate(subject, public, issuer, signer, *, ca: bool, san=None) -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if san is not None:
        builder = builder.add_extension(san, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
