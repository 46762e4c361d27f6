"""Dry run: what a policy would make of the fleet, from stored evidence. Nothing is stored or changed by it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from verifier.errors import PolicyError
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
from verifier.service.assignments import AssignmentService
from verifier.service.policies import check_sets
from verifier.service.stored_cases import Filling, Loaded, StoredCases, run_batches
from verifier.service.trial import Batch, DryRunPage, Outcome, Trial, Untried, try_batch

_PAGES_AT_ONCE: Final = 2
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
        self._cases = StoredCases(store)
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

        def take(state: AttesterState, outcome: Outcome) -> None:
            found.trials.append(Trial.of(state.attester, outcome))

        await run_batches(self._batches(tried, states, take), take)

    async def _batches(
        self,
        tried: _Tried,
        states: Sequence[AttesterState],
        refuse: Callable[[AttesterState, Untried], None],
    ) -> AsyncIterator[tuple[Filling, Callable[[Filling], asyncio.Task[tuple[Outcome, ...]]]]]:
        filling, start = Filling(), partial(self._start, tried)
        async for state, loaded in self._cases.load(states, lambda _: tried.recipe is not None):
            if not isinstance(loaded, Loaded):
                refuse(state, loaded)
                continue
            if filling.is_full(loaded):
                yield filling, start
                filling = Filling()
            filling.add(state, loaded)
        if filling.members:
            yield filling, start

    def _start(self, tried: _Tried, filling: Filling) -> asyncio.Task[tuple[Outcome, ...]]:
        batch = Batch(source=tried.source, recipe=tried.recipe, cases=tuple(filling.cases), logs=filling.logs)
        return asyncio.create_task(self._run(batch))

    async def _run(self, batch: Batch) -> tuple[Outcome, ...]:
        return await self._workers.run(try_batch, batch)


class _Tried(NamedTuple):
    """The policy as other processes get it."""

    source: str
    recipe: Recipe | None
