"""The fleet judged again in the background: whoever asked may go away, and a replica that dies is replaced by another.

All that is known of it is a row: how far the pages of `FleetRejudge` have come. A replica claims it for some seconds at a
time. One that dies in the middle of a page leaves it as it was before or after that page; to judge a page again changes
nothing, so whoever goes on may begin with it. Only the counts then lack what had been stored of that page.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog

from verifier.errors import EvidenceError, NotFoundError, VerifierFault
from verifier.ports import Clock, Random, Store
from verifier.ports_enrollment import AuditEntry
from verifier.ports_events import EventKind
from verifier.ports_rejudge import RejudgingRecord
from verifier.service.fleet_rejudge import FleetRejudge, RejudgeCommand, RejudgePage
from verifier.service.ids import new_id
from verifier.service.page_size import FIRST_PAGE, next_size
from verifier.service.policies import LOOKUP_LIFE, PolicyService
from verifier.service.recorder import Recorder
from verifier.service.trial import Untried

LEASE: Final = timedelta(seconds=20)
"""How long nobody goes on after a replica has died. A page takes a second or two; one that takes longer than this may be
begun by another replica too, and whichever ends first goes on: that costs work, and nothing else."""
_LOOK_EVERY: Final = 5.0
_AFTER_FAULT: Final = 5.0
_log = structlog.get_logger("vtpm_attest.rejudgings")


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginCommand:
    """Judge the fleet again in the background; see `RejudgeCommand`."""

    tenant: str
    policy_id: str
    everyone: bool
    actor: str
    reason: str


class Rejudgings:
    """Begins, goes on with, stops and shows them."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        policies: PolicyService,
        pages: FleetRejudge,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._policies = policies
        self._pages = pages
        self._clock = clock
        self._random = random
        self.wake = asyncio.Event()

    async def begin(self, command: BeginCommand) -> RejudgingRecord:
        """From the first attester on; what was under way for this policy ends.

        Raises:
            NotFoundError: no such policy.
        """
        now = self._clock.now()
        policy = await self._policies.get(command.tenant, command.policy_id)
        record = RejudgingRecord(
            tenant=command.tenant,
            policy_id=policy.id,
            id=new_id("rjg", self._random),
            everyone=command.everyone,
            actor=command.actor,
            reason=command.reason,
            started_at=now,
            finished_at=None,
            cursor=None,
            counts={},
            problem=None,
        )
        audit = _audit(record, EventKind.REJUDGING_BEGUN, revision=policy.revision, everyone=command.everyone)
        # By then whoever attests to another replica meets a revision that was registered just now.
        await self._recorder.rejudging_begun(record, now + LOOKUP_LIFE, audit)
        self.wake.set()
        return record

    async def find(self, tenant: str, policy_id: str) -> RejudgingRecord | None:
        """The last one of a policy."""
        return await self._store.rejudging(tenant, policy_id)

    async def unfinished(self, tenant: str) -> tuple[RejudgingRecord, ...]:
        """Those under way, by policy."""
        return await self._store.unfinished_rejudgings(tenant)

    async def get(self, tenant: str, policy_id: str) -> RejudgingRecord:
        """The last one of a policy. Raises `NotFoundError` where there was none."""
        found = await self.find(tenant, policy_id)
        if found is None:
            raise NotFoundError("rejudging of policy", policy_id)
        return found

    async def stop(self, tenant: str, policy_id: str, actor: str) -> None:
        """Judge nobody else again; what was judged stays. Raises `NotFoundError` where nothing is under way."""
        while (found := await self.get(tenant, policy_id)).finished_at is None:
            if await self._end(found, found, f"stopped by {actor}", actor):
                return
        raise NotFoundError("unfinished rejudging of policy", policy_id)

    async def run(self) -> None:
        """Go on with whatever there is, for ever."""
        while True:
            self.wake.clear()
            try:
                while await self.go_on():
                    pass
            except Exception as error:  # noqa: BLE001 - a bug too: nobody waits for this task
                _log.error(
                    "rejudging.put-off", problem=str(error), exc_info=not isinstance(error, VerifierFault)
                )
                await asyncio.sleep(_AFTER_FAULT)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self.wake.wait()

    async def go_on(self) -> bool:
        """Claim one and go through its pages until it is done; False where there is none.

        Raises:
            VerifierFault: the store or the workers cannot answer. It is gone on with when its claim has run out.
        """
        now = self._clock.now()
        record = await self._recorder.rejudging_claimed(now, now + LEASE)
        if record is None:
            return False
        turn, size = asyncio.get_running_loop().time, FIRST_PAGE
        while record is not None:
            begun = turn()
            record = await self._page(record, size)
            size = next_size(size, turn() - begun)
        return True

    async def _page(self, record: RejudgingRecord, size: int) -> RejudgingRecord | None:
        """One page more; None where it has ended, or somebody else has it now."""
        command = RejudgeCommand(
            tenant=record.tenant,
            policy_id=record.policy_id,
            everyone=record.everyone,
            cursor=record.cursor,
            limit=size,
            actor=record.actor,
            reason=record.reason,
        )
        try:
            page = await self._pages.page(command)
        except (EvidenceError, NotFoundError) as error:
            await self._end(record, record, str(error), record.actor)
            return None
        after = replace(record, cursor=page.cursor, counts=_added(record, page))
        if page.cursor is None:
            await self._end(record, after, None, record.actor)
            return None
        done = await self._recorder.rejudging_advanced(record, after, self._clock.now() + LEASE)
        return after if done else None

    async def _end(
        self, before: RejudgingRecord, after: RejudgingRecord, problem: str | None, actor: str
    ) -> bool:
        now = self._clock.now()
        ended = replace(after, finished_at=now, problem=problem)
        audit = _audit(ended, EventKind.REJUDGING_ENDED, problem=problem, **ended.counts)
        return await self._recorder.rejudging_advanced(
            before, ended, now, replace(audit, at=now, actor=actor)
        )


def _added(record: RejudgingRecord, page: RejudgePage) -> dict[str, int]:
    found = {
        "examined": page.examined,
        "stored": page.stored,
        "unjudged": len(page.damaged) + sum(isinstance(one.outcome, Untried) for one in page.trials),
        "moved": page.moved,
        "stale": page.stale,
        "not_selected": page.not_selected,
        "never_attested": page.never_attested,
        "not_heard": page.not_heard,
        **{f"stored_{tier}": count for tier, count in page.tiers.items()},
    }
    names = record.counts.keys() | found.keys()
    return {name: record.counts.get(name, 0) + found.get(name, 0) for name in sorted(names)}


def _audit(record: RejudgingRecord, action: str, **detail: object) -> AuditEntry:
    return AuditEntry(
        tenant=record.tenant,
        at=record.started_at,
        actor=record.actor,
        action=action,
        subject=record.policy_id,
        reason=record.reason,
        detail={"rejudging": record.id, **detail},
    )
