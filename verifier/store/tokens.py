"""Tokens: kept by the hash of their secret, spent by one conditional UPDATE."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, UpdateBase, bindparam, delete, insert, or_, select, update

from verifier.ports import SESSION_ID, Scope, TokenRecord
from verifier.ports_announcements import Topic
from verifier.ports_enrollment import AuditEntry
from verifier.store import audit_log, rows, statements
from verifier.store.announcing import note
from verifier.store.backend import StorePart, changed
from verifier.store.schema import token
from verifier.store.values import micros, moment

_BY_HASH: Final = statements.TOKEN_BY_HASH


class Tokens(StorePart):
    """The token methods of the `Store` port."""

    async def add_token(self, token_record: TokenRecord, audit: AuditEntry | None = None) -> None:
        """Keep a new token."""
        new = insert(token).values(rows.token_values(token_record))
        await self._change_known(token_record.tenant, new, audit)

    async def token_by_hash(self, secret_hash: bytes) -> TokenRecord | None:
        """The token with this secret, whatever its state."""
        row = await self._backend.lookup(_BY_HASH, secret_hash)
        return None if row is None else rows.token_record(row)

    async def list_tokens(self, tenant: str) -> tuple[TokenRecord, ...]:
        """Oldest first."""
        query = (
            select(*rows.TOKEN_COLUMNS)
            .where(token.c.tenant == tenant)
            .order_by(token.c.created_at, token.c.id)
        )
        return tuple(rows.token_record(row) for row in await self._backend.rows(query))

    async def purge_sessions(self, before: datetime) -> int:
        """Drop the tokens of sessions that ended before this; every other token is kept, for whoever lists them."""
        ended = token.c.expires_at < micros(before)
        return await self._change(delete(token).where(token.c.id.startswith(f"{SESSION_ID}-"), ended))

    async def revoke_token(
        self, tenant: str, token_id: str, now: datetime, audit: AuditEntry | None = None
    ) -> bool:
        """True when the token exists; it keeps the time it was first revoked."""
        this = (token.c.tenant == tenant, token.c.id == token_id)
        first = update(token).where(*this, token.c.revoked_at.is_(None)).values(revoked_at=micros(now))
        if await self._change_known(tenant, first, audit):
            return True
        return await self._first(select(token.c.id).where(*this)) is not None

    async def _change_known(self, tenant: str, statement: UpdateBase, audit: AuditEntry | None) -> int:
        """Change what replicas remember of tokens, and tell them and the audit log."""

        def work(connection: Connection) -> int:
            count = changed(connection, statement)
            if count:
                note(connection, Topic.TOKENS, tenant)
            if count and audit is not None:
                audit_log.append(connection, audit)
            return count

        return await self._backend.write(work)


_SPEND: Final = (
    update(token)
    .where(
        token.c.id == bindparam("b_id"),
        token.c.revoked_at.is_(None),
        or_(token.c.expires_at.is_(None), token.c.expires_at > bindparam("b_at")),
        or_(token.c.uses_left.is_(None), token.c.uses_left > 0),
        # As `values.scopes_text` writes it; scopes never change.
        token.c.scopes.contains(f'"{Scope.JOIN.value}"', autoescape=True),
    )
    .values(uses_left=token.c.uses_left - 1, last_used_at=bindparam("b_at"))
    .returning(token.c.tenant, token.c.uses_left)
)


def spend(connection: Connection, token_id: str, at: int) -> bool:
    """Take one use of a join token, if it has one and is good."""
    taken = connection.execute(_SPEND, {"b_id": token_id, "b_at": at}).first()
    if taken is not None and taken[1] == 0:
        used_up = AuditEntry(
            tenant=taken[0],
            at=moment(at),
            actor=token_id,
            action="token.used-up",
            subject=token_id,
            reason="",
        )
        audit_log.append(connection, used_up)
    return taken is not None
