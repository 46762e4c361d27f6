"""Tokens: kept by the hash of their secret, spent by one conditional UPDATE."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, UpdateBase, delete, func, insert, or_, select, update

from verifier.ports import SESSION_ID, Scope, TokenRecord, TokenSpend
from verifier.ports_announcements import Topic
from verifier.store import rows, statements
from verifier.store.announcing import note
from verifier.store.backend import StorePart, changed
from verifier.store.rows import Row
from verifier.store.schema import token
from verifier.store.values import micros

_BY_HASH: Final = statements.TOKEN_BY_HASH


class Tokens(StorePart):
    """The token methods of the `Store` port."""

    async def add_token(self, token_record: TokenRecord) -> None:
        """Keep a new token."""
        await self._change_known(token_record.tenant, insert(token).values(rows.token_values(token_record)))

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

    async def revoke_token(self, tenant: str, token_id: str, now: datetime) -> bool:
        """True when the token exists; it keeps the time it was first revoked."""
        return bool(
            await self._change_known(
                tenant,
                update(token)
                .where(token.c.tenant == tenant, token.c.id == token_id)
                .values(revoked_at=func.coalesce(token.c.revoked_at, micros(now))),
            )
        )

    async def spend_join_token(
        self, secret_hash: bytes, now: datetime
    ) -> tuple[TokenSpend, TokenRecord | None]:
        """Take one use; the record is as it stands afterwards."""
        taken, row = await self._backend.write(
            lambda connection: _spend(connection, secret_hash, micros(now))
        )
        if row is None:
            return TokenSpend.UNKNOWN, None
        found = rows.token_record(row)
        return TokenSpend.ACCEPTED if taken else _refusal(found, now), found

    async def _change_known(self, tenant: str, statement: UpdateBase) -> int:
        """Change what replicas remember of tokens, and tell them."""

        def work(connection: Connection) -> int:
            count = changed(connection, statement)
            if count:
                note(connection, Topic.TOKENS, tenant)
            return count

        return await self._backend.write(work)


def _spend(connection: Connection, secret_hash: bytes, at: int) -> tuple[bool, Row | None]:
    """Whether a use was taken, and the token as it is now."""
    taken = connection.execute(
        update(token)
        .where(
            token.c.secret_hash == secret_hash,
            token.c.revoked_at.is_(None),
            or_(token.c.expires_at.is_(None), token.c.expires_at > at),
            or_(token.c.uses_left.is_(None), token.c.uses_left > 0),
            # As `values.scopes_text` writes it; scopes never change.
            token.c.scopes.contains(f'"{Scope.JOIN.value}"', autoescape=True),
        )
        .values(uses_left=token.c.uses_left - 1, last_used_at=at)
        .returning(*rows.TOKEN_COLUMNS)
    ).first()
    if taken is not None:
        return True, taken
    return False, connection.execute(_BY_HASH.one, {"key": secret_hash}).first()


def _refusal(found: TokenRecord, now: datetime) -> TokenSpend:
    """Why a token that exists was not accepted; the last reason is the one that is left."""
    if found.revoked_at is not None:
        return TokenSpend.REVOKED
    if Scope.JOIN not in found.scopes:
        return TokenSpend.WRONG_SCOPE
    if found.expires_at is not None and found.expires_at <= now:
        return TokenSpend.EXPIRED
    return TokenSpend.USED_UP
