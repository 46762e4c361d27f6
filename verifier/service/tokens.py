"""Join tokens and scoped API tokens: 32 random bytes, known to the store by SHA-256 alone.

A fast hash is right here: the secrets are random, so there is nothing to guess, and a check must cost
microseconds (a slow one would be a way to exhaust the service).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from verifier.errors import NotFoundError, RefusedError
from verifier.ports import SESSION_ID, TENANT_NAME, Clock, Random, Scope, Store, TokenRecord
from verifier.reasons import Reason
from verifier.service.ids import new_id
from verifier.service.recorder import Recorder

_SECRET_BYTES: Final = 32
_BASE64URL_32: Final = r"[A-Za-z0-9_-]{43}"
_JOIN: Final = re.compile(rf"^vtj1\.({_BASE64URL_32})(?:\.{_BASE64URL_32})?$")
_API: Final = re.compile(rf"^vta1\.({_BASE64URL_32})$")
_CACHE_LIFE: Final = timedelta(seconds=5)
_CACHE_SIZE: Final = 4096


def is_session(token: TokenRecord) -> bool:
    """Whether it is that of a person's session."""
    return token.id.startswith(f"{SESSION_ID}-")


def join_secret_hash(text: str) -> bytes:
    """SHA-256 of the secret in `vtj1.<secret>[.<CA fingerprint>]`; raises `RefusedError` for anything else."""
    return _secret_hash(_JOIN, text, Reason.JOIN_TOKEN_INVALID, "not a join token (vtj1.…)")


def api_secret_hash(text: str) -> bytes:
    """SHA-256 of the secret in `vta1.<secret>`; raises `RefusedError` for anything else."""
    return _secret_hash(_API, text, Reason.UNAUTHENTICATED, "not an API token (vta1.…)")


def _secret_hash(pattern: re.Pattern[str], text: str, reason: Reason, otherwise: str) -> bytes:
    found = pattern.match(text)
    if found is None:
        raise RefusedError(reason, otherwise)
    return hashlib.sha256(base64.urlsafe_b64decode(found[1] + "=")).digest()


def used_up() -> RefusedError:
    """What a machine is told that comes too late."""
    return _no_join_token("this join token has no uses left")


def _no_join_token(why: str) -> RefusedError:
    return RefusedError(Reason.JOIN_TOKEN_INVALID, why)


