"""A certificate authority that endorses simulated TPMs the way vTPM makers do."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.simulator.keys import private_key

NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NOT_AFTER = dt.datetime(2050, 1, 1, tzinfo=dt.UTC)
EK_CERTIFICATE_EKU = x509.ObjectIdentifier("2.23.133.8.1")
AK_CERTIFICATE_EKU = x509.ObjectIdentifier("2.23.133.8.3")
TPM_MANUFACTURER = x509.ObjectIdentifier("2.23.133.2.1")
TPM_MODEL = x509.ObjectIdentifier("2.23.133.2.2")
TPM_VERSION = x509.ObjectIdentifier("2.23.133.2.3")
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key_usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in _KEY_USAGES})


def tpm_name(manufacturer: str, model: str, version: str) -> x509.Name:
    """The directoryName of TPM certificates: one attribute per RDN."""
    pairs = ((TPM_MANUFACTURER, manufacturer), (TPM_MODEL, model), (TPM_VERSION, version))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in pairs])


class SoftwareCa:
    """A root, and an intermediate where asked for.

    Args:
        seed: which keys; two CAs of one `name` and different seeds are the rebuilt VMCA of the field.
        name: common name of the root.
        intermediate: issue from an intermediate below the root.
        not_before, not_after: validity of the CA certificates.
        path_length: of the root.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        name: str = "Simulated vTPM Root",
        intermediate: bool = False,
        not_before: dt.datetime = NOT_BEFORE,
        not_after: dt.datetime = NOT_AFTER,
        path_length: int | None = None,
    ) -> None:
        self._root_key = private_key("p256", f"ca {seed} root")
        validity = (not_before, not_after)
        self.root = self._ca_certificate(name, self._root_key, None, validity, path_length)
        self._issuer, self._issuer_key = self.root, self._root_key
        if intermediate:
            self._issuer_key = private_key("p256", f"ca {seed} intermediate")
            self._issuer = self._ca_certificate(
                f"{name} Intermediate", self._issuer_key, self.root, validity, 0
            )

    @property
    def anchors_der(self) -> tuple[bytes, ...]:
        """What a verifier is told to trust."""
        return (self.root.public_bytes(Encoding.DER),)

    @property
    def intermediates_der(self) -> tuple[bytes, ...]:
        """What comes beside an EK certificate."""
        return () if self._issuer is self.root else (self._issuer.public_bytes(Encoding.DER),)

    def issue(
        self,
        key,
        *,
        manufacturer: str = "id:564D5700",
        model: str = "VMware TPM2",
        version: str = "id:00020065",
        subject: x509.Name | None = None,
        san: bool = True,
        eku: bool = True,
        usage: x509.KeyUsage | None = None,
        is_ca: bool = False,
        not_before: dt.datetime = NOT_BEFORE,
        not_after: dt.datetime = NOT_AFTER,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """An EK certificate of `key` (public), DER. The SAN is critical when the subject is empty."""
        subject = x509.Name([]) if subject is None else subject
        usage = usage or key_usage(
            "key_encipherment" if isinstance(key, rsa.RSAPublicKey) else "key_agreement"
        )
        builder = self._builder(subject, key, self._issuer.subject, (not_before, not_after))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True).add_extension(self._key_id(), critical=False)
        if san:
            name = x509.DirectoryName(tpm_name(manufacturer, model, version))
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=not list(subject))
        if eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage([EK_CERTIFICATE_EKU]), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return self._sign(builder, self._issuer_key)

    def issue_ak(self, key, **changes) -> bytes:
        """A certificate for an AK as clouds issue them (tcg-kp-AIKCertificate, no SAN), DER."""
        return self.issue(
            key,
            eku=False,
            usage=key_usage("digital_signature"),
            extensions=[(x509.ExtendedKeyUsage([AK_CERTIFICATE_EKU]), False)],
            san=False,
            subject=x509.Name.from_rfc4514_string("CN=vm-1"),
            **changes,
        )

    def crl(
        self, *certificates: bytes, at: dt.datetime = NOT_BEFORE, until: dt.datetime = NOT_AFTER
    ) -> bytes:
        """A CRL of the issuing CA that revokes these certificates (DER)."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._issuer.subject)
        builder = builder.last_update(at).next_update(until).add_extension(self._key_id(), critical=False)
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        for certificate in certificates:
            serial = x509.load_der_x509_certificate(certificate).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(revoked)
        return self._sign(builder, self._issuer_key)

    def _key_id(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuer_key.public_key())

    def _ca_certificate(self, name, key, issuer, validity, path_length) -> x509.Certificate:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = self._builder(subject, key.public_key(), issuer.subject if issuer else subject, validity)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key()),
                critical=False,
            )
        )
        return x509.load_der_x509_certificate(self._sign(builder, self._root_key))

    @staticmethod
    def _builder(subject, key, issuer, validity) -> x509.CertificateBuilder:
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        serial = int.from_bytes(hashlib.sha256(spki + issuer.public_bytes()).digest()[:16], "big") | 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(validity[0])
            .not_valid_after(validity[1])
        )

    @staticmethod
    def _sign(builder, key) -> bytes:
        return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)
