"""The fleet judged again from stored evidence, by the policies in force now: a page at a time, in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from verifier.appraisal.staged import PolicySet
from verifier.policy.assignment import Mode
from verifier.policy.model import Policy
from verifier.ports import (
    AttesterState,
    Clock,
    DamagedState,
    FleetFilter,
    Lifecycle,
    Store,
    VerdictRecord,
    Workers,
)
from verifier.ports_enrollment import AuditEntry
from verifier.ports_runtime import RuntimeReferences
from verifier.service.assignments import AssignmentService
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder
from verifier.service.rejudge_work import JudgingPolicy, RejudgeBatch, Rejudged, rejudge_batch
from verifier.service.stored_cases import Filling, Loaded, StoredCases, run_batches
from verifier.service.trial import DryRunPage, Trial, Untried
from verifier.service.verdicts import lifecycle_at

_PAGES_AT_ONCE: Final = 2
_EVERYONE: Final = FleetFilter()
_Key = tuple[tuple[str, str, Mode], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgeCommand:
    """Judge again whom a policy judges now.

    Attributes:
        policy_id: whose attesters, whether it decides or is tried.
        everyone: all attesters instead, each by its own policies.
        actor: who asks.
        reason: why, for the audit log.
    """

    tenant: str
    policy_id: str
    everyone: bool
    cursor: str | None
    limit: int
    actor: str
    reason: str


@dataclass(slots=True, kw_only=True)
class RejudgePage(DryRunPage):
    """What became of one page of attesters.

    Attributes:
        stale: whose verdict has run out: only the attester itself can make that good.
        moved: for whom another verdict was stored, or who was revoked, while this was judged.
        stored: verdicts appended; one that would say exactly what the last one says is not.
    """

    stale: int = 0
    moved: int = 0
    stored: int = 0
    tiers: dict[str, int] = field(default_factory=dict)
    """Verdicts appended, by tier."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An attester to be judged again, and by what."""

    state: AttesterState
    key: _Key
    policies: tuple[JudgingPolicy, ...]


