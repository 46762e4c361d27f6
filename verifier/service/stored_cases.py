"""Stored verdicts with the evidence they were made from, gathered into batches for other processes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeVar

from verifier.errors import StoredDataDamaged
from verifier.ports import AttesterState, Store, VerdictRecord
from verifier.reasons import Reason
from verifier.service.bundle import unpack
from verifier.service.ima_stored import judged_list
from verifier.service.lru import BoundedLru
from verifier.service.rejudge import Case
from verifier.service.trial import Untried

BATCH: Final = 50
"""Verdicts sent to another process at once."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of logs in one batch, but for a single larger one."""
_IN_FLIGHT: Final = 3
_LOG_ENTRIES: Final = 256
_LOG_BYTES: Final = 16 * 1024 * 1024

R = TypeVar("R")


class Loaded(NamedTuple):
    """A case and every log it names."""

    case: Case
    logs: Mapping[bytes, bytes]


class StoredCases:
    """Reads verdicts' evidence. Memory is bounded by a small cache of logs, which images share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._logs: BoundedLru[bytes, bytes] = BoundedLru(_LOG_ENTRIES, _LOG_BYTES)

    async def load(
        self, states: Sequence[AttesterState], with_list: Callable[[AttesterState], bool]
    ) -> AsyncIterator[tuple[AttesterState, Loaded | Untried]]:
        """What each latest verdict was made from, in the order of `states`; or why that cannot be had.

        Args:
            states: attesters that have a verdict.
            with_list: whether the IMA list is wanted, where there is one.
        """
        bundles = await asyncio.gather(*map(self._bundle, states))
        for state, case in zip(states, bundles, strict=True):
            if isinstance(case, Untried):
                yield state, case
                continue
            logs = await self._logs_of(case)
            if isinstance(logs, Untried):
                yield state, logs
                continue
            if with_list(state):
                ima_list = await judged_list(self._store, case.verdict, unpack(case.bundle))
                yield state, Loaded(replace(case, ima_list=ima_list), logs)
            else:
                yield state, Loaded(case, logs)

    async def _bundle(self, state: AttesterState) -> Case | Untried:
        verdict = _verdict(state)
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


@dataclass(slots=True)
class Filling:
    """A batch in the making."""

    members: list[AttesterState] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    logs: dict[bytes, bytes] = field(default_factory=dict)
    weight: int = 0

    def is_full(self, loaded: Loaded) -> bool:
        """Whether one more case, with its logs, belongs into another batch."""
        more = self._weight(loaded)
        return len(self.cases) >= BATCH or (bool(self.cases) and self.weight + more > BATCH_BYTES)

    def add(self, state: AttesterState, loaded: Loaded) -> None:
        """Take a case; a log that others share is taken once."""
        self.members.append(state)
        self.cases.append(loaded.case)
        self.weight += self._weight(loaded)
        self.logs.update(loaded.logs)

    def _weight(self, loaded: Loaded) -> int:
        ima = 0 if loaded.case.ima_list is None else len(loaded.case.ima_list)
        return ima + sum(len(log) for digest, log in loaded.logs.items() if digest not in self.logs)


async def run_batches(
    batches: AsyncIterator[tuple[Filling, Callable[[Filling], asyncio.Task[tuple[R, ...]]]]],
    take: Callable[[AttesterState, R], None],
) -> None:
    """Run all, a few at a time, and hand over what came of each attester."""
    running: deque[tuple[Filling, asyncio.Task[tuple[R, ...]]]] = deque()

    async def finish() -> None:
        filling, task = running.popleft()
        for state, outcome in zip(filling.members, await task, strict=True):
            take(state, outcome)

    try:
        async for filling, start in batches:
            if len(running) == _IN_FLIGHT:
                await finish()
            running.append((filling, start(filling)))
        while running:
            await finish()
    finally:
        for _, task in running:
            task.cancel()


def _verdict(state: AttesterState) -> VerdictRecord:
    if state.latest is None:
        raise AssertionError("only attesters with a verdict are judged again")
    return state.latest


def _missing(what: str, digest: bytes) -> Untried:
    return Untried(code=Reason.EVIDENCE_UNAVAILABLE, detail=f"{what} {digest.hex()} is not stored any more")
