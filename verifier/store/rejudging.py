"""Verdicts that were judged again from stored evidence: many in one transaction, each only where nothing came between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from msgspec import structs
from sqlalchemy import Connection, RowMapping, and_, bindparam, select, update

from verifier.ports import Lifecycle, VerdictRecord
from verifier.ports_announcements import Topic
from verifier.ports_enrollment import AuditEntry
from verifier.store import audit_log, log_batches, recorded_events, recording, values
from verifier.store.announcing import note
from verifier.store.backend import StorePart
from verifier.store.judgements import Judgements
from verifier.store.recording import Step
from verifier.store.rows import Values
from verifier.store.schema import attestation, attester, latest
from verifier.store.statements import HotStatements

_NOT_REPLACED: Final = frozenset({"attester_id", "tenant", "judged_at", "evidence_sha256", "clock", "reset_count",
                                  "restart_count", "safe", "boot_id"})  # fmt: skip
"""Columns of a verdict that are about its evidence."""
_REPLACED: Final = ("tier", "valid_until", "policy_id", "policy_revision", "judgement", "rejudged_at")
_CHUNK: Final = 500
"""Ids in one query: both databases bound how many parameters one has."""
_LOCKED: Final = (
    latest.c.attester_id,
    latest.c.sequence,
    latest.c.tier,
    attester.c.labels,
    attestation.c.evidence,
    *(attestation.c[name] for name in sorted(_NOT_REPLACED - {"attester_id"})),
    attestation.c.valid_until,
)
_REPLACE_LATEST: Final = (
    update(latest)
    .where(latest.c.attester_id == bindparam("b_attester_id"))
    .values({name: bindparam(f"b_{name}") for name in ("sequence", *_REPLACED)})
)


class _Prepared(NamedTuple):
    """A verdict as columns."""

    verdict: VerdictRecord
    said: Values
    judgement: Values
    reasons: tuple[str, ...]


class Rejudgings(StorePart):
    """The `RejudgeStore` port."""

    async def rejudge(
        self, verdicts: Sequence[VerdictRecord], audit: AuditEntry
    ) -> tuple[VerdictRecord | None, ...]:
        """See `verifier.ports_rejudge`."""
        # Hundreds are encoded and packed beside the event loop.
        prepared = await asyncio.to_thread(_prepare_all, verdicts)
        if len(prepared) != len(verdicts):
            raise ValueError("two verdicts are about one attester")
        hot = HotStatements(self._backend.insert)

        def run(connection: Connection) -> dict[str, VerdictRecord]:
            # All first, and in one order, like whoever records attestations meanwhile: nobody waits in a circle.
            found: list[RowMapping] = []
            ids = sorted(prepared)
            for start in range(0, len(ids), _CHUNK):
                found += _lock(connection, ids[start : start + _CHUNK])
            stored = _store(connection, hot, [(prepared[row["attester_id"]], row) for row in found])
            audit_log.append(connection, replace(audit, detail={**audit.detail, "verdicts": len(stored)}))
            return stored

        stored = await self._backend.write(run)
        return tuple(stored.get(verdict.attester_id) for verdict in verdicts)


def _prepare_all(verdicts: Sequence[VerdictRecord]) -> dict[str, _Prepared]:
    said = Judgements()
    return {verdict.attester_id: _prepare(verdict, said) for verdict in verdicts}


def _prepare(verdict: VerdictRecord, said: Judgements) -> _Prepared:
    if verdict.rejudged_at is None:
        raise ValueError(f"the verdict of attester {verdict.attester_id} was not judged again")
    judgement = said.packed(verdict)
    at = values.micros(verdict.rejudged_at)
    packed = recording.packed_values(judgement, at - at % values.DAY)
    return _Prepared(
        verdict=verdict,
        said={
            "tier": verdict.tier.value,
            "valid_until": values.micros(verdict.valid_until),
            "policy_id": verdict.policy_id,
            "policy_revision": verdict.policy_revision,
            "judgement": judgement.digest,
            "rejudged_at": at,
        },
        judgement=packed,
        reasons=recorded_events.reasons(verdict.findings),
    )


def _lock(connection: Connection, ids: Sequence[str]) -> Sequence[RowMapping]:
    """Enrolled attesters with their latest verdict; no other verdict of theirs is stored until the transaction ends."""
    same_verdict = and_(
        attestation.c.attester_id == latest.c.attester_id,
        attestation.c.sequence == latest.c.sequence,
        attestation.c.judged_at == latest.c.judged_at,  # names the partition
    )
    query = (
        select(*_LOCKED)
        .join_from(latest, attestation, same_verdict)
        .join(attester, attester.c.id == latest.c.attester_id)
        .where(latest.c.attester_id.in_(ids), latest.c.lifecycle == Lifecycle.ENROLLED.value)
        .order_by(latest.c.attester_id)
        .with_for_update(key_share=True, of=latest)
    )
    return connection.execute(query).mappings().all()


def _store(
    connection: Connection,
    hot: HotStatements,
    found: Sequence[tuple[_Prepared, RowMapping]],
) -> dict[str, VerdictRecord]:
    """Store those that replace the verdict they were made from."""
    stored: dict[str, VerdictRecord] = {}
    batch: dict[Step, list[Values]] = {Step.ATTESTATIONS: [], Step.EVENTS: []}
    judgements: dict[bytes, Values] = {}
    changes: list[Values] = []
    for item, now in found:
        if not _is_replaced(item.verdict, now):
            continue
        # A shorter end, never a longer one, whatever the caller worked out.
        said = {**item.said, "valid_until": min(item.said["valid_until"], now["valid_until"])}
        sequence = item.verdict.sequence + 1
        kept = {name: now[name] for name in _NOT_REPLACED}
        verdict = {**kept, **said, "sequence": sequence, "evidence": now["evidence"]}
        log_batches.of(connection).add_verdict(verdict)
        batch[Step.ATTESTATIONS].append(verdict)
        changes.append(
            {
                "b_attester_id": now["attester_id"],
                "b_sequence": sequence,
                **{f"b_{name}": said[name] for name in _REPLACED},
            }
        )
        batch[Step.EVENTS] += recorded_events.changed_tier(
            {**kept, **said}, sequence, item.reasons, now["tier"], now["labels"]
        )
        judgements[item.judgement["digest"]] = item.judgement
        stored[item.verdict.attester_id] = structs.replace(
            item.verdict, sequence=sequence, valid_until=values.moment(said["valid_until"])
        )
    if batch[Step.EVENTS]:
        note(connection, Topic.EVENTS, "")
    if stored:
        _write(connection, hot, [judgements[key] for key in sorted(judgements)], batch, changes)
    return stored


def _is_replaced(verdict: VerdictRecord, now: RowMapping) -> bool:
    replaced = now["tenant"], now["sequence"], now["evidence_sha256"]
    return replaced == (verdict.tenant, verdict.sequence, verdict.evidence_sha256)


def _write(
    connection: Connection,
    hot: HotStatements,
    judgements: Sequence[Values],
    batch: Mapping[Step, list[Values]],
    changes: list[Values],
) -> None:
    """In the order of `recording.Step`, as every other transaction."""
    connection.execute(
        hot.batch[Step.TOUCHED_JUDGEMENTS],
        [{"b_digest": one["digest"], "b_day": one["last_used_at"]} for one in judgements],
    )
    connection.execute(hot.batch[Step.JUDGEMENTS], list(judgements))
    connection.execute(hot.batch[Step.ATTESTATIONS], batch[Step.ATTESTATIONS])
    connection.execute(_REPLACE_LATEST, changes)
    if batch[Step.EVENTS]:
        connection.execute(hot.batch[Step.EVENTS], batch[Step.EVENTS])
