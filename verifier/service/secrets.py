"""Secrets for machines, as operators keep them: by name, encrypted, with grants that say who may have each.

What is in one is never shown again, to nobody: it leaves towards a machine that is affirming, or not at all
(`verifier.service.secret_release`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from verifier.errors import EvidenceError, NotFoundError, RefusedError
from verifier.policy.assignment import MAX_SELECTOR, check_labels
from verifier.ports import Clock, Random, Store
from verifier.ports_enrollment import AuditEntry
from verifier.ports_secrets import (
    AddGrant,
    Changed,
    DropGrant,
    DropSecret,
    KeepSecret,
    SecretBox,
    SecretChange,
    SecretGrant,
    StoredSecret,
)
from verifier.reasons import Reason
from verifier.service.ids import new_id
from verifier.service.recorder import Recorder

MAX_SECRETS: Final = 1000
"""Of one tenant."""
MAX_GRANTS: Final = 64
"""Of one secret: every release looks at all of them."""
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantCommand:
    """Who shall have a secret: whoever is all that is said here."""

    attester_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    policy_id: str | None = None
    uses: int | None = None
    expires_at: datetime | None = None


def about(tenant: str, name: str, revision: int) -> bytes:
    """What a secret is encrypted for: no row of the database opens in the place of another."""
    return f"{tenant}\0{name}\0{revision}".encode()


class SecretService:
    """Put, list, grant and remove, always within one tenant."""

    def __init__(
        self, *, store: Store, recorder: Recorder, clock: Clock, random: Random, box: SecretBox
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._random = random
        self._box = box

    async def list(self, tenant: str) -> tuple[StoredSecret, ...]:
        """All of a tenant, by name."""
        return await self._store.secrets(tenant)

    async def get(self, tenant: str, name: str) -> StoredSecret:
        """One; raises `NotFoundError`."""
        found = await self._store.secret(tenant, name)
        if found is None:
            raise NotFoundError("secret", name)
        return found

    async def put(
        self, tenant: str, name: str, content: bytes, description: str | None, actor: str
    ) -> StoredSecret:
        """Keep a secret, or another content under its name; grants stay as they are, and there are none of a new one.

        Raises:
            RefusedError: `conflict`: there are too many, or others put it at the same time.
        """
        for _ in range(_ATTEMPTS):
            known, now = await self._store.secret(tenant, name), self._clock.now()
            revision = 1 if known is None else known.revision + 1
            kept = StoredSecret(
                tenant=tenant,
                name=name,
                description=description or ("" if known is None else known.description),
                revision=revision,
                size=len(content),
                key_id=self._box.key_id,
                sealed=self._box.seal(content, about(tenant, name, revision)),
                created_at=now if known is None else known.created_at,
                changed_at=now,
                changed_by=actor,
                grants=() if known is None else known.grants,
            )
            change = KeepSecret(secret=kept, replacing=revision - 1, at_most=MAX_SECRETS)
            audit = self._audit(tenant, "put", name, actor, {"revision": revision, "size": kept.size})
            match await self._recorder.secret_changed(change, audit):
                case Changed.DONE:
                    return kept
                case Changed.FULL:
                    raise RefusedError(Reason.CONFLICT, f"there are {MAX_SECRETS} secrets; remove one first")
                case Changed.MOVED:
                    continue
        raise RefusedError(Reason.CONFLICT, f"others put secret {name!r} at the same time")

    async def remove(self, tenant: str, name: str, actor: str) -> None:
        """Forget a secret and its grants; raises `NotFoundError`."""
        await self._drop(
            DropSecret(tenant=tenant, name=name), self._audit(tenant, "removed", name, actor, {}), name
        )

    async def grant(self, tenant: str, name: str, command: GrantCommand, actor: str) -> SecretGrant:
        """Say who may have it.

        Raises:
            NotFoundError: no such secret, or no such attester.
            EvidenceError: `malformed-request`: it says nobody in particular, or its time is over.
            RefusedError: `conflict`: there are too many.
        """
        await self._check(tenant, command)
        grant = SecretGrant(
            id=new_id("grt", self._random),
            attester_id=command.attester_id,
            labels=dict(sorted(command.labels.items())),
            policy_id=command.policy_id,
            uses_left=command.uses,
            expires_at=command.expires_at,
            created_at=self._clock.now(),
            created_by=actor,
        )
        audit = self._audit(tenant, "granted", name, actor, _told(grant))
        change = AddGrant(tenant=tenant, name=name, grant=grant, at_most=MAX_GRANTS)
        match await self._recorder.secret_changed(change, audit):
            case Changed.DONE:
                return grant
            case Changed.MOVED:
                raise NotFoundError("secret", name)
            case Changed.FULL:
                raise RefusedError(
                    Reason.CONFLICT,
                    f"secret {name!r} has {MAX_GRANTS} grants; grant by label, or withdraw one",
                )

    async def withdraw(self, tenant: str, name: str, grant_id: str, actor: str) -> None:
        """Take a grant back; raises `NotFoundError`."""
        change = DropGrant(tenant=tenant, name=name, grant_id=grant_id)
        audit = self._audit(tenant, "withdrawn", name, actor, {"grant": grant_id})
        await self._drop(change, audit, grant_id)

    async def encrypt_anew(self, actor: str) -> tuple[int, int]:
        """Encrypt with the key of now what was encrypted with another, of every tenant. How many, of how many in all.

        Raises:
            VerifierFault: a secret does not open: the others are done all the same.
        """
        all_of_them = await self._store.secrets(None)
        old = [one for one in all_of_them if one.key_id != self._box.key_id]
        done = 0
        for one in old:
            bound = about(one.tenant, one.name, one.revision)
            content = self._box.open(one.key_id, one.sealed, bound)
            done += await self._replace(one, self._box.seal(content, bound), actor)
        return done, len(all_of_them)

    async def _replace(self, one: StoredSecret, sealed: bytes, actor: str) -> bool:
        again = StoredSecret(
            tenant=one.tenant,
            name=one.name,
            description=one.description,
            revision=one.revision,
            size=one.size,
            key_id=self._box.key_id,
            sealed=sealed,
            created_at=one.created_at,
            changed_at=one.changed_at,
            changed_by=one.changed_by,
        )
        change = KeepSecret(secret=again, replacing=one.revision, at_most=MAX_SECRETS)
        detail = {"revision": one.revision, "key": self._box.key_id}
        audit = self._audit(one.tenant, "encrypted-anew", one.name, actor, detail)
        return await self._recorder.secret_changed(change, audit) is Changed.DONE

    async def _check(self, tenant: str, command: GrantCommand) -> None:
        if command.attester_id is None and not command.labels and command.policy_id is None:
            raise _malformed("say who may have it: an attester, labels, a policy, or several of them")
        if len(command.labels) > MAX_SELECTOR:
            raise _malformed(f"a grant names at most {MAX_SELECTOR} labels")
        check_labels(command.labels)
        if command.expires_at is not None and command.expires_at <= self._clock.now():
            raise _malformed("its time is over already")
        if command.attester_id is not None:
            state = await self._store.attester_state(command.attester_id)
            if state is None or state.attester.tenant != tenant:
                raise NotFoundError("attester", command.attester_id)

    async def _drop(self, change: SecretChange, audit: AuditEntry, key: str) -> None:
        if await self._recorder.secret_changed(change, audit) is not Changed.DONE:
            raise NotFoundError("secret" if isinstance(change, DropSecret) else "grant", key)

    def _audit(
        self, tenant: str, what: str, name: str, actor: str, detail: Mapping[str, object]
    ) -> AuditEntry:
        return AuditEntry(
            tenant=tenant,
            at=self._clock.now(),
            actor=actor,
            action=f"secret.{what}",
            subject=name,
            reason="",
            detail=detail,
        )


def _told(grant: SecretGrant) -> dict[str, object]:
    said: dict[str, object] = {"grant": grant.id}
    if grant.attester_id is not None:
        said["attester"] = grant.attester_id
    if grant.labels:
        said["labels"] = dict(grant.labels)
    if grant.policy_id is not None:
        said["policy"] = grant.policy_id
    if grant.uses_left is not None:
        said["uses"] = grant.uses_left
    if grant.expires_at is not None:
        said["expires_at"] = grant.expires_at.isoformat()
    return said


def _malformed(detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure="grant")
