"""A CA for TLS client certificates that name attesters, as an operator of services would run one."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://verifier.test"


def uri_of(attester_id: str) -> str:
    return f"{ISSUER}/v1/attesters/{attester_id}"


@dataclass
class ClientCa:
    """Issues client certificates into a folder."""

    directory: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    lifetime: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        built = self._builder(self.key, "machines' CA").add_extension(constraints, critical=True)
        self.certificate = built.sign(self.key, SHA256())
        self.path = self.directory / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *uris: str) -> tuple[Path, Path]:
        """Certificate and key, as PEM files."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(key, name).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=False)
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private

    def revoke(self, lifetime: timedelta) -> Path:
        """A list of nobody, good for so long."""
        now = datetime.now(UTC)
        built = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + lifetime)
            .sign(self.key, SHA256())
        )
        path = self.directory / "crl.pem"
        path.write_bytes(built.public_bytes(Encoding.PEM))
        return path

    def _builder(self, key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "machines' CA")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + self.lifetime)
        )


def client_context(ca: Path, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A TLS client that trusts `ca` and, if it has one, shows a certificate."""
    context = ssl.create_default_context(cafile=ca)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context
