"""Secrets for machines: kept encrypted, and given out only in the transaction that says so."""

from __future__ import annotations

from typing import Any, Final, assert_never

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update

from verifier.ports import Lifecycle
from verifier.ports_enrollment import AuditEntry
from verifier.ports_secrets import (
    AddGrant,
    Changed,
    DropGrant,
    DropSecret,
    KeepSecret,
    Released,
    SecretChange,
    SecretGrant,
    SecretRelease,
    StoredSecret,
)
from verifier.store import event_log, values
from verifier.store.audit_log import append
from verifier.store.backend import StorePart, changed
from verifier.store.rows import Row, Values
from verifier.store.schema import latest
from verifier.store.schema_secrets import secret, secret_grant
from verifier.store.statements import InsertInto

_GRANT: Final = (
    secret_grant.c.id, secret_grant.c.attester_id, secret_grant.c.labels, secret_grant.c.policy_id,
    secret_grant.c.uses_left, secret_grant.c.expires_at, secret_grant.c.created_at, secret_grant.c.created_by,
)  # fmt: skip


class Secrets(StorePart):
    """The secrets of the `Store` port."""

    async def secrets(self, tenant: str | None) -> tuple[StoredSecret, ...]:
        """By tenant and name; None: of all tenants."""
        query = _secrets()
        return await self._read(query if tenant is None else query.where(secret.c.tenant == tenant))

    async def secret(self, tenant: str, name: str) -> StoredSecret | None:
        """One, with its grants."""
        found = await self._read(_secrets().where(secret.c.tenant == tenant, secret.c.name == name))
        return found[0] if found else None

    async def change_secret(self, change: SecretChange, audit: AuditEntry) -> Changed:
        """Change something, with its audit entry, or nothing at all."""
        into = self._backend.insert

        def work(connection: Connection) -> Changed:
            done = _change(connection, into, change)
            if done is Changed.DONE:
                append(connection, audit)
            return done

        return await self._backend.write(work)

    async def release_secret(self, release: SecretRelease, audit: AuditEntry) -> Released:
        """Take one use of the grant, and record the release, if all it rests on still holds."""

        def work(connection: Connection) -> Released:
            done = _release(connection, release)
            if done is Released.RECORDED:
                append(connection, audit)
                event_log.append_audited(connection, audit)
            return done

        return await self._backend.write(work)

    async def _read(self, query: Select[*tuple[Any, ...]]) -> tuple[StoredSecret, ...]:
        """A row for each grant, and one for a secret without any."""
        found: dict[tuple[str, str], tuple[Row, list[SecretGrant]]] = {}
        for row in await self._backend.rows(query):
            own, grant = row[: len(secret.c)], row[len(secret.c) :]
            _, grants = found.setdefault((own[0], own[1]), (own, []))
            if grant[0] is not None:
                grants.append(_grant_record(grant))
        return tuple(_record(own, tuple(grants)) for own, grants in found.values())


def _secrets() -> Select[*tuple[Any, ...]]:
    return (
        select(*secret.c, *_GRANT)
        .select_from(secret.outerjoin(secret_grant))
        .order_by(secret.c.tenant, secret.c.name, secret_grant.c.created_at, secret_grant.c.id)
    )


def _change(connection: Connection, into: InsertInto, change: SecretChange) -> Changed:
    match change:
        case KeepSecret():
            return _keep(connection, into, change)
        case DropSecret():
            gone = delete(secret).where(secret.c.tenant == change.tenant, secret.c.name == change.name)
            return Changed.DONE if changed(connection, gone) else Changed.MOVED
        case AddGrant():
            return _add_grant(connection, change)
        case DropGrant():
            gone = delete(secret_grant).where(
                secret_grant.c.tenant == change.tenant,
                secret_grant.c.secret == change.name,
                secret_grant.c.id == change.grant_id,
            )
            return Changed.DONE if changed(connection, gone) else Changed.MOVED
        case _:
            assert_never(change)


def _keep(connection: Connection, into: InsertInto, change: KeepSecret) -> Changed:
    kept = change.secret
    row = _values(kept)
    if change.replacing:
        same = update(secret).where(
            secret.c.tenant == kept.tenant,
            secret.c.name == kept.name,
            secret.c.revision == change.replacing,
        )
        return Changed.DONE if changed(connection, same.values(row)) else Changed.MOVED
    mine = select(func.count(), func.count().filter(secret.c.name == kept.name)).where(
        secret.c.tenant == kept.tenant
    )
    count, named = connection.execute(mine).one()
    if named:
        return Changed.MOVED
    if count >= change.at_most:
        return Changed.FULL
    # Others may keep one at the same time: one of them does.
    added = changed(connection, into(secret).values(row).on_conflict_do_nothing())
    return Changed.DONE if added else Changed.MOVED


