"""History in bounds: whole partitions on PostgreSQL, rows in small batches on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection, Select, delete, func, select, tuple_

from verifier.errors import StoreUnavailable
from verifier.ports_history import HistoryPurge, StoredTable
from verifier.store import partitions, storage, values
from verifier.store.backend import StorePart, changed
from verifier.store.partitions import CHUNK
from verifier.store.schema import attestation, judgement, latest

_ATTEMPTS: Final = 5
_PAUSE: Final = 1.0
_VERDICT: Final = (attestation.c.attester_id, attestation.c.sequence)

T = TypeVar("T")


class Histories(StorePart):
    """`verifier.ports_history.HistoryStore`."""

    async def prepare_history(self, now: datetime) -> int:
        """Make this week's partition and those ahead, where they are missing."""
        if not self._backend.partitioned:
            return 0
        at = values.micros(now)
        existing = await self._patiently(partitions.partitions)
        made = 0
        for week in partitions.missing(existing, at):
            made += await self._patiently(partial(_make, week))
        return made

    async def purge_history(self, before: datetime) -> HistoryPurge:
        """Drop old verdicts, but for latest ones."""
        at = values.micros(before)
        if self._backend.partitioned:
            return await self._purge_partitions(at)
        old = (
            select(*_VERDICT)
            .outerjoin(
                latest,
                (latest.c.attester_id == attestation.c.attester_id)
                & (latest.c.sequence == attestation.c.sequence),
            )
            .where(attestation.c.judged_at < at, latest.c.attester_id.is_(None))
            .limit(CHUNK)
        )
        gone = delete(attestation).where(tuple_(*_VERDICT).in_(old))
        rows = await self._in_chunks(lambda connection: changed(connection, gone))
        return HistoryPurge(rows=rows, judgements=await self._purge_judgements(at))

    async def ahead_of_database(self, now: datetime) -> timedelta:
        """See the port."""
        if not self._backend.partitioned:
            return timedelta(0)
        (row,) = await self._backend.rows(select(func.clock_timestamp()))
        theirs: datetime = row[0]
        return now - theirs

    async def history_begins(self) -> datetime | None:
        """See the port."""
        read = partitions.begins if self._backend.partitioned else _begins
        return values.moment_or_none(await self._backend.write(read))

    async def storage(self) -> tuple[StoredTable, ...]:
        """Every table and partition, the largest first."""
        read = storage.of_postgresql if self._backend.partitioned else storage.of_sqlite
        return tuple(sorted(await self._backend.write(read), key=lambda one: (-one.size, one.name)))

    async def revision(self) -> str:
        """Of the schema."""
        return str(await self._backend.write(storage.revision))

    async def _purge_partitions(self, before: int) -> HistoryPurge:
        done = HistoryPurge()
        for one in await self._patiently(partitions.partitions):
            if one.ends <= before:
                done += await self._patiently(partial(_take_out, one))
        for name in await self._patiently(partitions.taken):
            await self._patiently(partial(_drop_taken, name))
        done += HistoryPurge(
            rows=await self._in_chunks(lambda connection: partitions.purge_rest(connection, before))
        )
        left = await self._patiently(partitions.partitions)
        if left and left[0].begins is not None:
            done += HistoryPurge(judgements=await self._purge_judgements(min(left[0].begins, before)))
        return done

    async def _purge_judgements(self, before: int) -> int:
        """Drop what was last named before the day of `before` and no latest verdict names.

        Every other verdict that is kept has to be newer. Whoever names one while this runs touches it first, and the
        delete looks at that day again: see the order of `recording.Step`.
        """
        day = before // values.DAY * values.DAY
        standing = select(latest.c.judgement).where(latest.c.judged_at < day).distinct()
        kept = {row[0] for row in await self._backend.rows(standing)}
        gone, after = 0, (-1, b"")
        while page := await self._backend.rows(_candidates(day, after)):
            after = page[-1][0], page[-1][1]
            unneeded = [digest for _, digest in page if digest not in kept]
            drop = delete(judgement).where(judgement.c.digest.in_(unneeded), judgement.c.last_used_at < day)
            gone += await self._backend.drop(partial(changed, statement=drop))
            self._backend.dropped()
        return gone

    async def _in_chunks(self, work: Callable[[Connection], int]) -> int:
        gone, last = 0, CHUNK
        while last == CHUNK:
            last = await self._backend.write(work)
            gone += last
        return gone

    async def _patiently(self, work: Callable[[Connection], T]) -> T:
        """Try again where a table was in use by somebody who takes his time."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._backend.write(work)
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
        return await self._backend.write(work)


def _candidates(day: int, after: tuple[int, bytes]) -> Select[int, bytes]:
    used, digest = judgement.c.last_used_at, judgement.c.digest
    beyond = (used > after[0]) | ((used == after[0]) & (digest > after[1]))
    return select(used, digest).where(used < day, beyond).order_by(used, digest).limit(CHUNK)


def _make(week: int, connection: Connection) -> bool:
    return partitions.make(connection, week)


def _take_out(one: partitions.Partition, connection: Connection) -> HistoryPurge:
    return partitions.take_out(connection, one)


def _drop_taken(name: str, connection: Connection) -> None:
    partitions.drop_taken(connection, name)


def _begins(connection: Connection) -> int | None:
    found: int | None = connection.execute(select(func.min(attestation.c.judged_at))).scalar()
    return found
