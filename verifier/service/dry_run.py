"""Dry run: what a policy would make of the fleet, from stored evidence. Nothing is stored or changed by it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from verifier.errors import PolicyError, StoredDataDamaged
from verifier.policy.model import Policy
from verifier.policy.source import parse_source
from verifier.ports import (
    AttesterState,
    Clock,
    DamagedState,
    FleetFilter,
    Lifecycle,
    Store,
    Workers,
)
from verifier.ports_runtime import Recipe, RuntimeReferences
from verifier.reasons import Reason
from verifier.service.assignments import AssignmentService
from verifier.service.bundle import unpack
from verifier.service.ima_stored import judged_list
from verifier.service.lru import BoundedLru
from verifier.service.policies import check_sets
from verifier.service.rejudge import Case
from verifier.service.trial import Batch, DryRunPage, Outcome, Trial, Untried, try_batch

BATCH: Final = 50
"""Verdicts sent to another process at once."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of logs in one batch, but for a single larger one."""
_IN_FLIGHT: Final = 3
_PAGES_AT_ONCE: Final = 2
_LOG_ENTRIES: Final = 256
_LOG_BYTES: Final = 16 * 1024 * 1024
_POLICIES: Final = 8
_GONE: Final = frozenset({Lifecycle.REVOKED, Lifecycle.RETIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Whose verdicts to try the policy on.

    Attributes:
        label: only attesters with this one.
        assigned: only attesters that this policy judges now, whether it decides or is tried.
    """

    label: tuple[str, str] | None = None
    assigned: str | None = None


class DryRunService:
    """Judges the newest evidence of attesters by a policy that is not in force, a page at a time.

    Memory is bounded by a page of verdicts, a few batches of logs, and a small cache of logs that images share. The
    judging happens in other processes, so attestations do not wait for it.
    """

    def __init__(
        self,
        *,
        store: Store,
        assignments: AssignmentService,
        workers: Workers,
        clock: Clock,
        references: RuntimeReferences,
    ) -> None:
        self._references = references
        self._store = store
        self._assignments = assignments
        self._workers = workers
        self._clock = clock
        self._turns = asyncio.Semaphore(_PAGES_AT_ONCE)
        self._logs: BoundedLru[bytes, bytes] = BoundedLru(_LOG_ENTRIES, _LOG_BYTES)
        self._parsed: OrderedDict[bytes, Policy] = OrderedDict()

    async def page(
        self, tenant: str, policy_id: str, source: str, selection: Selection, cursor: str | None, limit: int
    ) -> DryRunPage:
        """What `source` would make of one page of the fleet, `limit` attesters long.

        The policy need not be stored, nor be signed by anyone: it judges nothing.

        Raises:
            PolicyError: the policy must not be used, or has another id than `policy_id`.
            EvidenceError: a cursor of another listing.
            VerifierFault: the store or the workers cannot answer. Evidence that is damaged is told and passed over.
        """
        policy = await self._read(source)
        if policy.id != policy_id:
            raise PolicyError(f"this is policy {policy.id!r}, and the path names {policy_id!r}", where="id")
        found = DryRunPage(policy_id=policy.id, revision=policy.revision)
        async with self._turns:
            page = await self._store.survey(
                tenant, FleetFilter(label=selection.label), now=self._clock.now(), cursor=cursor, limit=limit
            )
            found.cursor, found.examined = page.cursor, len(page.items)
            chosen = [state for state in page.items if await self._chosen(state, selection, found)]
            tried = _Tried(source, await self._recipe(policy))
            await self._try(tried, [state for state in chosen if isinstance(state, AttesterState)], found)
        found.trials.sort(key=lambda trial: trial.attester_id)
        return found

    async def _read(self, source: str) -> Policy:
        """Parse beside the event loop, once for all pages."""
        key = hashlib.sha256(source.encode()).digest()
        policy = self._parsed.get(key)
        if policy is None:
            policy = self._parsed[key] = await asyncio.to_thread(parse_source, source)
            while len(self._parsed) > _POLICIES:
                self._parsed.popitem(last=False)
        return policy

    async def _chosen(
        self, state: AttesterState | DamagedState, selection: Selection, found: DryRunPage
    ) -> bool:
        """Whether there is a verdict to try; if not, why not is counted."""
        if isinstance(state, DamagedState):
            found.damaged.append(state)
            return False
        if selection.assigned is not None:
            judging = await self._assignments.resolution(state.attester)
            names = {each.policy.id for each in judging.staged}
            if judging.primary is not None:
                names.add(judging.primary.id)
            if selection.assigned not in names:
                found.not_selected += 1
                return False
        if state.attester.lifecycle in _GONE:
            found.not_heard += 1
        elif state.latest is None:
            found.never_attested += 1
        else:
            return True
        return False

    async def _recipe(self, policy: Policy) -> Recipe | None:
        await check_sets(self._references, policy)
        return await self._references.recipe(policy) if self._references.reads(policy) else None

    async def _try(self, tried: _Tried, states: Sequence[AttesterState], found: DryRunPage) -> None:
        """Try all, a few batches at a time."""
        running: deque[tuple[list[AttesterState], asyncio.Task[tuple[Outcome, ...]]]] = deque()
        try:
            async for members, batch in self._batches(tried, states, found):
                if len(running) == _IN_FLIGHT:
                    await _finish(*running.popleft(), found)
                running.append((members, asyncio.create_task(self._workers.run(try_batch, batch))))
            while running:
                await _finish(*running.popleft(), found)
        finally:
            for _, task in running:
                task.cancel()

    async def _batches(
        self, tried: _Tried, states: Sequence[AttesterState], found: DryRunPage
    ) -> AsyncIterator[tuple[list[AttesterState], Batch]]:
        filling = _Filling()
        for state, bundle in zip(states, await asyncio.gather(*map(self._bundle, states)), strict=True):
            if isinstance(bundle, Untried):
                found.trials.append(Trial.of(state.attester, bundle))
                continue
            logs = await self._logs_of(bundle)
            if isinstance(logs, Untried):
                found.trials.append(Trial.of(state.attester, logs))
                continue
            case = bundle
            if tried.recipe is not None:
                ima_list = await judged_list(self._store, case.verdict, unpack(case.bundle))
                case = replace(case, ima_list=ima_list)
            if filling.is_full(case, logs):
                yield filling.members, filling.batch(tried)
                filling = _Filling()
            filling.add(state, case, logs)
        if filling.members:
            yield filling.members, filling.batch(tried)

    async def _bundle(self, state: AttesterState) -> Case | Untried:
        verdict = state.latest
        if verdict is None:
            raise AssertionError("only attesters with a verdict are tried")
        try:
            bundle = await self._store.blob(verdict.evidence_sha256)
        except StoredDataDamaged as error:
            return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
        if bundle is None:
            return _missing("evidence", verdict.evidence_sha256)
        return Case(verdict=verdict, bundle=bundle)

    async def _logs_of(self, case: Case) -> dict[bytes, bytes] | Untried:
        """Every log that the evidence names."""
        logs: dict[bytes, bytes] = {}
        try:
            digests = unpack(case.bundle).logs
        except StoredDataDamaged as error:
            return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
        for digest in digests:
            log = await self._log(digest)
            if isinstance(log, Untried):
                return log
            logs[digest] = log
        return logs

    async def _log(self, digest: bytes) -> bytes | Untried:
        log = self._logs.get(digest)
        if log is not None:
            return log
        try:
            log = await self._store.blob(digest)
        except StoredDataDamaged as error:
            return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=str(error))
        if log is None:
            return _missing("log", digest)
        self._logs.put(digest, log, len(log))
        return log


class _Tried(NamedTuple):
    """The policy as other processes get it."""

    source: str
    recipe: Recipe | None


@dataclass(slots=True)
class _Filling:
    """A batch in the making."""

    members: list[AttesterState] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    logs: dict[bytes, bytes] = field(default_factory=dict)
    weight: int = 0

    def is_full(self, case: Case, logs: Mapping[bytes, bytes]) -> bool:
        """Whether one more case, with its logs, belongs into another batch."""
        more = self._weight(case, logs)
        return len(self.cases) >= BATCH or (bool(self.cases) and self.weight + more > BATCH_BYTES)

    def add(self, state: AttesterState, case: Case, logs: Mapping[bytes, bytes]) -> None:
        """Take a case; a log that others share is taken once."""
        self.members.append(state)
        self.cases.append(case)
        self.weight += self._weight(case, logs)
        self.logs.update(logs)

    def batch(self, tried: _Tried) -> Batch:
        """What was gathered, to be sent away."""
        return Batch(source=tried.source, recipe=tried.recipe, cases=tuple(self.cases), logs=self.logs)

    def _weight(self, case: Case, logs: Mapping[bytes, bytes]) -> int:
        ima = 0 if case.ima_list is None else len(case.ima_list)
        return ima + sum(len(log) for digest, log in logs.items() if digest not in self.logs)


async def _finish(
    members: Sequence[AttesterState], task: asyncio.Task[tuple[Outcome, ...]], found: DryRunPage
) -> None:
    for state, outcome in zip(members, await task, strict=True):
        found.trials.append(Trial.of(state.attester, outcome))


def _missing(what: str, digest: bytes) -> Untried:
    return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=f"{what} {digest.hex()} is not stored any more")