class TokenService:
    """Make, list, revoke and check tokens."""

    def __init__(
        self, store: Store, recorder: Recorder, clock: Clock, random: Random, ca_fingerprint: bytes | None
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._random = random
        self._ca_fingerprint = ca_fingerprint
        self._changes = 0
        self._cache: OrderedDict[bytes, tuple[datetime, TokenRecord | None]] = OrderedDict()

    async def create(
        self,
        *,
        tenant: str,
        scopes: frozenset[Scope],
        label: str,
        lifetime: timedelta | None,
        uses: int | None,
        actor: str,
    ) -> tuple[TokenRecord, str]:
        """A new token and its text, which exists nowhere else and cannot be shown again.

        Raises:
            RefusedError: no scope, or `join` beside others (a guest's token must open nothing else), or a
                use count on a token that is not for joining; no name of a tenant.
        """
        if not TENANT_NAME.fullmatch(tenant):
            raise RefusedError(
                Reason.MALFORMED_REQUEST,
                f"{tenant!r} is no name of a tenant: 1 to 64 letters, digits, dots, dashes and underscores, no sign first",
            )
        joins = Scope.JOIN in scopes
        if not scopes or (joins and len(scopes) > 1):
            raise RefusedError(Reason.MALFORMED_REQUEST, "a token has API scopes, or `join` alone")
        if uses is not None and not joins:
            raise RefusedError(Reason.MALFORMED_REQUEST, "only join tokens have a use count")
        secret = self._random.bytes(_SECRET_BYTES)
        now = self._clock.now()
        record = TokenRecord(
            id=new_id("tok", self._random),
            tenant=tenant,
            secret_hash=hashlib.sha256(secret).digest(),
            scopes=scopes,
            label=label,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            uses_left=uses,
        )
        await self._recorder.token_added(record, actor)
        return record, self._text(secret, joins=joins)

    async def begin_session(
        self, *, tenant: str, scopes: frozenset[Scope], label: str, lifetime: timedelta, actor: str
    ) -> TokenRecord:
        """The token of a person's session. Nobody is told its secret: only a session can be begun with its hash."""
        now = self._clock.now()
        record = TokenRecord(
            id=new_id(SESSION_ID, self._random),
            tenant=tenant,
            secret_hash=hashlib.sha256(self._random.bytes(_SECRET_BYTES)).digest(),
            scopes=scopes,
            label=label,
            created_at=now,
            expires_at=now + lifetime,
        )
        await self._recorder.token_added(record, actor)
        return record

    def _text(self, secret: bytes, *, joins: bool) -> str:
        if not joins:
            return f"vta1.{_b64(secret)}"
        # The fingerprint lets the agent pin the CA from the first connection on.
        return ".".join(
            ["vtj1", _b64(secret), *([_b64(self._ca_fingerprint)] if self._ca_fingerprint else [])]
        )

    async def list(self, tenant: str) -> tuple[TokenRecord, ...]:
        """Every token of the tenant, revoked and expired ones too."""
        return await self._store.list_tokens(tenant)

    async def revoke(self, tenant: str, token_id: str, actor: str) -> None:
        """Effective at once, on replicas that are not told of it within 5 s. Raises `NotFoundError`."""
        if not await self._recorder.token_revoked(tenant, token_id, self._clock.now(), actor):
            raise NotFoundError("token", token_id)
        self.forget()

    def forget(self) -> None:
        """Look again what each token may do."""
        self._changes += 1
        self._cache.clear()

    async def authenticate(self, text: str) -> TokenRecord:
        """The API token this text is the secret of.

        Raises:
            RefusedError: `unauthenticated` when it is unknown, expired or revoked.
        """
        return await self.resume(api_secret_hash(text))

    def remembers(self, text: str) -> bool:
        """Whether there was such a token when it was looked up last."""
        try:
            cached = self._cache.get(api_secret_hash(text))
        except RefusedError:
            return False
        return cached is not None and cached[1] is not None

    async def resume(self, secret_hash: bytes) -> TokenRecord:
        """The API token with this hash, for a session that began with its secret; refuses as `authenticate` does."""
        record = await self._lookup(secret_hash, now := self._clock.now())
        if record is None:
            raise RefusedError(Reason.UNAUTHENTICATED, "this token is not known")
        if record.revoked_at is not None:
            raise RefusedError(Reason.UNAUTHENTICATED, "this token was revoked")
        if record.expires_at is not None and now >= record.expires_at:
            raise RefusedError(Reason.UNAUTHENTICATED, "this token has expired")
        return record

    async def check_join(self, secret_hash: bytes) -> TokenRecord:
        """The join token, or a refusal if it is not good; spends nothing: before any costly work.

        Whether a use is left is not asked: a machine that asks again has paid.
        """
        record = await self._store.token_by_hash(secret_hash)
        now = self._clock.now()
        if record is None:
            raise _no_join_token("this join token is not known")
        if Scope.JOIN not in record.scopes:
            raise _no_join_token("this token does not have the scope `join`")
        if record.revoked_at is not None:
            raise _no_join_token("this join token was revoked")
        if record.expires_at is not None and now >= record.expires_at:
            raise _no_join_token("this join token has expired")
        return record

    async def _lookup(self, secret_hash: bytes, now: datetime) -> TokenRecord | None:
        cached = self._cache.get(secret_hash)
        if cached is not None and timedelta(0) <= now - cached[0] < _CACHE_LIFE:
            return cached[1]
        changes = self._changes
        record = await self._store.token_by_hash(secret_hash)
        if changes != self._changes:
            return record  # changed while it was read: not to be kept
        self._cache[secret_hash] = (now, record)
        self._cache.move_to_end(secret_hash)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return record


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
