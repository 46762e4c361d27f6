"""The way of an IMA list through an attestation: from what was sent to what is held of the boot afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple

from msgspec import structs

from verifier.appraisal.alike import of_this
from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES, check_quote
from verifier.appraisal.evidence import Evidence, Expectation
from verifier.appraisal.ima.judge import Continuity, ImaOutcome, judge
from verifier.appraisal.ima.state import INITIAL
from verifier.appraisal.ima_race import PcrValues
from verifier.appraisal.runtime import not_sent
from verifier.appraisal.staged import PolicySet
from verifier.claims import QuoteFacts
from verifier.errors import RefusedError, StoredDataDamaged, VerifierFault
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference
from verifier.ports import AttesterState, Store, Workers
from verifier.ports_ima import BootKey, ImaPiece
from verifier.ports_runtime import Recipe, RuntimeReferences
from verifier.reasons import Reason
from verifier.service.bundle import JudgedList
from verifier.service.ima_record import ImaRecord, read_record
from verifier.service.ima_stored import stored_list
from verifier.service.ima_work import (
    ImaJob,
    ImaWork,
    ListParts,
    Unreadable,
    do_work,
    quoted_pcrs,
    reference_at_hand,
    reference_of,
)
from verifier.service.model import AttestCommand, ImaPart, ImaWanted
from verifier.tcg.attest import parse_quote

OFFLOAD_ABOVE: Final = 48 * 1024
"""Bytes; some 300 entries, half a millisecond to judge. More is judged in another process."""
MAX_KEPT_UNPROVEN: Final = 4 * 1024 * 1024
"""Bytes of a list that no quote proves and that is kept as evidence all the same; a longer one is only named."""
_BEGINS: Final = frozenset({Continuity.FIRST, Continuity.REBOOTED, Continuity.ROTATED})
_PROVEN: Final = _BEGINS | {Continuity.CONTINUED, Continuity.UNCHANGED}


class ImaKept(NamedTuple):
    """What an attestation leaves of its list, to be stored with it."""

    record: ImaRecord | None = None
    """None: it stays as it is stored."""
    piece: ImaPiece | None = None
    content: bytes = b""
    """To be stored under the digest that `named` has; the bytes of `piece`."""
    held: ImaRecord = ImaRecord()
    """What is held of the boot then, stored anew or not."""
    named: JudgedList | None = None
    """What was judged, to be named in the evidence; `content` is its end, proven or not."""

    def wanted(self, boot_id: str | None) -> ImaWanted:
        """From where the next part of the list shall be sent."""
        if boot_id is None or self.held.resend:
            return ImaWanted()
        return ImaWanted(offset=self.held.offset, boot_id=boot_id)


@dataclass(slots=True, kw_only=True)
class SentList:
    """One attestation's list: judged once the quote is proven, and what came of that by reference.

    Attributes:
        record: what was held of the boot before.
        data: what was sent, from `offset` on: 0, or the end of what was held.
        pcrs: values as quoted; as sent where the list does not tell.
        jobs: by id and revision of the policy.
        parts: the list at hand, where it is judged in this process.
        references: at hand, where the list is judged in this process.
        judged_by: quoted values by which another process has judged it; None where none has.
        missed: policies that read a list, where none was sent.
    """

    record: ImaRecord
    data: memoryview
    offset: int
    pcrs: PcrValues
    jobs: Mapping[tuple[str, str], ImaJob]
    parts: ListParts | None = None
    references: Mapping[bytes, RuntimeReference] = field(default_factory=dict)
    judged_by: PcrValues | None = None
    missed: frozenset[tuple[str, str]] = frozenset()
    outcomes: dict[bytes, ImaOutcome] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        """Whether it takes noticeably long to look through."""
        return len(self.data) > OFFLOAD_ABOVE

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome | None:
        """What the list comes to under the policy; None for one that does not read it."""
        if (policy.id, policy.revision) in self.missed:
            return not_sent(quote)
        job = self.jobs.get((policy.id, policy.revision))
        return None if job is None else self._outcome(job, quote)

    def _outcome(self, job: ImaJob, quote: QuoteFacts) -> ImaOutcome:
        revision = job.recipe.revision
        if self.judged_by is not None:
            if quote.pcrs != self.judged_by:
                raise VerifierFault("an IMA list was judged by other PCR values than were proven")
            return self.outcomes[revision]
        if revision not in self.outcomes and self.parts is not None:
            segment, reference = self.parts.segment(job), self.references[revision]
            self.outcomes[revision] = judge(job.state, segment, quote.pcrs, reference)
        return self.outcomes[revision]

    def kept(self) -> ImaKept:
        """What is to be stored, now that it has been judged."""
        ends = {revision: end for revision in self.outcomes if (end := self._end(revision)) is not None}
        resend = any(outcome.resend for outcome in self.outcomes.values())
        if self.missed:
            return ImaKept()
        if not ends:
            held = structs.replace(self.record, resend=self.record.resend or resend)
            return ImaKept(
                record=None if held == self.record else held,
                held=held,
                content=bytes(self.data) if len(self.data) <= MAX_KEPT_UNPROVEN else b"",
                named=JudgedList(self.record.base + self.offset, _digest(self.data)),
            )
        first = next((revision for revision in ends if self._begins(revision)), next(iter(ends)))
        end = ends[first]
        states = {
            revision: replace(self.outcomes[revision].state, offset=end)
            for revision, other in ends.items()
            if other == end
        }
        base, known = self.record.base, self.record.offset
        if self._begins(first):
            rotated = self.outcomes[first].continuity is Continuity.ROTATED
            base, known = (self.record.proven if rotated else 0), 0
        record = ImaRecord(offset=end, base=base, resend=resend, states=states)
        # Of a list that was sent whole, what was known before is not looked at again, and so not stored again.
        content = bytes(self.data[known - self.offset : end - self.offset])
        named = JudgedList(base + known, _digest(content) if content else None)
        piece = (
            ImaPiece(start=named.held, size=len(content), sha256=named.sha256)
            if named.sha256 is not None
            else None
        )
        return ImaKept(
            record=None if record == self.record else record,
            piece=piece,
            content=content,
            held=record,
            named=named,
        )

    def _end(self, revision: bytes) -> int | None:
        """Byte of the guest's list up to which it is proven now; None where it does not fit."""
        outcome = self.outcomes[revision]
        if outcome.continuity not in _PROVEN:
            return None
        # A list put together from all that was proven of the boot counts from there.
        return outcome.state.offset - (self.record.base if self._is_rebuilt(revision) else 0)

    def _begins(self, revision: bytes) -> bool:
        """Whether the guest's list is proven from its beginning, by what was sent now."""
        return self.outcomes[revision].continuity in _BEGINS and not self._is_rebuilt(revision)

    def _is_rebuilt(self, revision: bytes) -> bool:
        return next(job for job in self.jobs.values() if job.recipe.revision == revision).anew


