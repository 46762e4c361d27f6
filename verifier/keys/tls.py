"""The service's own CA and server certificate, for estates that bring none.

Agents pin the CA by the fingerprint in their join token, so the CA is made once and kept for ten years; the
server certificate is short-lived and renewed from it without anyone noticing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from verifier.errors import VerifierFault
from verifier.keys.files import PUBLIC, RESTORE, locked, write_file
from verifier.keys.pem import read_certificate, read_key, read_p256, write_key
from verifier.keys.watched import tell_made
from verifier.refusals import REFUSALS

_CA_LIFETIME: Final = timedelta(days=3650)
_SERVER_LIFETIME: Final = timedelta(days=90)
_RENEW_BEFORE: Final = timedelta(days=30)
_log: Final = structlog.get_logger("vtpm_attest.keys")
_BACKDATE: Final = timedelta(minutes=5)  # guests whose clock is a little behind must be able to connect


@dataclass(frozen=True, slots=True)
class ClientAnchors:
    """Whose client certificates are taken. `crl`: with it, a leaf whose issuer has no current list there is refused."""

    ca: Path
    crl: Path | None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Ask for certificates of these CAs. Raises `VerifierFault` when the files cannot be used."""
        context.verify_mode = ssl.CERT_OPTIONAL
        for path in (self.ca, self.crl):
            try:
                if path is not None:
                    context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                raise VerifierFault(
                    f"cannot use client_certificates file {path}: {error}; mend it, or {RESTORE}"
                ) from error
        if self.crl is not None:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the listener loads, and what agents pin (None: they use their system's roots)."""

    certificate: Path
    key: Path
    ca: Path | None

    def context(self, clients: ClientAnchors | None = None) -> ssl.SSLContext:
        """TLS 1.2 or later, ECDHE with AEAD only; `clients`: certificates of theirs are asked for, and need not be sent.

        Raises:
            VerifierFault: the files do not fit, or cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            # Without the empty passphrase OpenSSL asks the terminal for one, and waits.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise VerifierFault(self._problem(error)) from error
        if clients is not None:
            clients.load_into(context)
        return context

    def _problem(self, error: Exception) -> str:
        """Which of the two files it is: OpenSSL does not say."""
        try:
            certificate, key = read_certificate(self.certificate), read_key(self.key)
        except VerifierFault as fault:
            return str(fault)
        if key.public_key() != certificate.public_key():
            return f"the key {self.key} does not belong to {self.certificate}; put the two there that were made together"
        return f"cannot use TLS certificate {self.certificate}: {error}; {RESTORE}"

    def ca_der(self) -> bytes | None:
        """The CA certificate agents pin, as DER."""
        if self.ca is None:
            return None
        return read_certificate(self.ca).public_bytes(Encoding.DER)

    def ca_fingerprint(self) -> bytes | None:
        """SHA-256 of the CA certificate's DER."""
        der = self.ca_der()
        return None if der is None else hashlib.sha256(der).digest()


def own_tls(directory: Path, names: Iterable[str], now: datetime) -> TlsFiles:
    """The own CA and a server certificate for `names`, made or renewed where needed.

    The certificate is renewed when it is within 30 days of its end, when a name is missing in it, or when
    another CA signed it.

    Raises:
        VerifierFault: a file is damaged, or the CA is gone that agents pinned. Nothing was changed.
    """
    files = TlsFiles(
        certificate=directory / "server.pem", key=directory / "server.key", ca=directory / "ca.pem"
    )
    wanted = tuple(dict.fromkeys(names))
    with locked(directory):
        if not (directory / "ca.pem").exists():
            _make_ca(files, directory, now)
        ca = read_certificate(directory / "ca.pem")
        if not _still_good(files.certificate, ca, wanted, now):
            _issue(directory, ca, wanted, now)
        look_at_ca_key(directory / "ca.key", ca)
    return files


def _make_ca(files: TlsFiles, directory: Path, now: datetime) -> None:
    """Unless something is there that one of before has signed."""
    if files.certificate.exists() or files.key.exists():
        raise VerifierFault(
            f"{directory / 'ca.pem'} is gone, and agents trust no other; {RESTORE} (the second certificate of"
            f" {files.certificate.name} is the same), or remove all of {directory}: then every agent has to be told of a new CA"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The name carries the key's id: two verifiers' CAs never share a name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"vtpm-attest CA {ski.digest.hex()[:16]}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(ski, critical=False)
        .sign(key, SHA256())
    )
    write_key(directory / "ca.key", key)
    write_file(directory / "ca.pem", certificate.public_bytes(Encoding.PEM), PUBLIC)
    tell_made(directory)


def _issue(directory: Path, ca: x509.Certificate, names: tuple[str, ...], now: datetime) -> None:
    ca_key = read_ca_key(directory / "ca.key", ca)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vtpm-attest verifier")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + _SERVER_LIFETIME, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, SHA256())
    )
    write_key(directory / "server.key", key)
    chain = certificate.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)
    write_file(directory / "server.pem", chain, PUBLIC)


def _still_good(path: Path, ca: x509.Certificate, names: tuple[str, ...], now: datetime) -> bool:
    """With its own key: a process that died between writing the two leaves them apart."""
    key = path.with_suffix(".key")
    if not path.exists() or not key.exists():
        return False
    certificate = read_certificate(path)
    try:
        if read_key(key).public_key() != certificate.public_key():
            return False
        if certificate.issuer != ca.subject or certificate.not_valid_after_utc - now < _RENEW_BEFORE:
            return False
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (*REFUSALS, x509.ExtensionNotFound) as error:
        raise VerifierFault(f"{path} is damaged: {error}; {RESTORE}, or remove it") from error
    return {_general_name(name) for name in names} <= set(extension.value)


def read_ca_key(path: Path, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """The key of a CA of ours; raises `VerifierFault`."""
    key = read_p256(path)
    if key.public_key() != ca.public_key():
        raise VerifierFault(f"{path} does not belong to the certificate beside it; {RESTORE}")
    return key


def look_at_ca_key(path: Path, ca: x509.Certificate) -> None:
    """Tell when it is damaged, long before it is needed. It need not be there: it may be kept elsewhere until then."""
    if not path.exists():
        return
    try:
        read_ca_key(path, ca)
    except VerifierFault as error:
        _log.error(
            "keys.ca-unusable",
            problem=str(error),
            effect="what it signed is good until its end, and not renewed",
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Of a CA: certificates and revocation lists; else signatures."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
