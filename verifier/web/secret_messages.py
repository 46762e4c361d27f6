"""Messages of secrets as operators see them: everything but what is in them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from verifier.ports_secrets import SecretGrant, StoredSecret
from verifier.web.messages import Body, Id, PolicyId
from verifier.web.wire_codec import MAX_SECRET, rfc3339, rfc3339_or_none

LabelText = Annotated[str, Meta(max_length=128)]


class PutSecret(Body, frozen=True, kw_only=True):
    """What to keep under a name. It is encrypted before it is stored, and no call shows it again."""

    content: Annotated[bytes, Meta(min_length=1, max_length=MAX_SECRET)]
    description: Annotated[str, Meta(max_length=256)] | None = None
    """For people; absent: as it was."""


class NewGrant(Body, frozen=True, kw_only=True):
    """Who shall have it: attesters that are all that is said here, as long as they are affirming."""

    attester: Id | None = None
    labels: Annotated[dict[LabelText, LabelText], Meta(max_length=16)] = msgspec.field(default_factory=dict)
    policy: PolicyId | None = None
    """The policy that their verdict is given by."""
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Absent: as often as they ask."""
    expires_in: Annotated[int, Meta(ge=1, le=10 * 365 * 86400)] | None = None
    """Seconds; absent: until it is withdrawn."""


class Grant(Body, frozen=True, kw_only=True):
    """Who may have a secret."""

    id: str
    attester: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    policy: str | None = None
    uses_left: int | None = None
    """0: used up."""
    expires_at: str | None = None
    created_at: str
    created_by: str


class Secret(Body, frozen=True, kw_only=True):
    """A secret without what is in it."""

    name: str
    description: str = ""
    revision: int
    """Counts the times it was put."""
    size: int
    key: str
    """Id of the key that it is encrypted with in the database."""
    created_at: str
    changed_at: str
    changed_by: str
    grants: list[Grant]


class SecretsReply(Body, frozen=True, kw_only=True):
    """All of them, by name."""

    secrets: list[Secret]


def secret_message(kept: StoredSecret) -> Secret:
    """A secret as the API shows it."""
    return Secret(
        name=kept.name,
        description=kept.description,
        revision=kept.revision,
        size=kept.size,
        key=kept.key_id,
        created_at=rfc3339(kept.created_at),
        changed_at=rfc3339(kept.changed_at),
        changed_by=kept.changed_by,
        grants=[grant_message(each) for each in kept.grants],
    )


def grant_message(grant: SecretGrant) -> Grant:
    """A grant as the API shows it."""
    return Grant(
        id=grant.id,
        attester=grant.attester_id,
        labels=dict(grant.labels),
        policy=grant.policy_id,
        uses_left=grant.uses_left,
        expires_at=rfc3339_or_none(grant.expires_at),
        created_at=rfc3339(grant.created_at),
        created_by=grant.created_by,
    )
