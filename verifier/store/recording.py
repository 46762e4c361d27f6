"""What a batch of recordings changes, worked out without a database. Pure.

`prepare` turns one recording into columns while its caller still waits its turn; `plan` decides, from what the
transaction found (who exists, which nonces were fresh), every row the batch writes. The two databases differ
only in how they look those up and how they send the rows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from verifier.appraisal.lineage import Incident, Lineage
from verifier.errors import NotFoundError
from verifier.ports import AttesterState, BootRecord, GuestIdentity, Lifecycle, Recording, VerdictRecord
from verifier.store import blobs, identities, ima_rows, recorded_events, values
from verifier.store.blobs import PackedBlob
from verifier.store.held import Held
from verifier.store.judgements import Judgements
from verifier.store.leaves import LogBatch
from verifier.store.rows import Row, Values

_ENROLLED: Final = Lifecycle.ENROLLED.value


class PreparedRecording(Struct, frozen=True, kw_only=True):
    """A recording as columns; nothing here depends on what is stored."""

    attester_id: str
    tenant: str
    nonce_hash: bytes
    nonce: Values
    verdict: Values
    """Columns that `attestation` and `latest` share, but for the sequence."""
    evidence: str
    boot_key: Values
    """Columns of `latest` that name the boot."""
    boot: Values | None
    """None: nothing to write of it, the stored one is the same, and what moved on is in the verdict."""
    ima_piece: Values | None
    identity: GuestIdentity
    identity_text: str | None
    """None: what the guest said before, as this was judged by it."""
    blobs: tuple[PackedBlob, ...]
    judgement: PackedBlob
    named: tuple[bytes, ...]
    """Digests of blobs the verdict refers to that were stored before."""
    day: int
    position: int | None
    basis: Row | None
    """What this was judged by, as `Known.basis`; None: whatever that is."""
    follows: int | None
    """Sequence of the verdict that this one follows where `basis` is still so, if nothing but verdicts and clocks change then."""
    lineage: Values
    findings: Sequence[Mapping[str, object]] = ()
    """For the event of a changed tier."""


@dataclass(slots=True)
class Known:
    """What the transaction found of one attester; kept up to date while the batch is planned."""

    tenant: str
    sequence: int
    identity_text: str
    uuids_text: str
    tier: int | None = None
    incident: str | None = None
    labels: str = "{}"
    position: int = 0
    basis: Row = ()
    """Position, newest evidence and standing: what `AttesterState` is read with, and evidence judged by."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The nonce was spent before; nothing of the recording is stored."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The attester is not what it was when this was judged any more; nothing of the recording is stored."""


Outcome = int | Spent | Moved | NotFoundError
"""The sequence given to the verdict, or why there is none."""


class Step(enum.Enum):
    """The statements of a batch, in the order in which they run: what is referred to comes first."""

    TOUCHED_BLOBS = enum.auto()
    """Before new ones come: a blob that is being dropped is then either kept, or gone and written anew."""
    BLOBS = enum.auto()
    TOUCHED_JUDGEMENTS = enum.auto()
    JUDGEMENTS = enum.auto()
    LOG_BATCHES = enum.auto()
    ATTESTATIONS = enum.auto()
    LEFT_BOOTS = enum.auto()
    """Before `latest` no longer says what they showed last."""
    BOOTS = enum.auto()
    IMA_PIECES = enum.auto()
    LATEST = enum.auto()
    IDENTITIES = enum.auto()
    UUIDS = enum.auto()
    EVENTS = enum.auto()

    __hash__ = object.__hash__  # as of `tcg.algorithms.HashAlg`


@dataclass(slots=True)
class Plan:
    """Rows to write, by statement, and what to answer each caller, in the order of the batch."""

    log: LogBatch
    outcomes: list[Outcome] = field(default_factory=list)
    blobs: dict[bytes, Values] = field(default_factory=dict)
    touched: dict[bytes, Values] = field(default_factory=dict)
    judgements: dict[bytes, Values] = field(default_factory=dict)
    touched_judgements: dict[bytes, Values] = field(default_factory=dict)
    attestations: list[Values] = field(default_factory=list)
    """Each a leaf of `log`."""
    left_boots: list[Values] = field(default_factory=list)
    boots: list[Values] = field(default_factory=list)
    ima_pieces: list[Values] = field(default_factory=list)
    latest: dict[str, Values] = field(default_factory=dict)
    identities: dict[str, Values] = field(default_factory=dict)
    uuids: list[Values] = field(default_factory=list)
    events: list[Values] = field(default_factory=list)
    shared: dict[bytes, int] = field(default_factory=dict)
    """Day by digest of what is stored with this and others will name too."""
    named: dict[bytes, int] = field(default_factory=dict)
    """Day by digest of what is marked with this, if it is there."""

    def rows(self) -> Iterator[tuple[Step, Sequence[Values]]]:
        """What to run, and with which rows.

        Rows that others write too come in one order for every process, so that no two wait for each other.
        """
        parts = {
            Step.TOUCHED_BLOBS: _sorted(self.touched),
            Step.BLOBS: _sorted(self.blobs),
            Step.JUDGEMENTS: _sorted(self.judgements),
            Step.TOUCHED_JUDGEMENTS: _sorted(self.touched_judgements),
            Step.LOG_BATCHES: [self.log.row()] if self.attestations else [],
            Step.ATTESTATIONS: self.attestations,
            Step.LEFT_BOOTS: self.left_boots,
            Step.BOOTS: self.boots,
            Step.IMA_PIECES: self.ima_pieces,
            Step.LATEST: list(self.latest.values()),
            Step.IDENTITIES: list(self.identities.values()),
            Step.UUIDS: self.uuids,
            Step.EVENTS: self.events,
        }
        for part in Step:
            if parts[part]:
                yield part, parts[part]


def _sorted(by_digest: Mapping[bytes, Values]) -> list[Values]:
    return [by_digest[digest] for digest in sorted(by_digest)]


def prepare(
    recording: Recording, judgements: Judgements, packed: tuple[PackedBlob, ...] | None = None
) -> PreparedRecording:
    """Columns of a recording; `packed` are its blobs where they have been packed already.

    Raises:
        ValueError: a blob is not what its digest says, a count is no u64, a time has no zone.
        TypeError: a finding holds something that is not JSON.
    """
    verdict = recording.verdict
    judgement = judgements.packed(verdict)
    judged_at = values.micros(verdict.judged_at)
    said_before, boot_known = _said_before(recording), _boot_known(recording)
    steady = said_before and boot_known and recording.ima_piece is None
    return PreparedRecording(
        attester_id=verdict.attester_id,
        tenant=verdict.tenant,
        nonce_hash=recording.nonce_hash,
        nonce={
            "hash": recording.nonce_hash,
            "tenant": verdict.tenant,
            "attester_id": verdict.attester_id,
            "expires_at": values.micros(recording.nonce_expires_at),
        },
        verdict=_verdict_values(verdict, judgement.digest, judged_at),
        evidence=values.json_text(recording.evidence),
        boot_key=_boot_key(recording.boot),
        boot=None if boot_known else _boot_values(recording),
        ima_piece=ima_rows.piece_values(recording),
        identity=recording.identity,
        identity_text=None if said_before else values.json_text(recording.identity),
        blobs=blobs.pack_all(recording.blobs) if packed is None else packed,
        judgement=judgement,
        named=tuple({bytes.fromhex(name) for name in recording.evidence.values()} - recording.blobs.keys()),
        day=judged_at - judged_at % values.DAY,
        position=recording.position,
        basis=None if recording.judged_by is None else basis_of(recording.judged_by),
        follows=_follows(recording) if steady else None,
        lineage=lineage_values(recording.lineage),
        findings=verdict.findings,
    )


def _said_before(recording: Recording) -> bool:
    state = recording.judged_by
    return state is not None and state.attester.identity is recording.identity


def _boot_known(recording: Recording) -> bool:
    return recording.boot_goes_on and recording.position is not None


def _follows(recording: Recording) -> int | None:
    state = recording.judged_by
    if state is None or state.latest is None or recording.position != state.position:
        return None
    return None if _told(recording, state, state.latest) else state.latest.sequence


def _told(recording: Recording, state: AttesterState, before: VerdictRecord) -> bool:
    """Whether there is an event to tell: see `recorded_events`."""
    incident = _incident(recording.lineage)
    opened = incident is not None and incident != _incident(state.lineage)
    return opened or before.tier is not recording.verdict.tier


def _incident(line: Lineage | None) -> Incident | None:
    return None if line is None else line.incident


def basis_of(state: AttesterState) -> Row:
    """See `Known.basis`."""
    newest = state.latest
    if newest is None:
        return (state.position, None, None, *state.standing)
    rejudged_at = values.micros_or_none(newest.rejudged_at)
    return (state.position, newest.evidence_sha256, rejudged_at, *state.standing)


def lineage_values(lineage: Lineage | None) -> Values:
    """Columns of `latest` for a line of states; None leaves what is there."""
    incident = _incident(lineage)
    return {
        "lineage": None if lineage is None else values.json_text(lineage),
        "incident": None if incident is None else incident.kind.value,
    }


def _verdict_values(verdict: VerdictRecord, judgement: bytes, judged_at: int) -> Values:
    clock = verdict.clock
    return {
        "attester_id": verdict.attester_id,
        "tenant": verdict.tenant,
        "tier": int(verdict.tier),
        "judged_at": judged_at,
        "valid_until": values.micros(verdict.valid_until),
        "policy_id": verdict.policy_id,
        "policy_revision": verdict.policy_revision,
        "evidence_sha256": verdict.evidence_sha256,
        "clock": values.signed64(clock.clock),
        "reset_count": clock.reset_count,
        "restart_count": clock.restart_count,
        "safe": clock.safe,
        "boot_id": values.plain_text(verdict.boot_id),
        "judgement": judgement,
        "rejudged_at": values.micros_or_none(verdict.rejudged_at),
    }


def _boot_key(boot: BootRecord) -> Values:
    return {
        "boot_reset_count": boot.clock.reset_count,
        "boot_restart_count": boot.clock.restart_count,
        "boot_log_sha256": boot.boot_log_sha256 or b"",
    }


def _boot_values(recording: Recording) -> Values:
    boot, seen = recording.boot, values.micros(recording.boot.seen_at)
    return {
        "attester_id": recording.verdict.attester_id,
        "tenant": recording.verdict.tenant,
        "reset_count": boot.clock.reset_count,
        "restart_count": boot.clock.restart_count,
        "boot_log_sha256": boot.boot_log_sha256 or b"",
        "clock": values.signed64(boot.clock.clock),
        "safe": boot.clock.safe,
        "firmware_version": values.signed64(boot.firmware_version),
        "boot_id": values.plain_text(boot.boot_id),
        "first_seen_at": seen,
        "seen_at": seen,
        "userspace_log_sha256": boot.userspace_log_sha256,
        "ima": values.plain_text(boot.ima),
    }


def known(row: Row) -> Known:
    """From a row of `statements.KNOWN`."""
    _, tenant, sequence, identity, uuids, tier, incident, labels, *basis = row
    return Known(tenant, sequence, identity, uuids, tier, incident, labels, basis[0], tuple(basis))


def plan(
    batch: Sequence[PreparedRecording],
    found: Mapping[str, Known],
    fresh: set[bytes],
    held: Held,
    log: LogBatch,
) -> Plan:
    """Decide every row of the batch.

    Args:
        batch: in the order of arrival, which is the order of the sequences.
        found: attesters of the batch that exist, by id; changed as the batch goes on.
        fresh: nonce hashes this transaction has inserted; the first recording with a nonce takes it out.
        held: what needs no statement.
        log: of this transaction; every verdict becomes a leaf of it.
    """
    result = Plan(log)
    for item, timely in zip(batch, _timely(batch, found), strict=True):
        attester = found.get(item.attester_id)
        if attester is None or attester.tenant != item.tenant:
            result.outcomes.append(NotFoundError("attester", item.attester_id))
        elif not timely:
            result.outcomes.append(Moved())
        elif item.nonce_hash not in fresh:
            result.outcomes.append(Spent())
        else:
            fresh.remove(item.nonce_hash)
            attester.sequence += 1
            attester.position += 1
            result.outcomes.append(attester.sequence)
            _plan_one(result, item, attester, held)
    return result


def plan_steady(batch: Sequence[PreparedRecording], held: Held, log: LogBatch) -> Plan | None:
    """Every row of a batch in which each recording follows the verdict of another attester; None if not each does.

    It holds if each attester still is what its recording was judged by, and all nonces are fresh.
    """
    result = Plan(log)
    for item in batch:
        if item.follows is None or item.position is None or item.attester_id in result.latest:
            return None
        _plan_contents(result, item, held)
        _plan_verdict(result, item, item.follows + 1, item.position + 1)
        result.outcomes.append(item.follows + 1)
    return result


def spendable(batch: Sequence[PreparedRecording], found: Mapping[str, Known]) -> list[Values]:
    """The nonces to insert: those of what may be stored, each once, in one order for every process."""
    wanted = {
        item.nonce_hash: item.nonce
        for item, timely in reversed(list(zip(batch, _timely(batch, found), strict=True)))
        if timely and item.attester_id in found and found[item.attester_id].tenant == item.tenant
    }
    return [wanted[key] for key in sorted(wanted)]


def _timely(batch: Sequence[PreparedRecording], found: Mapping[str, Known]) -> list[bool]:
    """Which recordings were judged by what their attester is, or at the position it is brought to by those before them.

    Whether a nonce is fresh is not known yet, so after a recording whose nonce turns out to be spent the next one of
    its attester is taken for too late. It is judged again then, which is never wrong.
    """
    moved: dict[str, int] = {}
    result: list[bool] = []
    for item in batch:
        attester = found.get(item.attester_id)
        at = None if attester is None else attester.position + moved.get(item.attester_id, 0)
        timely = item.position is None or item.position == at
        if item.basis is not None and attester is not None:
            timely = timely and item.basis == attester.basis
        if timely:
            moved[item.attester_id] = moved.get(item.attester_id, 0) + 1
        result.append(timely)
    return result


def _plan_one(result: Plan, item: PreparedRecording, attester: Known, held: Held) -> None:
    _plan_contents(result, item, held)
    if item.boot is not None:
        result.left_boots.append({"b_attester_id": item.attester_id})
        result.boots.append(item.boot)
    if item.ima_piece is not None:
        result.ima_pieces.append(item.ima_piece)
    _plan_verdict(result, item, attester.sequence, attester.position)
    _plan_events(result, item, attester)
    if item.identity_text is not None and item.identity_text != attester.identity_text:
        _plan_identity(result, item, attester)


def _plan_verdict(result: Plan, item: PreparedRecording, sequence: int, position: int) -> None:
    lineage = item.lineage
    before = result.latest.get(item.attester_id)
    if before is not None and lineage["lineage"] is None:
        lineage = {name: before[name] for name in lineage}
    verdict = {**item.verdict, "sequence": sequence, "evidence": item.evidence}
    result.log.add_verdict(verdict)
    result.attestations.append(verdict)
    result.latest[item.attester_id] = {
        **item.verdict,
        "lifecycle": _ENROLLED,
        "sequence": sequence,
        **item.boot_key,
        "position": position,
        **lineage,
    }


def _plan_contents(result: Plan, item: PreparedRecording, held: Held) -> None:
    """Blobs and judgement: whatever is held, and marked as used on this day, needs nothing."""
    for packed in item.blobs:
        if held.stored(packed.digest, item.day):
            continue
        result.blobs[packed.digest] = packed_values(packed, item.day)
        if packed.digest != item.verdict["evidence_sha256"]:  # nobody else names this quote
            result.shared[packed.digest] = item.day
    for digest in item.named:
        if not held.marked(digest, item.day):
            result.named[digest] = item.day
            result.touched[digest] = {"b_digest": digest, "b_day": item.day}
    judged = item.judgement.digest
    if not held.stored(judged, item.day):
        result.judgements[judged] = packed_values(item.judgement, item.day)
        result.touched_judgements[judged] = {"b_digest": judged, "b_day": item.day}
        result.shared[judged] = item.day


def _plan_events(result: Plan, item: PreparedRecording, attester: Known) -> None:
    sequence, labels = attester.sequence, attester.labels
    tier = item.verdict["tier"]
    if tier != attester.tier:
        why = recorded_events.reasons(item.findings)
        result.events += recorded_events.changed_tier(item.verdict, sequence, why, attester.tier, labels)
        attester.tier = tier
    if item.lineage["lineage"] is not None:
        result.events += recorded_events.opened_incident(
            item.verdict, sequence, item.lineage, attester.incident, labels
        )
        attester.incident = item.lineage["incident"]


def packed_values(packed: PackedBlob, day: int) -> Values:
    """Columns of a blob or a judgement that is named on `day`."""
    return {
        "digest": packed.digest,
        "codec": packed.codec,
        "size": packed.size,
        "content": packed.content,
        "last_used_at": day,
    }


def _plan_identity(result: Plan, item: PreparedRecording, attester: Known) -> None:
    before = values.read_identity(attester.identity_text)
    merged = identities.merged(before, item.identity)
    claimed, uuids = merged.smbios_uuid, frozenset(values.read_strings(attester.uuids_text))
    if claimed is not None and claimed not in uuids and len(uuids) < identities.MAX_UUIDS:
        uuids |= {claimed}
        attester.uuids_text = values.json_text(sorted(uuids))
        result.uuids.append(identities.uuid_values(item.attester_id, item.tenant, claimed))
    elif merged == before:
        return
    attester.identity_text = values.json_text(merged)
    result.identities[item.attester_id] = identities.identity_values(item.attester_id, merged, uuids)