class ImaLists:
    """Prepares lists to be judged: finds what they go on from, and has long ones judged in other processes."""

    def __init__(self, store: Store, references: RuntimeReferences, workers: Workers) -> None:
        self._store = store
        self._references = references
        self._workers = workers
        self._making: dict[bytes, asyncio.Task[RuntimeReference]] = {}
        self._reading = of_this(self._readers)
        """Of one set: most attesters are judged by the very same."""

    def reads(self, policies: PolicySet) -> bool:
        """Whether any of the policies reads the list."""
        return bool(self._reading(policies))

    def _readers(self, policies: PolicySet) -> list[Policy]:
        tried = [each.policy for each in policies.staged]
        every = tried if policies.primary is None else [policies.primary, *tried]
        return [policy for policy in every if self._references.reads(policy)]

    async def take(
        self,
        command: AttestCommand,
        state: AttesterState,
        policies: PolicySet,
        evidence: Evidence,
        expectation: Expectation,
    ) -> SentList | None:
        """The list that came with an attestation; None where none came, or no policy reads it.

        Raises:
            RefusedError: `ima-offset-unknown`: it goes on from where nothing is held.
            EvidenceError: it does not parse.
            VerifierFault: a reference, or a process to judge in, cannot be had.
        """
        reading = self._reading(policies)
        if not reading:
            return None
        if command.ima is None:
            missed = frozenset((each.id, each.revision) for each in reading)
            return SentList(
                record=ImaRecord(), data=memoryview(b""), offset=0, pcrs=evidence.pcrs, jobs={}, missed=missed
            )
        key = _boot_key(command, evidence)
        record = _held(state, key)
        data, offset = _fitting(command.ima, record)
        recipes = {(each.id, each.revision): await self._references.recipe(each) for each in reading}
        anew = offset > 0 and any(recipe.revision not in record.states for recipe in recipes.values())
        elsewhere = len(data) > OFFLOAD_ABOVE or not self._at_hand(recipes.values())
        # Whoever makes work has to have a name first.
        if (anew or elsewhere) and not _authenticated(evidence, expectation):
            return None
        held = await self._rebuilt(state, key, record) if anew else b""
        jobs = {
            policy: ImaJob(
                recipe=recipe,
                state=record.states.get(recipe.revision, INITIAL),
                anew=offset > 0 and recipe.revision not in record.states,
            )
            for policy, recipe in recipes.items()
        }
        sent = SentList(record=record, data=data, offset=offset, pcrs=evidence.pcrs, jobs=jobs)
        if elsewhere or len(held) + len(data) > OFFLOAD_ABOVE:
            return await self._judged_elsewhere(sent, held, evidence, expectation)
        sent.parts = ListParts(held=held, data=bytes(sent.data), offset=sent.offset)
        sent.pcrs = quoted_pcrs(evidence, tuple(sent.jobs.values()), sent.parts)
        sent.references = {job.recipe.revision: reference_of(job.recipe) for job in sent.jobs.values()}
        return sent

    def _at_hand(self, recipes: Iterable[Recipe]) -> bool:
        """Whether lists can be judged here. What is not at hand is made beside the event loop, which may take seconds.

        Until then other processes judge, also the short ones.
        """
        missing = [each for each in recipes if reference_at_hand(each.revision) is None]
        for recipe in missing:
            if recipe.revision not in self._making:
                task = asyncio.create_task(asyncio.to_thread(reference_of, recipe))
                self._making[recipe.revision] = task
                task.add_done_callback(partial(self._made, recipe.revision))
        return not missing

    def _made(self, revision: bytes, task: asyncio.Task[RuntimeReference]) -> None:
        del self._making[revision]
        if not task.cancelled():
            task.exception()  # whoever judges elsewhere meets it too, and tells

    async def _judged_elsewhere(
        self, sent: SentList, held: bytes, evidence: Evidence, expectation: Expectation
    ) -> SentList:
        work = ImaWork(
            evidence=structs.replace(evidence, boot_log=None, userspace_log=None, nvpcrs=()),
            expectation=expectation,
            jobs=tuple(sent.jobs.values()),
            held=pickle.PickleBuffer(held),
            data=pickle.PickleBuffer(sent.data),
            offset=sent.offset,
        )
        done = await self._workers.run(do_work, work)
        if isinstance(done, Unreadable):
            raise done.error()
        sent.pcrs, sent.judged_by, sent.outcomes = done.pcrs, done.quoted, dict(done.outcomes)
        return sent

    async def _rebuilt(self, state: AttesterState, key: BootKey, record: ImaRecord) -> bytes:
        """All that was proven of the boot; refused where a part is missing, and nobody is judged for that."""
        content = await stored_list(self._store, state.attester.tenant, key, record.proven)
        if content is None:
            raise _unknown_offset(
                "the list is to be judged anew from its beginning, which is not held any more"
            )
        return content


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _authenticated(evidence: Evidence, expectation: Expectation) -> bool:
    return check_quote(evidence, expectation, DEFAULT_SIGNATURE_HASHES).authenticated


