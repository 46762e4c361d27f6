"""What the fleet runs that no runtime set knows: unknown files over many lists, to be looked at by a person."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from verifier.errors import StoredDataDamaged
from verifier.policy.model import Policy
from verifier.ports import AttesterState, Clock, DamagedState, FleetFilter, Store, Workers
from verifier.ports_ima import BootKey
from verifier.ports_runtime import RuntimeReferences
from verifier.service.assignments import AssignmentService
from verifier.service.ima_record import ImaRecord, read_record
from verifier.service.ima_stored import stored_list
from verifier.service.ima_work import Unreadable
from verifier.service.triage_work import TriageWork, UnknownEntry, unknown_entries

EXAMPLES: Final = 5
"""Attesters named with each entry."""


@dataclass(slots=True)
class Seen:
    """On how many attesters of the page an entry was found, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class TriagePage:
    """What was found on one page of attesters.

    Attributes:
        examined: attesters looked at.
        affected: those of them whose list has unknown entries.
        unread: those whose list is not kept whole any more, or cannot be read; what they run is not told here.
        entries: in the order in which they were first met.
        cursor: where to go on; None at the end.
    """

    examined: int = 0
    affected: int = 0
    unread: list[str] = field(default_factory=list)
    entries: dict[UnknownEntry, Seen] = field(default_factory=dict)
    cursor: str | None = None


class RuntimeTriage:
    """Goes through the lists of a page of attesters, one at a time and in other processes.

    A list is looked through only where its last judgement counted unknown files, so a fleet in order costs one read of
    its rows.
    """

    def __init__(
        self,
        *,
        store: Store,
        assignments: AssignmentService,
        references: RuntimeReferences,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._store = store
        self._assignments = assignments
        self._references = references
        self._workers = workers
        self._clock = clock
        self._turn = asyncio.Lock()

    async def page(
        self, tenant: str, label: tuple[str, str] | None, cursor: str | None, limit: int
    ) -> TriagePage:
        """Unknown entries of one page of the fleet, `limit` attesters long, by the policies that judge them now.

        Raises:
            EvidenceError: a cursor of another listing.
            VerifierFault: the store, a runtime set or the workers cannot answer.
        """
        found = TriagePage()
        async with self._turn:
            page = await self._store.survey(
                tenant, FleetFilter(label=label), now=self._clock.now(), cursor=cursor, limit=limit
            )
            found.cursor, found.examined = page.cursor, len(page.items)
            for state in page.items:
                # A listing says nothing of lists.
                await self._look_at(_id_of(state), found)
        return found

    async def _look_at(self, attester_id: str, found: TriagePage) -> None:
        try:
            state = await self._store.attester_state(attester_id)
        except StoredDataDamaged:
            found.unread.append(attester_id)
            return
        if state is not None:
            await self._look(state, found)

    async def _look(self, state: AttesterState, found: TriagePage) -> None:
        record = _record(state)
        if record is None or not _has_unknown(record):
            return
        policy = (await self._assignments.for_attester(state.attester)).primary
        if policy is None or not self._references.reads(policy):
            return
        entries = await self._entries(state, record, policy)
        if entries is None:
            found.unread.append(state.attester.id)
            return
        found.affected += bool(entries)
        for entry in entries:
            seen = found.entries.setdefault(entry, Seen())
            seen.count += 1
            if len(seen.examples) < EXAMPLES:
                seen.examples.append(state.attester.id)

    async def _entries(
        self, state: AttesterState, record: ImaRecord, policy: Policy
    ) -> tuple[UnknownEntry, ...] | None:
        boot, attester = state.boot, state.attester
        if boot is None:
            return None
        key = BootKey(attester_id=attester.id, clock=boot.clock, boot_log_sha256=boot.boot_log_sha256)
        content = await stored_list(self._store, attester.tenant, key, record.proven)
        if content is None:
            return None
        recipe = await self._references.recipe(policy)
        work = TriageWork(recipe=recipe, data=pickle.PickleBuffer(content))
        done = await self._workers.run(unknown_entries, work)
        return None if isinstance(done, Unreadable) else done


def _id_of(state: AttesterState | DamagedState) -> str:
    return state.attester.id if isinstance(state, AttesterState) else state.attester_id


def _record(state: AttesterState) -> ImaRecord | None:
    boot = state.boot
    if boot is None or boot.ima is None:
        return None
    try:
        return read_record(boot.ima)
    except StoredDataDamaged:
        return None


def _has_unknown(record: ImaRecord) -> bool:
    counts = [state.summary.counts for state in record.states.values()]
    return any(each.unknown or each.wrong for each in counts)


def merged(pages: Mapping[UnknownEntry, Seen]) -> list[tuple[UnknownEntry, Seen]]:
    """Entries by package, then by how many attesters have them, then by path."""
    return sorted(
        pages.items(), key=lambda item: (item[0].package or "~", -item[1].count, item[0].path, item[0].digest)
    )
