"""The CA for AK certificates: a root of its own, and an issuing CA below it that is renewed by itself.

It is apart from the TLS CA: whoever trusts it for attestation keys shall not thereby trust servers, the TLS CA may
have no CA below it (path length 0), and a configured TLS certificate leaves no own CA at all. The root's key is
needed once a year; it may be kept elsewhere between.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from verifier.errors import VerifierFault
from verifier.keys.files import PUBLIC, RESTORE, locked, write_file
from verifier.keys.pem import read_certificate, read_p256, write_key
from verifier.keys.tls import key_usage, look_at_ca_key, read_ca_key
from verifier.keys.watched import tell_made
from verifier.ports_trust import AkCertificateRequest, IssuedCertificate

AK_PURPOSE: Final = x509.ObjectIdentifier("2.23.133.8.3")
"""tcg-kp-AIKCertificate."""
_MANUFACTURER: Final = x509.ObjectIdentifier("2.23.133.2.1")
_MODEL: Final = x509.ObjectIdentifier("2.23.133.2.2")
_VERSION: Final = x509.ObjectIdentifier("2.23.133.2.3")
_ROOT_LIFETIME: Final = timedelta(days=3650)
_ISSUING_LIFETIME: Final = timedelta(days=365)
_RENEW_BEFORE: Final = timedelta(days=60)
_BACKDATE: Final = timedelta(minutes=5)
_LOOK_EVERY: Final = timedelta(minutes=5)
_log: Final = structlog.get_logger("vtpm_attest.keys")


class AkCa:
    """`verifier.ports_trust.AkSigner` over a folder; makes root and issuing CA when there are none.

    Replicas that share the folder (or copies of it) issue under one root.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        self._looked_at = now()
        self._key, self._issuing, self._root = self._open()

    def issue(self, request: AkCertificateRequest) -> IssuedCertificate:
        """A certificate for `request.key`, signed by the issuing CA.

        Proves to who trusts the root: this verifier bound the key to a TPM it had reason to trust, and issued this
        when its settings allowed it. It does not prove the state of the machine: that is in the quotes that the
        key signs, and in verdicts. TCG TPM 2.0 Keys for Device Identity and Attestation, section 8.
        """
        self._refresh()
        not_after = min(request.not_after, self._issuing.not_valid_after_utc)
        serial = x509.random_serial_number()
        issuing_key = self._issuing.public_key()
        if not isinstance(issuing_key, ec.EllipticCurvePublicKey):
            raise VerifierFault(f"{self._directory / 'issuing.pem'} is not a P-256 certificate")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._issuing.subject)
            .public_key(request.key)
            .serial_number(serial)
            .not_valid_before(request.not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([AK_PURPOSE]), critical=False)
            # Critical, because the subject is empty (RFC 5280, section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(_names(request)), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key), critical=False)
            .sign(self._key, SHA256())
        )
        return IssuedCertificate(
            certificate=certificate.public_bytes(Encoding.DER),
            chain=tuple(one.public_bytes(Encoding.DER) for one in (self._issuing, self._root)),
            serial=serial,
            not_after=not_after,
        )

    def authorities(self) -> tuple[bytes, ...]:
        """Issuing CA, the one before it while it lives, root."""
        self._refresh()
        previous = self._directory / "previous.pem"
        issuing = [self._issuing]
        if previous.exists():
            before = read_certificate(previous)
            if before.not_valid_after_utc > self._now():
                issuing.append(before)
        return tuple(one.public_bytes(Encoding.DER) for one in (*issuing, self._root))

    def _refresh(self) -> None:
        """Look every few minutes whether the issuing CA was replaced, or has to be."""
        now = self._now()
        if timedelta(0) <= now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        try:
            self._key, self._issuing, self._root = self._open()
        except VerifierFault as error:
            _log.error("ak-ca.damaged", problem=str(error), effect="the CA that was read before issues on")

    def _open(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate, x509.Certificate]:
        directory, now = self._directory, self._now()
        with locked(directory):
            if not (directory / "root.pem").exists():
                _make_root(directory, now)
            root = read_certificate(directory / "root.pem")
            if not _still_good(directory / "issuing.pem", root, now):
                _make_issuing(directory, root, now)
            issuing = read_certificate(directory / "issuing.pem")
            key = read_ca_key(directory / "issuing.key", issuing)
            look_at_ca_key(directory / "root.key", root)
        return key, issuing, root


def _names(request: AkCertificateRequest) -> list[x509.GeneralName]:
    said = (
        (_MANUFACTURER, request.manufacturer_id),
        (_MODEL, request.model),
        (_VERSION, request.version),
    )
    attributes = [x509.NameAttribute(oid, text) for oid, text in said if text]
    names: list[x509.GeneralName] = [x509.DirectoryName(x509.Name(attributes))] if attributes else []
    return [*names, x509.UniformResourceIdentifier(request.uri)]


def _make_root(directory: Path, now: datetime) -> None:
    """The certificate is written last, so that a root without its key never stands."""
    if (directory / "issuing.pem").exists() or (directory / "issuing.key").exists():
        raise VerifierFault(
            f"{directory / 'root.pem'} is gone, and whoever trusts AK certificates of this verifier knows no other root;"
            f" {RESTORE}, or remove all of {directory}: then they have to be told of a new one"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = _ca_name("vtpm-attest AK root", key)
    certificate = _ca_builder(name, name, key, (now, now + _ROOT_LIFETIME), path_length=1).sign(key, SHA256())
    write_key(directory / "root.key", key)
    write_file(directory / "root.pem", certificate.public_bytes(Encoding.PEM), PUBLIC)
    tell_made(directory)


def _make_issuing(directory: Path, root: x509.Certificate, now: datetime) -> None:
    if not (directory / "root.key").exists():
        raise VerifierFault(
            f"the CA for AK certificates has to be renewed and {directory / 'root.key'} is not there; put it back"
        )
    root_key = read_ca_key(directory / "root.key", root)
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + _ISSUING_LIFETIME, root.not_valid_after_utc)
    certificate = (
        _ca_builder(_ca_name("vtpm-attest AK CA", key), root.subject, key, (now, end), path_length=0)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([AK_PURPOSE]), critical=False)
        .sign(root_key, SHA256())
    )
    current = directory / "issuing.pem"
    if current.exists():
        write_file(directory / "previous.pem", current.read_bytes(), PUBLIC)
    write_key(directory / "issuing.key", key)
    write_file(current, certificate.public_bytes(Encoding.PEM), PUBLIC)


def _ca_name(label: str, key: ec.EllipticCurvePrivateKey) -> x509.Name:
    # The name carries the key's id: two CAs of one name would be told apart by key alone.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:16]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{label} {identifier}")])


def _ca_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0] - _BACKDATE)
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _still_good(path: Path, root: x509.Certificate, now: datetime) -> bool:
    """With its own key: a process that died between writing the two leaves them apart."""
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    certificate = read_certificate(path)
    if read_p256(path.with_suffix(".key")).public_key() != certificate.public_key():
        return False
    return certificate.issuer == root.subject and certificate.not_valid_after_utc - now > _RENEW_BEFORE
