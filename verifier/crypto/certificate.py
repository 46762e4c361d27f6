"""One certificate model for both readers, so that there is one validator and not two.

A `Certificate` is parsed and nothing more: no signature, date or purpose was looked at. See `paths` for what
makes it trusted.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.crypto.keys import PublicKey
from verifier.crypto.names import canonical_name, display_name
from verifier.tcg.algorithms import HashAlg

OID_SUBJECT_DIRECTORY_ATTRIBUTES: Final = "2.5.29.9"
OID_SUBJECT_KEY_ID: Final = "2.5.29.14"
OID_KEY_USAGE: Final = "2.5.29.15"
OID_SUBJECT_ALT_NAME: Final = "2.5.29.17"
OID_BASIC_CONSTRAINTS: Final = "2.5.29.19"
OID_CERTIFICATE_POLICIES: Final = "2.5.29.32"
OID_AUTHORITY_KEY_ID: Final = "2.5.29.35"
OID_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
OID_ANY_EXTENDED_KEY_USAGE: Final = "2.5.29.37.0"

UNDERSTOOD: Final = frozenset(
    {
        OID_KEY_USAGE,
        OID_SUBJECT_ALT_NAME,
        OID_BASIC_CONSTRAINTS,
        # Paths are validated for any policy and policyConstraints is refused, so that RFC 5280, section
        # 6.1.5 (g) always holds: understood means that there is nothing left to enforce.
        OID_CERTIFICATE_POLICIES,
        OID_EXTENDED_KEY_USAGE,
    }
)
"""Extensions that may be critical."""

CONSTRAINTS: Final = frozenset({"2.5.29.30", "2.5.29.36", "2.5.29.54"})
"""nameConstraints, policyConstraints, inhibitAnyPolicy: they narrow what a CA may do and are not enforced here,
so a certificate with one is refused even where its issuer forgot to mark it critical."""


class KeyUsage(enum.IntFlag):
    """RFC 5280, section 4.2.1.3."""

    DIGITAL_SIGNATURE = 1 << 0
    CONTENT_COMMITMENT = 1 << 1
    KEY_ENCIPHERMENT = 1 << 2
    DATA_ENCIPHERMENT = 1 << 3
    KEY_AGREEMENT = 1 << 4
    KEY_CERT_SIGN = 1 << 5
    CRL_SIGN = 1 << 6
    ENCIPHER_ONLY = 1 << 7
    DECIPHER_ONLY = 1 << 8


class Scheme(enum.Enum):
    """How a certificate is signed."""

    RSA_PKCS1 = "RSASSA-PKCS1-v1_5"
    RSA_PSS = "RSASSA-PSS"
    ECDSA = "ECDSA"


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """A signature algorithm this verifier judges, or only its identifier when `scheme` is None."""

    oid: str
    scheme: Scheme | None
    hash_alg: HashAlg | None
    salt_length: int = 0
    """Bytes, RSASSA-PSS only."""

    def __str__(self) -> str:
        if self.scheme is None or self.hash_alg is None:
            return self.oid
        return f"{self.scheme.value} with {self.hash_alg.label.upper()}"


@dataclass(frozen=True, slots=True)
class BasicConstraints:
    """RFC 5280, section 4.2.1.9. `path_length` None: no limit."""

    ca: bool
    path_length: int | None


@dataclass(frozen=True, slots=True)
class AlternativeNames:
    """Subject alternative name: attributes (dotted OID, text) of its directory names, and other names raw."""

    directory: tuple[tuple[str, str], ...]
    has_directory: bool
    other_names: tuple[tuple[str, bytes], ...]
    """Type (dotted OID) and DER value of each otherName."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionSet:
    """Extensions that decide something, each at most once. None means absent."""

    basic_constraints: BasicConstraints | None = None
    key_usage: KeyUsage | None = None
    extended_key_usage: tuple[str, ...] | None = None
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    alternative_names: AlternativeNames | None = None
    present: frozenset[str] = frozenset()
    """OIDs of all extensions."""
    critical: frozenset[str] = frozenset()
    """OIDs of those marked critical."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """An X.509 v3 certificate, parsed. Proves nothing until a path to a trust anchor was found.

    Attributes:
        der: the certificate, without padding.
        signed: TBSCertificate, the bytes the signature covers.
        serial: serial number, as encoded (some vendors' are negative).
        issuer: Name, DER as it came.
        subject: Name, DER as it came.
        not_before: UTC.
        not_after: UTC, inclusive.
        key: public key, or None when its algorithm is not one this verifier judges.
        key_algorithm: dotted OID of the key's algorithm.
        spki: the key's canonical SubjectPublicKeyInfo, so that a certificate which writes its key as
            RSAES-OAEP and the TPM's own public area agree.
        signature: signature value.
        extensions: decoded extensions.
        lenient_because: why the strict reader refused it, or None when it did not.
    """

    der: bytes
    signed: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    key: PublicKey | None
    key_algorithm: str
    spki: bytes
    algorithm: SignatureAlgorithm
    signature: bytes
    extensions: ExtensionSet
    lenient_because: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def issuer_key(self) -> bytes:
        """The issuer's name in the form names are compared in."""
        return canonical_name(self.issuer)

    @property
    def subject_key(self) -> bytes:
        """The subject's name in the form names are compared in."""
        return canonical_name(self.subject)

    @property
    def self_issued(self) -> bool:
        """Issuer and subject are one name (RFC 5280, section 3.2); says nothing of the key."""
        return self.issuer == self.subject or self.issuer_key == self.subject_key

    @property
    def issuer_text(self) -> str:
        """The issuer's name for people."""
        return display_name(self.issuer)

    @property
    def subject_text(self) -> str:
        """The subject's name for people."""
        return display_name(self.subject)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate."""
        return hashlib.sha256(self.der).digest()

    @property
    def key_fingerprint(self) -> bytes:
        """SHA-256 of the canonical SubjectPublicKeyInfo, as `keys.fingerprint` of a TPM's public area."""
        return hashlib.sha256(self.spki).digest()

    def unenforced(self) -> tuple[str, ...]:
        """OIDs of extensions that demand what this verifier does not do; such a certificate is refused."""
        extensions = self.extensions
        return tuple(sorted((extensions.critical - UNDERSTOOD) | (extensions.present & CONSTRAINTS)))
