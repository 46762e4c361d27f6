"""Policies: registered as immutable revisions, looked up for an attester, assigned."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from verifier.errors import NotFoundError, PolicyError, StoredDataDamaged
from verifier.policy.assignment import PolicyRef
from verifier.policy.dsse import PolicySigners
from verifier.policy.model import Policy
from verifier.policy.source import parse_source
from verifier.ports import Clock, PolicyRecord, Store
from verifier.ports_observe import CacheState
from verifier.ports_runtime import RuntimeReferences, SetMissing
from verifier.service.recorder import Recorder
from verifier.service.together import Together

LOOKUP_LIFE: Final = timedelta(seconds=2)
"""For so long another replica's new revision may go unnoticed where replicas are not told (`Announcements`)."""
_PARSED: Final = 256
_LOOKUPS: Final = 1024


async def check_sets(references: RuntimeReferences | None, policy: Policy) -> None:
    """Refuse a policy that somebody brings and that names a runtime set which is not here."""
    if references is not None and references.reads(policy):
        try:
            await references.recipe(policy)
        except SetMissing as error:
            raise PolicyError(f"{error}; put the file there first", where="runtime") from error


class PolicyService:
    """Keeps parsed revisions (immutable, by digest) and, for 2 s, which revision is current.

    A replica that is not told of what others change may therefore judge by the previous revision for 2 s after another
    one registered a new one; the verdict names the revision it was judged by.

    With `signers` no policy is used that none of them signed, not even a stored one: what was submitted is stored
    with its signatures, and they are checked again when it is read.
    """

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        clock: Clock,
        signers: PolicySigners | None = None,
        references: RuntimeReferences | None = None,
    ) -> None:
        self._references = references
        self._signers = signers
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._parsed: OrderedDict[tuple[str, str], Policy] = OrderedDict()
        self._current: OrderedDict[tuple[str, str], tuple[datetime, Policy | None]] = OrderedDict()
        self._changes = 0
        self._reading: Together[tuple[tuple[str, str], int], Policy | None] = Together()
        self._hits = 0
        self._misses = 0

    @property
    def cache(self) -> CacheState:
        """Policies found at hand, and read from the store."""
        return CacheState(self._hits, self._misses, len(self._parsed))

    async def register(self, tenant: str, source: bytes, actor: str, *, current: bool = True) -> PolicyRecord:
        """Check a policy document and make it the current revision of its id, or keep it beside that one.

        Kept beside, it judges only where an assignment names it. The first revision of an id is always current.

        Raises:
            PolicyError: the document must not be used, is not signed as it has to be, or names a runtime set that is
                not here; nothing is stored.
        """
        text = _text(source)
        policy = await asyncio.to_thread(self.read, source)
        await check_sets(self._references, policy)
        record = PolicyRecord(
            id=policy.id, tenant=tenant, revision=policy.revision, source=text, created_at=self._clock.now()
        )
        await self._recorder.policy_added(record, actor, current=current)
        self.forget_current()
        return record

    def read(self, source: bytes) -> Policy:
        """Check a policy document without keeping it; raises `PolicyError` as `register` does."""
        return parse_source(_text(source), self._signers)

    async def get(self, tenant: str, policy_id: str, revision: str | None = None) -> PolicyRecord:
        """A revision; None: the current one. Raises `NotFoundError`."""
        if revision is None:
            record = await self._store.current_policy(tenant, policy_id)
        else:
            record = await self._store.policy_revision(tenant, policy_id, revision)
        if record is None:
            raise NotFoundError("policy", policy_id if revision is None else f"{policy_id}@{revision}")
        return record

    async def revisions(self, tenant: str, policy_id: str) -> tuple[PolicyRecord, ...]:
        """Every revision of a policy, the current one first; raises `NotFoundError`."""
        found = await self._store.policy_revisions(tenant, policy_id)
        if not found:
            raise NotFoundError("policy", policy_id)
        return found

    async def exists(self, tenant: str, policy: PolicyRef) -> None:
        """Raises `NotFoundError` for what cannot be assigned: an id without a revision, or an unknown revision."""
        if policy.revision is None:
            await self.get(tenant, policy.id)
        elif await self._store.policy_revision(tenant, policy.id, policy.revision) is None:
            raise NotFoundError("revision of policy", f"{policy.id}@{policy.revision}")

    async def list(self, tenant: str) -> tuple[PolicyRecord, ...]:
        """The current revision of every policy."""
        return await self._store.list_policies(tenant)

    async def assign(self, tenant: str, attester_id: str, policy_id: str | None, actor: str) -> None:
        """Let `policy_id` (None: the default) judge this attester from its next attestation on.

        Raises:
            NotFoundError: no such policy or attester. A policy that does not exist cannot be assigned.
        """
        if policy_id is not None:
            await self.get(tenant, policy_id)
        if not await self._recorder.policy_assigned(tenant, attester_id, policy_id, actor, self._clock.now()):
            raise NotFoundError("attester", attester_id)

    async def load(self, tenant: str, policy: PolicyRef) -> Policy | None:
        """The policy a reference stands for now; None when there is none.

        Raises:
            StoredDataDamaged: the stored revision cannot be read. That is our fault and never a verdict.
        """
        if policy.revision is not None:
            return await self._pinned(tenant, policy.id, policy.revision)
        key, now = (tenant, policy.id), self._clock.now()
        cached = self._current.get(key)
        if cached is not None and timedelta(0) <= now - cached[0] < LOOKUP_LIFE:
            self._hits += 1
            return cached[1]
        self._misses += 1
        return await self._reading.read((key, self._changes), lambda: self._read_current(key, now))

    async def _read_current(self, key: tuple[str, str], now: datetime) -> Policy | None:
        changes = self._changes
        record = await self._store.current_policy(*key)
        found = None if record is None else await self._parse(record)
        if changes != self._changes:
            return found  # changed while it was read: true for whoever asked, and not to be kept
        self._current[key] = (now, found)
        self._current.move_to_end(key)
        if len(self._current) > _LOOKUPS:
            self._current.popitem(last=False)
        return found

    def forget_current(self) -> None:
        """Look again which revisions are current: another replica's change counts at once."""
        self._changes += 1
        self._current.clear()

    async def _pinned(self, tenant: str, policy_id: str, revision: str) -> Policy | None:
        known = self._parsed.get((tenant, revision))
        if known is not None and known.id == policy_id:
            self._hits += 1
            return known
        self._misses += 1
        record = await self._store.policy_revision(tenant, policy_id, revision)
        return None if record is None else await self._parse(record)

    async def _parse(self, record: PolicyRecord) -> Policy:
        key = (record.tenant, record.revision)
        if key in self._parsed:
            self._parsed.move_to_end(key)
            return self._parsed[key]
        try:
            # Some are large enough to keep everybody waiting.
            policy = await asyncio.to_thread(parse_source, record.source, self._signers)
        except PolicyError as error:
            raise StoredDataDamaged(f"stored policy {record.id} ({record.revision}): {error}") from error
        if policy.revision != record.revision:
            raise StoredDataDamaged(f"stored policy {record.id} does not match its digest {record.revision}")
        self._parsed[key] = policy
        if len(self._parsed) > _PARSED:
            self._parsed.popitem(last=False)
        return policy


def _text(source: bytes) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise PolicyError(f"not UTF-8 at byte {error.start}") from error
