"""What the service needs of the world to answer relying parties: verdicts of many attesters, found by what they are.

A part of `verifier.ports`; the same rules hold. Nothing here is about evidence: it is read from the one row per
attester that every recording updates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from verifier.reasons import Tier

if TYPE_CHECKING:
    from verifier.ports import Lifecycle, Page, VerdictRecord

MAX_BULK = 1_000
"""Attesters that one question may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An attester and its latest verdict, without what only its next attestation needs."""

    attester_id: str
    tenant: str
    ek_fingerprint: bytes
    lifecycle: Lifecycle
    """As stored: never `stale`."""
    revoked_at: datetime | None
    replaced_by: str | None
    latest: VerdictRecord | None
    """None before its first attestation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingFilter:
    """Whose verdicts; all that is given must hold."""

    label: tuple[str, str] | None = None
    ek_fingerprint: bytes | None = None
    """SHA-256 of the EK's SubjectPublicKeyInfo."""
    smbios_uuids: tuple[str, ...] | None = None
    """Spellings of a UUID, in one order; those match that ever claimed one of them."""
    least: Tier | None = None
    """Only current verdicts of enrolled attesters, of this tier or a better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Changes whenever what an attester's latest verdict says changes, but for the passing of time."""

    attester_id: str
    tenant: str
    lifecycle: Lifecycle
    """As stored: never `stale`."""
    sequence: int
    """0 before the first verdict."""
    tier: Tier | None
    """Of the latest verdict, as it was judged."""
    judged_at: datetime | None
    valid_until: datetime | None
    """Of the latest verdict; `stale` follows from the two."""


class QueryStore(Protocol):
    """The part of `Store` that relying parties read."""

    async def standings(
        self, tenant: str, where: StandingFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[Standing]:
        """One page, ordered by id. Raises `EvidenceError` for a cursor of another listing."""

    async def standings_of(self, tenant: str, attester_ids: Sequence[str]) -> tuple[Standing, ...]:
        """Those of these attesters that exist, by id, in one query of at most `MAX_BULK`."""

    async def marks(self, attester_ids: Collection[str]) -> tuple[Mark, ...]:
        """Those of these attesters that exist, of any tenant, in one query of at most `MAX_BULK`."""
