"""The audit: what is held against what, in which order, and how findings come to their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from verifier.auditing import agreement, decisions, leaves, states, tree
from verifier.auditing.agreement import Gap
from verifier.auditing.decisions import Decisions
from verifier.auditing.findings import Findings, Report, Tampering, Trust
from verifier.auditing.leaves import DECISIONS, VERDICTS
from verifier.auditing.opening import reading
from verifier.auditing.slots import Slots
from verifier.auditing.tree import Leaves
from verifier.store import log_batches, values
from verifier.store.rows import Row
from verifier.store.schema import attestation, audit, judgement, latest
from verifier.store.schema_log import log_batch
from verifier.transparency.checkpoint import Opened

Progress = Callable[[str, int, int], object]
"""What is being read, how many rows of it were, and how many there are."""


@dataclass(slots=True)
class _Audit:
    connection: Connection
    trust: Trust
    kept_since: int | None
    progress: Progress
    findings: Findings

    def step(self, what: str, of: Any) -> Callable[[int], None]:  # noqa: ANN401 - a table
        total = self.connection.execute(select(func.count()).select_from(of)).scalar() or 0
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, total)

        self.progress(what, 0, total)
        return more

    def run(self) -> Report:
        state = states.newest_state(self.connection, self.trust, self.findings)
        size = 0 if state is None else state.checkpoint.size
        with Slots(size) as slots:
            return self._against(state, slots)

    def _against(self, state: Opened | None, slots: Slots) -> Report:
        connection, findings = self.connection, self.findings
        since, seen = _logged_since(connection), Decisions()
        if state is not None:
            self._check_state(state)
        verdicts = leaves.fill(
            connection, VERDICTS, slots, findings, logged_since=since, step=self.step("verdicts", attestation)
        )
        audited = leaves.fill(
            connection, DECISIONS, slots, findings,
            logged_since=since, step=self.step("decisions", audit), see=seen.see,
        )  # fmt: skip
        oldest = _oldest_kept(connection)
        found = Leaves()
        if state is not None:
            first = tree.first_needed(connection, slots, oldest, self.kept_since)
            needed = tree.Needed(first, _rejudged(connection, seen))
            found = tree.check_tiles(connection, slots, needed, findings)
            found.missing += ((index, b"") for index in _lasting(connection, slots, seen, first))
        displaced = verdicts.displaced | audited.displaced
        _put_back(found, displaced, findings)
        if verdicts.unlogged:
            agreement.check_unlogged(connection, findings)
        self._follow(found, seen, since)
        kept_since = self.kept_since if self.kept_since is not None or oldest is None else oldest[1]
        return Report(
            state=None if state is None else states.cosigned(connection, state, self.trust, findings),
            verdicts=verdicts.rows,
            decisions=audited.rows,
            waiting=verdicts.waiting + audited.waiting,
            unlogged=verdicts.unlogged + audited.unlogged,
            not_kept=found.not_kept,
            kept_since=kept_since,
            kept_checkpoint=None if self.trust.kept is None else self.trust.kept.size,
            findings=findings,
        )

    def _check_state(self, state: Opened) -> None:
        connection, findings = self.connection, self.findings
        if not findings.count:  # otherwise the checkpoint that signed them is the finding
            tree.check_batches(connection, state.checkpoint.size, findings)
        states.check_growth(connection, state.checkpoint, self.trust, findings)
        tree.check_edge(connection, state.checkpoint, findings)

    def _follow(self, found: Leaves, seen: Decisions, since: int | None) -> None:
        """Name what the tree found, and check what follows from the log without being in it."""
        connection, findings = self.connection, self.findings
        gaps = agreement.gaps(connection, findings)
        for one in (*_changed(connection, found), *_missing(connection, found, gaps)):
            findings.add(one)
        findings.count += found.more
        agreement.check_latest(connection, findings, self.step("newest verdicts", latest))
        agreement.check_judgements(connection, findings, self.step("judgements", judgement))
        decisions.check_policies(connection, seen, findings, logged_since=since)
        decisions.check_tokens(connection, seen, findings, logged_since=since)


def _oldest_kept(connection: Connection) -> tuple[int, int] | None:
    """Index and time of the oldest verdict that is not kept for being the latest of its attester; if all are, of those."""
    newest = and_(
        latest.c.attester_id == attestation.c.attester_id, latest.c.sequence == attestation.c.sequence
    )
    joined = attestation.join(log_batch, log_batch.c.id == attestation.c.log_batch).outerjoin(latest, newest)
    index = log_batch.c.first_index + attestation.c.log_place
    query = select(func.min(index), func.min(attestation.c.judged_at)).select_from(joined)
    for one in (query.where(latest.c.attester_id.is_(None)), query):
        first, at = connection.execute(one).one()
        if first is not None:
            return first, at
    return None


def audit_database(
    url: str,
    trust: Trust,
    *,
    kept_since: datetime | None = None,
    progress: Progress = lambda *_: None,
) -> Report:
    """Hold a database against its log, without its service.

    Proven where nothing is found: every row that is in the tree is as it was when it was logged, none that has to be
    there is missing, and, with a checkpoint kept from before, nothing that was in the log then has changed. Not
    proven: that the one who holds the log's key has not written another log from the start, which a kept checkpoint
    or a witness tells; nor anything of rows that wait for their place, which nobody has signed yet.

    Args:
        url: as in the setting `database.url`.
        trust: keys, witnesses, and the checkpoint kept from before.
        kept_since: since when every leaf has to have its row; by default the time of the oldest verdict that is there.
        progress: told how far it is.

    Raises:
        StoreUrlError: the URL names no database.
        StoreUnavailable: it cannot be read.
        StoredDataDamaged: it says of itself that it is corrupt.
    """
    since = None if kept_since is None else values.micros(kept_since)
    return reading(url, lambda connection: _Audit(connection, trust, since, progress, Findings()).run())


def _logged_since(connection: Connection) -> int | None:
    """When the log began: rows from before need no leaf."""
    oldest = connection.execute(select(func.min(log_batch.c.id))).scalar()
    return None if oldest is None else log_batches.made_at(oldest)


def _rejudged(connection: Connection, seen: Decisions) -> tuple[tuple[int, int], ...]:
    """Where verdicts are that were judged again: with history they go by the time of their evidence, not their own."""
    first = log_batch.c.first_index
    query = select(first, first + log_batch.c.leaf_count, log_batch.c.id).where(
        log_batch.c.lasting.is_(True), first.is_not(None)
    )
    found = leaves.streamed(connection, query.order_by(first))
    return tuple((begin, end) for begin, end, batch in found if batch in seen.rejudging)


def _lasting(connection: Connection, slots: Slots, seen: Decisions, needed: int) -> list[int]:
    """Decisions stay when history goes: leaves before it, in batches that have no verdicts, need their rows."""
    query = select(log_batch.c.id, log_batch.c.first_index, log_batch.c.leaf_count).where(
        log_batch.c.lasting.is_(True), log_batch.c.first_index < needed
    )
    return [
        index
        for batch, first, count in leaves.streamed(connection, query)
        if batch not in seen.rejudging
        for index in range(first, min(first + count, needed))
        if slots.empty(slots.get(index, 1))
    ]


def _places(connection: Connection, indices: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Batch and place of leaves."""
    found: dict[int, tuple[int, int]] = {}
    for index in indices:
        query = (
            select(log_batch.c.id, log_batch.c.first_index)
            .where(log_batch.c.first_index <= index, log_batch.c.first_index + log_batch.c.leaf_count > index)
            .order_by(log_batch.c.first_index.desc())
            .limit(1)
        )
        row: Row | None = connection.execute(query).first()
        if row is not None:
            batch, first = row
            found[index] = batch, index - first
    return found