class FleetRejudge:
    """Replaces verdicts by what the policies in force make of the same evidence. Stateless: a page is told by its cursor.

    A verdict that is judged again says what a fresh attestation with the same evidence would, ends no later than
    before, and keeps the time of its evidence. Where that is missing or damaged, the old verdict stays and is named.
    Attesters that are stale, revoked or retired, or that attest meanwhile, are left alone.
    """

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        policies: PolicyService,
        assignments: AssignmentService,
        workers: Workers,
        clock: Clock,
        references: RuntimeReferences,
        validity_without_policy: timedelta,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._policies = policies
        self._assignments = assignments
        self._workers = workers
        self._clock = clock
        self._references = references
        self._default_validity = validity_without_policy
        self._cases = StoredCases(store)
        self._turns = asyncio.Semaphore(_PAGES_AT_ONCE)

    async def page(self, command: RejudgeCommand) -> RejudgePage:
        """Judge one page of the fleet again, `limit` attesters long, and store what came of it.

        Raises:
            NotFoundError: no such policy.
            EvidenceError: a cursor of another listing.
            VerifierFault: the store, the workers or a stored policy cannot answer. Nothing of this page is stored.
        """
        current = await self._policies.get(command.tenant, command.policy_id)
        page = RejudgePage(policy_id=current.id, revision=current.revision)
        async with self._turns:
            # What was assigned a moment ago on another replica counts already.
            self._policies.forget_current()
            self._assignments.forget(command.tenant)
            now = self._clock.now()
            found = await self._store.survey(
                command.tenant, _EVERYONE, now=now, cursor=command.cursor, limit=command.limit
            )
            page.cursor, page.examined = found.cursor, len(found.items)
            chosen = await self._choose(found.items, command, page, now)
            outcomes = await self._judge(chosen, now)
            await self._record(outcomes, command, page, now)
        page.trials.sort(key=lambda trial: trial.attester_id)
        return page

    async def _choose(
        self,
        states: tuple[AttesterState | DamagedState, ...],
        command: RejudgeCommand,
        page: RejudgePage,
        now: datetime,
    ) -> list[_Chosen]:
        """Those to be judged again; why the others are not is counted."""
        made: dict[tuple[str, str, Mode], JudgingPolicy] = {}
        chosen: list[_Chosen] = []
        for state in states:
            if isinstance(state, DamagedState):
                page.damaged.append(state)
                continue
            policies = await self._assignments.for_attester(state.attester)
            judging = _judging(policies)
            if not command.everyone and command.policy_id not in {policy.id for policy, _ in judging}:
                page.not_selected += 1
            elif _is_left_alone(state, page, now):
                continue
            else:
                key = tuple((policy.id, policy.revision, mode) for policy, mode in judging)
                for one, (policy, mode) in zip(key, judging, strict=True):
                    if one not in made:
                        made[one] = await self._sent(command.tenant, policy, mode)
                chosen.append(_Chosen(state, key, tuple(made[one] for one in key)))
        return chosen

    async def _sent(self, tenant: str, policy: Policy, mode: Mode) -> JudgingPolicy:
        record = await self._policies.get(tenant, policy.id, policy.revision)
        recipe = await self._references.recipe(policy) if self._references.reads(policy) else None
        return JudgingPolicy(source=record.source, mode=mode, recipe=recipe)

    async def _judge(
        self, chosen: list[_Chosen], now: datetime
    ) -> list[tuple[AttesterState, Rejudged | Untried]]:
        outcomes: list[tuple[AttesterState, Rejudged | Untried]] = []

        def take(state: AttesterState, outcome: Rejudged | Untried) -> None:
            outcomes.append((state, outcome))

        await run_batches(self._batches(chosen, now, take), take)
        return outcomes

    async def _batches(
        self, chosen: list[_Chosen], now: datetime, refuse: Callable[[AttesterState, Untried], None]
    ) -> AsyncIterator[tuple[Filling, Callable[[Filling], asyncio.Task[tuple[Rejudged | Untried, ...]]]]]:
        """Batches of those whom the same policies judge."""
        by_id = {one.state.attester.id: one for one in chosen}
        filling: dict[_Key, Filling] = {}
        reading = self._cases.load(
            [one.state for one in chosen],
            lambda state: any(each.recipe is not None for each in by_id[state.attester.id].policies),
        )
        async for state, loaded in reading:
            if not isinstance(loaded, Loaded):
                refuse(state, loaded)
                continue
            one = by_id[state.attester.id]
            batch = filling.setdefault(one.key, Filling())
            if batch.is_full(loaded):
                yield batch, partial(self._start, one.policies, now)
                batch = filling[one.key] = Filling()
            batch.add(state, loaded)
        policies = {one.key: one.policies for one in chosen}
        for key, rest in filling.items():
            yield rest, partial(self._start, policies[key], now)

    def _start(
        self, policies: tuple[JudgingPolicy, ...], now: datetime, filling: Filling
    ) -> asyncio.Task[tuple[Rejudged | Untried, ...]]:
        batch = RejudgeBatch(
            policies=policies,
            cases=tuple(filling.cases),
            logs=filling.logs,
            at=now,
            validity_without_policy=self._default_validity,
        )
        return asyncio.create_task(self._run(batch))

    async def _run(self, batch: RejudgeBatch) -> tuple[Rejudged | Untried, ...]:
        return await self._workers.run(rejudge_batch, batch)

    async def _record(
        self,
        outcomes: list[tuple[AttesterState, Rejudged | Untried]],
        command: RejudgeCommand,
        page: RejudgePage,
        now: datetime,
    ) -> None:
        """Store all new verdicts of the page at once, and count what came of each attester."""
        new = {
            state.attester.id: outcome.verdict
            for state, outcome in outcomes
            if isinstance(outcome, Rejudged) and outcome.verdict is not None
        }
        replaced = {state.attester.id: state.latest for state, _ in outcomes}
        stored: set[str] = set()
        if new:
            audit = _audit(command, page, new, now)
            for record in await self._recorder.rejudged(tuple(new.values()), replaced, audit):
                stored.add(record.attester_id)
                page.tiers[record.tier.label] = page.tiers.get(record.tier.label, 0) + 1
        for state, outcome in outcomes:
            if state.attester.id in new and state.attester.id not in stored:
                page.moved += 1
            else:
                said = outcome.tried if isinstance(outcome, Rejudged) else outcome
                page.trials.append(Trial.of(state.attester, said))
        page.stored = len(stored)


def _judging(policies: PolicySet) -> list[tuple[Policy, Mode]]:
    primary = [] if policies.primary is None else [(policies.primary, Mode.ENFORCE)]
    return [*primary, *((each.policy, each.mode) for each in policies.staged)]


def _is_left_alone(state: AttesterState, page: RejudgePage, now: datetime) -> bool:
    """Whether there is no current verdict to judge again; counts why."""
    if state.latest is None:
        page.never_attested += 1
        return True
    match lifecycle_at(state.attester, state.latest, now):
        case Lifecycle.ENROLLED:
            return False
        case Lifecycle.STALE:
            page.stale += 1
        case _:
            page.not_heard += 1
    return True


def _audit(
    command: RejudgeCommand, page: RejudgePage, new: dict[str, VerdictRecord], now: datetime
) -> AuditEntry:
    return AuditEntry(
        tenant=command.tenant,
        at=now,
        actor=command.actor,
        action="policy.rejudged",
        subject=command.policy_id,
        reason=command.reason,
        detail={
            "revision": page.revision,
            "everyone": command.everyone,
            "examined": page.examined,
            "first": min(new),
            "last": max(new),
        },
    )