def _add_grant(connection: Connection, change: AddGrant) -> Changed:
    # Locked, so that it is not removed meanwhile.
    there = select(secret.c.name).where(secret.c.tenant == change.tenant, secret.c.name == change.name)
    if connection.execute(there.with_for_update(read=True)).first() is None:
        return Changed.MOVED
    counted = select(func.count()).where(
        secret_grant.c.tenant == change.tenant, secret_grant.c.secret == change.name
    )
    if connection.execute(counted).scalar_one() >= change.at_most:
        return Changed.FULL
    connection.execute(insert(secret_grant).values(_grant_values(change)))
    return Changed.DONE


def _release(connection: Connection, release: SecretRelease) -> Released:
    """Each row is locked against changes until the end: whoever revokes or withdraws comes before or after, whole."""
    standing = select(latest.c.lifecycle, latest.c.sequence, latest.c.incident).where(
        latest.c.tenant == release.tenant, latest.c.attester_id == release.attester_id
    )
    found = connection.execute(standing.with_for_update(read=True)).first()
    if found is None or found.lifecycle != Lifecycle.ENROLLED.value:
        return Released.SHUT_OUT
    if found.incident is not None:
        return Released.INCIDENT
    if found.sequence != release.sequence:
        return Released.OVERTAKEN
    given = select(secret.c.name).where(
        secret.c.tenant == release.tenant,
        secret.c.name == release.name,
        secret.c.revision == release.revision,
    )
    if connection.execute(given.with_for_update(read=True)).first() is None:
        return Released.MOVED
    return Released.RECORDED if _use(connection, release) else Released.MOVED


def _use(connection: Connection, release: SecretRelease) -> bool:
    mine = (
        secret_grant.c.id == release.grant_id,
        secret_grant.c.tenant == release.tenant,
        secret_grant.c.secret == release.name,
        or_(
            secret_grant.c.expires_at.is_(None),
            secret_grant.c.expires_at > values.micros(release.at),
        ),
    )
    # Only one that counts is written to: a fleet that boots at once would wait for each other at this row.
    endless = select(secret_grant.c.id).where(*mine, secret_grant.c.uses_left.is_(None))
    if connection.execute(endless.with_for_update(read=True)).first() is not None:
        return True
    one_less = update(secret_grant).where(*mine, secret_grant.c.uses_left > 0)
    return changed(connection, one_less.values(uses_left=secret_grant.c.uses_left - 1)) == 1


def _values(kept: StoredSecret) -> Values:
    return {
        "tenant": kept.tenant,
        "name": kept.name,
        "description": values.plain_text(kept.description),
        "revision": kept.revision,
        "size": kept.size,
        "key_id": kept.key_id,
        "sealed": kept.sealed,
        "created_at": values.micros(kept.created_at),
        "changed_at": values.micros(kept.changed_at),
        "changed_by": kept.changed_by,
    }


def _record(row: Row, grants: tuple[SecretGrant, ...]) -> StoredSecret:
    tenant, name, description, revision, size, key_id, sealed, created_at, changed_at, changed_by = row
    return StoredSecret(
        tenant=tenant,
        name=name,
        description=description,
        revision=revision,
        size=size,
        key_id=key_id,
        sealed=sealed,
        created_at=values.moment(created_at),
        changed_at=values.moment(changed_at),
        changed_by=changed_by,
        grants=grants,
    )


def _grant_values(change: AddGrant) -> Values:
    grant = change.grant
    return {
        "id": grant.id,
        "tenant": change.tenant,
        "secret": change.name,
        "attester_id": grant.attester_id,
        "labels": values.json_text(dict(sorted(grant.labels.items()))),
        "policy_id": grant.policy_id,
        "uses_left": grant.uses_left,
        "expires_at": values.micros_or_none(grant.expires_at),
        "created_at": values.micros(grant.created_at),
        "created_by": grant.created_by,
    }


def _grant_record(row: Row) -> SecretGrant:
    key, attester_id, labels, policy_id, uses_left, expires_at, created_at, created_by = row
    return SecretGrant(
        id=key,
        attester_id=attester_id,
        labels=values.read_labels(labels),
        policy_id=policy_id,
        uses_left=uses_left,
        expires_at=values.moment_or_none(expires_at),
        created_at=values.moment(created_at),
        created_by=created_by,
    )
