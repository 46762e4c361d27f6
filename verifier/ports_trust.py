"""What the service needs of the world to know whom to trust: stored anchor sets, their files, their issuers.

A part of `verifier.ports`; the same rules hold.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from verifier.crypto.anchors import AnchorCollection
from verifier.crypto.keys import PublicKey
from verifier.ports_enrollment import AuditEntry
from verifier.reasons import Reason


class AnchorPurpose(enum.StrEnum):
    """What a trust anchor may vouch for. They are kept apart: a CA of AKs shall not make EKs, nor the reverse."""

    EK = "ek"
    """Endorsement keys."""
    AK = "ak"
    """Attestation keys that a cloud certifies."""
    DEVICE = "device"
    """Initial attestation and device identity keys (IAK, IDevID) that a maker of machines certifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSetRecord:
    """An immutable set of trust anchors and revocation lists, named by the SHA-256 of `content`."""

    tenant: str
    digest: bytes
    content: bytes
    """As `verifier.service.anchor_sets.encode` writes it."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorAssignment:
    """That a tenant trusts a set, under a name, for some purposes."""

    tenant: str
    name: str
    digest: bytes
    purposes: frozenset[AnchorPurpose]
    source: str
    """The file or archive it came from, for people."""
    assigned_at: datetime
    assigned_by: str


class AnchorStore(Protocol):
    """The part of `Store` that keeps trust anchors."""

    async def assign_anchors(
        self,
        record: AnchorSetRecord,
        assignment: AnchorAssignment,
        audit: AuditEntry,
        *,
        instead_of: bytes | None = None,
    ) -> bool:
        """Keep the set (idempotent by digest), let the name stand for it, and say so in the audit log: together.

        With `instead_of`, only if the name stands for that set now; False when it does not, and nothing changed.
        """

    async def unassign_anchors(
        self, tenant: str, name: str, audit: AuditEntry, *, instead_of: bytes | None = None
    ) -> bool:
        """Trust the set of this name no longer; False when there is none (or not `instead_of`). The set stays."""

    async def anchor_assignments(self, tenant: str) -> tuple[AnchorAssignment, ...]:
        """By name."""

    async def anchor_set(self, tenant: str, digest: bytes) -> AnchorSetRecord | None:
        """The set, verified against its digest on read; `StoredDataDamaged` when it differs."""

    async def raise_alarm(self, key: str, threshold_days: int, audit: AuditEntry) -> bool:
        """Note that an alarm was raised, with an entry in the audit log; False when it was before, by anyone."""


class ReadAnchors(Protocol):
    """Reads anchors and revocation lists out of a file's bytes: PEM, DER, PKCS#7, zip or cabinet.

    Raises `MalformedInputError` for an archive that is damaged or too large. Blocks; call it in a thread.
    """

    def __call__(self, name: str, data: bytes) -> AnchorCollection:
        """What is in there; `name` is for messages."""


class IssuerSource(Protocol):
    """Fetches issuer certificates from where certificates say they are (RFC 5280, section 4.2.2.1)."""

    async def fetch(self, url: str, timeout: timedelta) -> bytes | None:  # noqa: ASYNC109 - the bound is the point
        """The body, or None where it could not be had for whatever reason; never raises. Proves nothing."""


class EndingKind(enum.StrEnum):
    """What ends."""

    ANCHOR = "anchor"
    """A trust anchor: what it vouches for is accepted no longer."""
    CRL = "crl"
    """A revocation list, for which a newer one was announced."""
    TLS = "tls"
    """The certificate this service shows."""
    TLS_CA = "tls-ca"
    """The CA that agents pin."""
    AK_CA = "ak-ca"
    """A CA of the AK certificates this verifier issues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Something that ends at a time."""

    kind: EndingKind
    holder: str
    """Name of the anchor set, or `verifier`."""
    sha256: str
    """Hex, of the certificate or list."""
    subject: str
    """Subject of the certificate, or issuer of the list."""
    ends_at: datetime
    thresholds: tuple[int, ...]
    """Days before the end at which somebody is told, beside the end itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryAlarm:
    """Something ends soon, or has ended."""

    tenant: str
    ending: Ending
    remaining: timedelta
    """Negative once it has ended."""
    threshold_days: int
    """90, 30 or 7: within how many days; 0 when it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostEndorsement:
    """An enrolled machine whose certificate, of its EK or AK, would not be accepted now."""

    attester_id: str
    hostname: str | None
    reason: Reason
    detail: str


class ExpiryAlarms(Protocol):
    """The part of `EventSink` that is told of what ends."""

    async def expiring(self, alarms: Sequence[ExpiryAlarm]) -> None:
        """Alarms that nobody was told of before, on any replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AkCertificateRequest:
    """What an AK certificate shall say. Who asks has decided that it may be issued."""

    key: PublicKey
    uri: str
    """Names the attester."""
    manufacturer_id: str | None
    """As the EK certificate writes it, `id:564D5700`; None where none was validated."""
    model: str | None
    version: str | None
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate (DER) and what is above it (DER, its issuer first, the root last)."""

    certificate: bytes
    chain: tuple[bytes, ...]
    serial: int
    not_after: datetime


class AkSigner(Protocol):
    """The CA for AK certificates."""

    def issue(self, request: AkCertificateRequest) -> IssuedCertificate:
        """A new certificate with a random serial number; it ends with its issuer at the latest."""

    def authorities(self) -> tuple[bytes, ...]:
        """DER of every CA certificate whose certificates may be alive: issuing ones first, the root last."""
