"""What the service needs of the world to keep secrets for machines, and to give them out.

A part of `verifier.ports`; the same rules hold. A store has a secret only as it was encrypted with a key that is not in
the database, and gives it out only through `release_secret`, which records that it did.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from verifier.ports_enrollment import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretGrant:
    """Who may have a secret: whoever is all that is said here. One that says nothing cannot be made."""

    id: str
    attester_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    policy_id: str | None = None
    """The policy that the verdict was given by."""
    uses_left: int | None = None
    """None: as often as it is asked for."""
    expires_at: datetime | None = None
    created_at: datetime
    created_by: str

    def covers(self, attester_id: str, labels: Mapping[str, str], policy_id: str | None) -> bool:
        """Whether it is for this attester, judged by this policy."""
        return (
            (self.attester_id is None or self.attester_id == attester_id)
            and self.labels.items() <= labels.items()
            and (self.policy_id is None or self.policy_id == policy_id)
        )

    def is_open(self, now: datetime) -> bool:
        """Whether it is not used up, and its time is not over."""
        return self.uses_left != 0 and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret as it is kept, with the grants for it, the oldest first."""

    tenant: str
    name: str
    description: str
    revision: int
    """Counts the times it was put."""
    size: int
    """Bytes in the clear."""
    key_id: str
    sealed: bytes = field(repr=False)
    """Encrypted for tenant, name and revision."""
    created_at: datetime
    changed_at: datetime
    changed_by: str
    grants: tuple[SecretGrant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSecret:
    """Keep a secret, but for its grants, where the one with its name has the revision `replacing` (0: there is none)."""

    secret: StoredSecret
    replacing: int
    at_most: int
    """Of one tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSecret:
    """Forget a secret with its grants."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddGrant:
    """One grant more."""

    tenant: str
    name: str
    grant: SecretGrant
    at_most: int
    """Of one secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropGrant:
    """One less."""

    tenant: str
    name: str
    grant_id: str


SecretChange: TypeAlias = KeepSecret | DropSecret | AddGrant | DropGrant


class Changed(enum.Enum):
    """What came of a change."""

    DONE = enum.auto()
    MOVED = enum.auto()
    """What was to be changed is not there, or is another by now."""
    FULL = enum.auto()
    """There are as many as there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRelease:
    """What is about to be given out, on which verdict, by which grant."""

    tenant: str
    name: str
    revision: int
    grant_id: str
    attester_id: str
    sequence: int
    at: datetime


class Released(enum.Enum):
    """Whether a secret may leave. Everything but `RECORDED` has changed nothing."""

    RECORDED = enum.auto()
    """It may, and that is in the audit log."""
    OVERTAKEN = enum.auto()
    """There is a newer verdict."""
    SHUT_OUT = enum.auto()
    """The attester was revoked, or another took its place."""
    INCIDENT = enum.auto()
    """A clone or rollback of it waits for a person."""
    MOVED = enum.auto()
    """Secret or grant are gone, used up, or others by now."""


class SecretStore(Protocol):
    """The part of `Store` that keeps secrets."""

    async def secrets(self, tenant: str | None) -> tuple[StoredSecret, ...]:
        """By tenant and name; None: of all tenants."""

    async def secret(self, tenant: str, name: str) -> StoredSecret | None:
        """One, with its grants."""

    async def change_secret(self, change: SecretChange, audit: AuditEntry) -> Changed:
        """Change something, with its audit entry, or nothing at all."""

    async def release_secret(self, release: SecretRelease, audit: AuditEntry) -> Released:
        """Take one use of the grant, and record the release, if all it rests on still holds in that transaction."""


class SecretBox(Protocol):
    """Encrypts secrets for the database, with a key that is not in it."""

    @property
    def key_id(self) -> str:
        """Of the key that encrypts now."""

    def seal(self, content: bytes, about: bytes) -> bytes:
        """Encrypted, so that it opens with the same `about` alone."""

    def open(self, key_id: str, sealed: bytes, about: bytes) -> bytes:
        """The reverse.

        Raises:
            VerifierFault: there is no key of this id.
            StoredDataDamaged: it is not what was sealed.
        """
