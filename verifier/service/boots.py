"""An attester's stored boots for people: what its log says event by event, and what changed since the boot before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from verifier.appraisal.boot.userspace import Userspace
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.checks.nvpcrs import check_nvpcrs
from verifier.appraisal.checks.quote import DEFAULT_SIGNATURE_HASHES, check_quote
from verifier.appraisal.event_data import Described, describe
from verifier.appraisal.evidence import Expectation
from verifier.claims import BootFacts, EventFact, ProvenClaims, QuoteFacts
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.policy.diff import EventChange, diff_boots
from verifier.ports import Store, VerdictRecord
from verifier.service.bundle import StoredEvidence, unpack
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.userspace_log import parse_userspace_log

_Logs = Mapping[bytes, bytes | None]
"""The logs a bundle names, by SHA-256; None where one is no longer kept."""

_LOOK_BACK: Final = 200
"""Verdicts that are searched for an earlier boot: more than half a day of one every five minutes."""


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """One event: what is proven of it, and beside it what its data says, proven or not."""

    fact: EventFact
    data: Described


@dataclass(frozen=True, slots=True, kw_only=True)
class BootView:
    """One boot.

    Attributes:
        verdict: the verdict that its evidence led to.
        pcrs: quoted values by bank and index.
        facts: what the log proves against them; None where there is no log, or none that replays.
        events: every event of the log, in its order; empty without one.
        problem: why there is less than there should be, for people.
    """

    verdict: VerdictRecord
    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    facts: BootFacts | None = None
    events: tuple[ShownEvent, ...] = ()
    problem: str | None = None
    quote: QuoteFacts | None = None


class BootService:
    """Reads stored evidence. Judges nothing and stores nothing: what is shown was proven when the verdict was given."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def boot(self, record: VerdictRecord) -> BootView:
        """The boot behind a verdict; parts that cannot be had are told, not raised."""
        try:
            stored, logs = await self._evidence(record)
        except StoredDataDamaged as error:
            return BootView(verdict=record, pcrs={}, problem=f"its evidence is damaged: {error}")
        if stored is None:
            return BootView(verdict=record, pcrs={}, problem="its evidence is no longer kept")
        return await asyncio.to_thread(_read, record, stored, logs)

    async def previous(self, record: VerdictRecord) -> VerdictRecord | None:
        """The latest verdict over another boot, or None if none is kept."""
        earlier = await self._store.history(
            record.tenant, record.attester_id, before=record.sequence, limit=_LOOK_BACK
        )
        counts = record.clock.reset_count
        return next((one for one in earlier if one.clock.reset_count != counts), None)

    async def changes(self, now: BootView, before: BootView) -> tuple[EventChange, ...] | None:
        """What differs, event by event and in the first bank both have; None where they cannot be compared."""
        left, right = _claims(before), _claims(now)
        if left is None or right is None or left.boot is None or right.boot is None:
            return None
        bank = next((bank for bank in right.boot.banks if bank in left.boot.banks), None)
        if bank is None:
            return None
        return await asyncio.to_thread(diff_boots, left, right, bank)

    async def _evidence(self, record: VerdictRecord) -> tuple[StoredEvidence | None, _Logs]:
        bundle = await self._store.blob(record.evidence_sha256)
        if bundle is None:
            return None, {}
        stored = unpack(bundle)
        return stored, {digest: await self._store.blob(digest) for digest in stored.logs}


def _claims(view: BootView) -> ProvenClaims | None:
    return None if view.quote is None else ProvenClaims(quote=view.quote, boot=view.facts)


def _read(record: VerdictRecord, stored: StoredEvidence, logs: _Logs) -> BootView:
    log = None if stored.boot_log_sha256 is None else logs.get(stored.boot_log_sha256)
    pcrs = {HASH_BY_LABEL[label]: values for label, values in stored.pcrs.items()}
    if stored.boot_log_sha256 is None:
        return BootView(verdict=record, pcrs=pcrs, problem="no boot log came with the quote")
    if log is None:
        return BootView(verdict=record, pcrs=pcrs, problem="its boot log is no longer kept")
    try:
        quote = _proven(stored, log)
        if quote is None:
            return BootView(verdict=record, pcrs={}, problem="the quote proves no PCR values")
        parsed = parse_event_log(log)
        bound = bind_log(log, parsed, quote.pcrs, stored.kernel_command_line, _userspace(stored, logs, quote))
    except EvidenceError as error:
        return BootView(verdict=record, pcrs=pcrs, problem=f"the evidence does not parse: {error}")
    if bound.facts is None:
        return BootView(verdict=record, pcrs=pcrs, problem="the boot log does not lead to the quoted PCRs")
    data = [describe(event.event_type, event.data) for event in parsed.events]
    # Events of systemd's log stand behind; what is proven of one is its text.
    events = tuple(ShownEvent(fact, shown or {}) for fact, shown in zip_longest(bound.facts.events, data))
    return BootView(verdict=record, pcrs=quote.pcrs, facts=bound.facts, events=events, quote=quote)


def _userspace(stored: StoredEvidence, logs: _Logs, quote: QuoteFacts) -> Userspace | None:
    """What systemd measured, if its log is still kept; certified indices as they were proven then."""
    sent = None if stored.userspace_log_sha256 is None else logs.get(stored.userspace_log_sha256)
    return None if sent is None else Userspace(parse_userspace_log(sent), quote.indices)


def _proven(stored: StoredEvidence, log: bytes) -> QuoteFacts | None:
    expectation = Expectation(
        ak_public=stored.ak_public,
        ak_activated=True,  # nothing is stored for an attester without
        nonce=stored.nonce,
        request=(),
    )
    evidence = stored.evidence(log)
    facts = check_quote(evidence, expectation, DEFAULT_SIGNATURE_HASHES).facts
    return None if facts is None else facts._replace(indices=check_nvpcrs(evidence, expectation, facts)[1])