def _boot_key(command: AttestCommand, evidence: Evidence) -> BootKey:
    """As the quote says; it only chooses what is held, which the quote has to prove again."""
    clock = parse_quote(evidence.attest).clock
    return BootKey(attester_id=command.attester_id, clock=clock, boot_log_sha256=evidence.boot_log_sha256)


def _held(state: AttesterState, key: BootKey) -> ImaRecord:
    """What is held of this boot's list; nothing where it is another boot, or where it cannot be read."""
    boot = state.boot
    if boot is None or boot.ima is None:
        return ImaRecord()
    now, then = key.clock, boot.clock
    same = (now.reset_count, now.restart_count) == (then.reset_count, then.restart_count)
    if not same or key.boot_log_sha256 != boot.boot_log_sha256:
        return ImaRecord()
    try:
        return read_record(boot.ima)
    except StoredDataDamaged:
        return ImaRecord()


def _fitting(part: ImaPart, record: ImaRecord) -> tuple[memoryview, int]:
    """What is new of the part, and where it begins; whole where it was sent whole."""
    content = memoryview(part.content)
    if part.offset == 0:
        return content, 0
    known = record.offset - part.offset
    if not 0 <= known <= len(content) or record.offset == 0:
        raise _unknown_offset(f"nothing is held of this boot's list that ends at byte {part.offset}")
    return content[known:], record.offset


def _unknown_offset(detail: str) -> RefusedError:
    return RefusedError(Reason.IMA_OFFSET_UNKNOWN, f"{detail}; send the whole list")
