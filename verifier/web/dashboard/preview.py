"""What a policy would make of the fleet, for a page: tried within a bounded time, counted before and after."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from verifier.reasons import Tier
from verifier.service.dry_run import DryRunService, Selection
from verifier.service.trial import DryRunPage, Trial, Tried
from verifier.web.dry_run_messages import DryRunChange, DryRunReply, Tally, reply

ENOUGH: Final = 5.0
"""Seconds after which no further attesters are looked at; a form leads on."""
LONGEST: Final = 20.0
"""Seconds after which those that are being looked at are given up."""
SHOWN: Final = 200
"""Guests and reasons listed; how many more there are is told."""
_ORDER: Final = {"worse": 0, "better": 1, "other-reasons": 2}
_STEP: Final = 100
_SLICE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many guests are in one state, before and after. Neither counts who could not be judged again."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What was found. `slow`: it was given up at `reply.cursor`, or before anything was found.

    `changes`: those of the reply that are shown, whoever would fare worse first.
    """

    reply: DryRunReply
    changes: tuple[DryRunChange, ...]
    standings: tuple[Standing, ...]
    slow: bool


async def preview(
    service: DryRunService,
    tenant: str,
    policy_id: str,
    source: str,
    selection: Selection,
    cursor: str | None,
) -> Preview:
    """Try `source` on attesters from `cursor` on, until time is up.

    Raises:
        PolicyError, EvidenceError, VerifierFault: as `DryRunService.page`.
    """
    began, slow = time.monotonic(), False
    found: DryRunPage | None = None
    while True:
        try:
            async with asyncio.timeout(LONGEST - (time.monotonic() - began)):
                page = await service.page(tenant, policy_id, source, selection, cursor, _STEP)
        except TimeoutError:
            slow = True
            break
        found = page if found is None else _joined(found, page)
        cursor = page.cursor
        if cursor is None or time.monotonic() - began >= ENOUGH:
            break
    if found is None:
        found = DryRunPage(policy_id=policy_id, revision="", cursor=cursor)
    answer = reply(found, await _tally(found))
    shown = heapq.nsmallest(SHOWN, answer.changes, key=lambda one: _ORDER[one.change])
    return Preview(reply=answer, changes=tuple(shown), standings=standings(found.trials), slow=slow)


def _joined(one: DryRunPage, other: DryRunPage) -> DryRunPage:
    return DryRunPage(
        policy_id=one.policy_id,
        revision=one.revision,
        examined=one.examined + other.examined,
        not_selected=one.not_selected + other.not_selected,
        never_attested=one.never_attested + other.never_attested,
        not_heard=one.not_heard + other.not_heard,
        trials=[*one.trials, *other.trials],
        damaged=[*one.damaged, *other.damaged],
        cursor=other.cursor,
    )


async def _tally(found: DryRunPage) -> Tally:
    """With turns for others on the event loop."""
    tally = Tally()
    for number, trial in enumerate(found.trials, 1):
        tally.add(trial)
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return tally


def standings(trials: Sequence[Trial]) -> tuple[Standing, ...]:
    """Every state, the best first. A guest without a verdict to compare with counts after, not before."""
    outcomes = [trial.outcome for trial in trials if isinstance(trial.outcome, Tried)]
    before = Counter(outcome.before for outcome in outcomes)
    after = Counter(outcome.tier for outcome in outcomes)
    order = (Tier.AFFIRMING, Tier.WARNING, Tier.CONTRAINDICATED, Tier.NONE)
    return tuple(Standing(name=tier.label, before=before[tier], after=after[tier]) for tier in order)