def _changed(connection: Connection, found: Leaves) -> Sequence[Tampering]:
    """Rows that hash to something else than was logged at their place."""
    if not found.changed:
        return ()
    places = _places(connection, (index for index, _ in found.changed))
    rows = {
        place: (logged, row)
        for logged in (VERDICTS, DECISIONS)
        for place, row in leaves.rows_at(connection, logged, list(places.values())).items()
    }
    result: list[Tampering] = []
    for index, _ in found.changed:
        known = rows.get(places.get(index, (-1, -1)))
        if known is None:
            result.append(Tampering("log_batch", f"leaf {index}", "its row names another place now", index))
            continue
        logged, row = known
        problem = "is not what was logged"
        result.append(Tampering(logged.title, logged.name(row), problem, index, row[logged.time]))
    return result


def _put_back(found: Leaves, displaced: dict[bytes, Tampering], findings: Findings) -> None:
    """Rows that name no place, and leaves that miss just those rows, are one finding."""
    for index, logged in list(found.missing):
        row = displaced.pop(logged, None)
        if row is not None:
            found.missing.remove((index, logged))
            findings.add(replace(row, index=index))
    for row in displaced.values():
        findings.add(row)


def _missing(connection: Connection, found: Leaves, gaps: Sequence[Gap]) -> Sequence[Tampering]:
    """Leaves without a row, by the gaps that they left; then gaps that no missing leaf explains."""
    certain = {index for index, _ in found.missing}
    missing = sorted(certain | {index for index, _ in found.rejudged})
    places = _places(connection, missing)
    left, result = list(gaps), list[Tampering]()
    for index in missing:
        batch = places.get(index)
        at = None if batch is None else log_batches.made_at(batch[0])
        fitting = [one for one in left if one.after < index and (one.before is None or index < one.before)]
        if not fitting and index not in certain:
            found.not_kept += 1  # a whole past was dropped, or went with history: nobody can tell
            continue
        if not fitting:
            what = "a verdict or a decision that was logged is not there any more"
            result.append(Tampering("attestation or audit", f"leaf {index}", what, index, at))
            continue
        gap = min(fitting, key=lambda one: (one.before is None, one.before or 0))
        left.remove(gap)
        if gap.first < gap.last:
            left.append(replace(gap, first=gap.first + 1, after=index))
        key = f"attester_id {gap.attester_id}, sequence {gap.first}"
        result.append(Tampering("attestation", key, "is not there any more", index, at))
    for gap in left:
        if gap.newest:
            key = f"attester_id {gap.attester_id}, sequence {gap.last}"
            result.append(Tampering("latest", key, "shows a verdict that is not there", None))
    return result
