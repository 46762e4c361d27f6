"""Trust anchors: CA certificates an operator decided to believe.

Any CA may be one, a root or an intermediate; a path ends at the first. An anchor is named by its key, so that
two VMCA roots with one distinguished name (a rebuilt vCenter) are two anchors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from asn1crypto import pem

from verifier.crypto.cert_reader import parse_authority
from verifier.crypto.certificate import Certificate, KeyUsage
from verifier.crypto.der import malformed
from verifier.crypto.nv_content import unwrap
from verifier.crypto.weak_keys import weakness
from verifier.errors import EvidenceError, RefusedError
from verifier.reasons import Reason

MAX_BUNDLE: Final = 8 * 1024 * 1024
_PEM_MARK: Final = b"-----BEGIN"
_PEM_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")


@dataclass(frozen=True, slots=True)
class UnusableAnchor:
    """A certificate that was offered as an anchor and cannot be one."""

    sha256: str
    """Hex, of the bytes offered."""
    subject: str
    """Name for people; empty when it could not be read."""
    problem: str

    @staticmethod
    def digest_of(data: bytes) -> str:
        """How `sha256` is made of the bytes offered."""
        return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that looked like an anchor or a revocation list and cannot be used."""

    source: str
    subject: str
    problem: str


class TrustAnchors:
    """An immutable set of CA certificates, found by name and told apart by key.

    Proves nothing by itself: that these certificates deserve trust is the operator's decision. Each is a CA
    certificate with a key this verifier can verify with. Dates are judged at validation, not here.
    """

    __slots__ = ("_anchors", "_by_subject", "_digest")

    def __init__(self, anchors: Iterable[Certificate] = ()) -> None:
        unique: dict[bytes, Certificate] = {}
        for anchor in anchors:
            problem = anchor_problem(anchor)
            if problem is not None:
                detail = f"{anchor.subject_text} cannot be a trust anchor: {problem}"
                raise RefusedError(Reason.EK_CERTIFICATE_UNTRUSTED, detail)
            unique.setdefault(anchor.fingerprint, anchor)
        self._anchors = tuple(anchor for _, anchor in sorted(unique.items()))
        by_subject: dict[bytes, tuple[Certificate, ...]] = {}
        for anchor in self._anchors:
            by_subject[anchor.subject_key] = (*by_subject.get(anchor.subject_key, ()), anchor)
        self._by_subject = MappingProxyType(by_subject)
        self._digest = hashlib.sha256(b"".join(sorted(unique))).digest()

    @classmethod
    def from_der(cls, certificates: Iterable[bytes]) -> TrustAnchors:
        """Anchors from DER certificates.

        Raises:
            MalformedInputError: one of them cannot be read.
            RefusedError: EK_CERTIFICATE_UNTRUSTED: one of them is not a CA, or its key is unusable.
        """
        return cls(parse_authority(unwrap(certificate).der) for certificate in certificates)

    @classmethod
    def from_bundle(cls, data: bytes) -> TrustAnchors:
        """Anchors from one file: PEM with any number of certificates, or one DER certificate."""
        return cls.from_der(split_bundle(data))

    from_pem_or_der = from_bundle

    @classmethod
    def sift(cls, certificates: Iterable[bytes]) -> tuple[TrustAnchors, tuple[UnusableAnchor, ...]]:
        """Anchors from a vendor's collection, of which some may be unusable; each of those is named."""
        usable: list[Certificate] = []
        unusable: list[UnusableAnchor] = []
        for data in certificates:
            subject = ""
            try:
                anchor = parse_authority(unwrap(data).der)
                subject = anchor.subject_text
                problem = anchor_problem(anchor)
            except EvidenceError as error:
                problem = str(error)
            if problem is None:
                usable.append(anchor)
            else:
                unusable.append(UnusableAnchor(UnusableAnchor.digest_of(data), subject, problem))
        return cls(usable), tuple(unusable)

    def __or__(self, other: TrustAnchors) -> TrustAnchors:
        return TrustAnchors((*self._anchors, *other._anchors))

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self._anchors)

    def __len__(self) -> int:
        return len(self._anchors)

    def __contains__(self, certificate: object) -> bool:
        return isinstance(certificate, Certificate) and certificate in self._by_subject.get(
            certificate.subject_key, ()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrustAnchors) and other._digest == self._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the sorted fingerprints: names this very set."""
        return self._digest

    def named(self, subject_key: bytes) -> tuple[Certificate, ...]:
        """Anchors of this canonical name; their signature decides, not their name."""
        return self._by_subject.get(subject_key, ())

    def expiring(self, by: datetime) -> tuple[Certificate, ...]:
        """Anchors that will have expired at this time, soonest first."""
        return tuple(sorted((a for a in self._anchors if a.not_after < by), key=lambda a: a.not_after))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorCollection:
    """What was found in files. `anchors` are trusted by the decision to import them, and nothing else."""

    anchors: TrustAnchors
    crls: tuple[bytes, ...]
    rejected: tuple[Rejected, ...]
    ignored: tuple[str, ...]
    """Files that hold neither certificates nor revocation lists."""


def anchor_problem(certificate: Certificate) -> str | None:
    """Why a certificate cannot be a trust anchor, or None. Its dates and its own signature are not judged."""
    extensions = certificate.extensions
    if extensions.basic_constraints is None or not extensions.basic_constraints.ca:
        return "not a CA certificate (basic constraints)"
    if extensions.key_usage is not None and KeyUsage.KEY_CERT_SIGN not in extensions.key_usage:
        return "its key usage does not include signing certificates"
    if unenforced := certificate.unenforced():
        return f"extension {', '.join(unenforced)} cannot be enforced"
    if certificate.key is None:
        return f"keys of algorithm {certificate.key_algorithm} are not supported"
    return weakness(certificate.key)


def split_bundle(data: bytes) -> tuple[bytes, ...]:
    """DER of every certificate in a PEM file, or the one DER certificate it is.

    Raises:
        MalformedInputError: too large, damaged PEM, or PEM without a certificate.
    """
    if len(data) > MAX_BUNDLE:
        raise malformed(f"{len(data)} bytes; at most {MAX_BUNDLE} are read", 0, "certificate bundle")
    start = data.find(_PEM_MARK)
    if data[:1] == b"\x30" or start < 0:
        return (data,)
    try:
        blocks = [(label, der) for label, _, der in pem.unarmor(data, multiple=True)]
    except (ValueError, TypeError) as error:
        raise malformed(f"PEM: {error}", start, "certificate bundle") from error
    found = tuple(der for label, der in blocks if label in _PEM_LABELS)
    if not found:
        raise malformed("PEM without a certificate", start, "certificate bundle")
    return found
