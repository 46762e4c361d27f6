"""PostgreSQL's hot path: as few round trips as a batch can do with, on connections that are kept for it.

Straight to asyncpg: to check a connection out of a pool, test it and compile a cached statement costs more than the statement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, Protocol, TypeVar

import asyncpg
from sqlalchemy import Select, any_, bindparam
from sqlalchemy.dialects import postgresql

from verifier.store import recording, statements
from verifier.store.faults import begun_again
from verifier.store.held import Held
from verifier.store.leaves import LogBatch
from verifier.store.log_batches import new_id
from verifier.store.prepared import POSTGRESQL, Common, Together, places_for, prepared, several
from verifier.store.recording import Plan, PreparedRecording, Step
from verifier.store.rows import Row, Values
from verifier.store.schema import attester, latest
from verifier.store.statements import HotStatements, Insert, Lookup

T = TypeVar("T")
R = TypeVar("R")

CUT: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InternalClientError,
)
"""The connection is gone, for whatever reason; the last: the driver lost its place when the server took its leave."""
_ATTEMPTS: Final = 5
_FAREWELL: Final = 5.0
_HOT: Final = HotStatements(postgresql.insert)
_ROWS: Final = {step: prepared(statement, POSTGRESQL) for step, statement in _HOT.batch.items()}
MOST: Final = 72
"""Rows in one statement: nearly always more than ask at once."""
KEPT_TEXT: Final = 32 * 1024
"""Characters of the longest statement that the driver keeps as prepared: to plan one costs more than to run it."""
_NONCES: Final = several(_HOT.spend_nonce.returning(statements.NONCE_HASH))
STEADY: Final = (Step.BLOBS, Step.LOG_BATCHES, Step.ATTESTATIONS, Step.LATEST)
"""What every attestation writes: at once, where it is all there is to write or the rest comes before."""
MANY: Final = {
    step: several(statement)
    for step, statement in _HOT.batch.items()
    if step in STEADY and isinstance(statement, Insert)
}
_ALL_STEADY: Final = Together(
    (MANY[Step.BLOBS],), MANY[Step.LOG_BATCHES], Common(MANY[Step.ATTESTATIONS], MANY[Step.LATEST])
)


class HotConnection(Protocol):
    """What is used of asyncpg's connection."""

    async def execute(self, query: str, *values: object) -> str: ...  # noqa: D102
    async def executemany(self, query: str, rows: Sequence[Sequence[object]]) -> None: ...  # noqa: D102
    async def fetch(self, query: str, *values: object) -> Sequence[Row]: ...  # noqa: D102
    def is_closed(self) -> bool: ...  # noqa: D102
    def is_in_transaction(self) -> bool: ...  # noqa: D102
    def terminate(self) -> None: ...  # noqa: D102
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109, D102 - theirs


class Line:
    """One connection, made when it is needed and again when it is gone. For one user at a time."""

    def __init__(
        self, connect: Callable[[], Awaitable[HotConnection]], opened: Callable[[], None] = lambda: None
    ) -> None:
        self._connect = connect
        self._opened = opened
        self._connection: HotConnection | None = None
        self._elsewhere = False

    async def read(self, query: str, *values: object) -> Sequence[Row]:
        """The rows of a query."""
        try:
            return await self._first(lambda connection: connection.fetch(query, *values))
        except asyncpg.PostgresError:
            raise
        except BaseException:  # above all where the server says nothing: the answer may still come, to nobody
            self.drop()
            raise

    async def alone(self, statement: Callable[[HotConnection], Awaitable[T]]) -> T:
        """A statement that is a transaction by itself. Sent once: where the connection is cut nobody knows whether it was done."""
        if self._elsewhere:
            self.drop()
        try:
            return await statement(await self._open())
        except asyncpg.PostgresError:
            raise
        except BaseException:
            self.drop()
            raise

    async def transaction(self, work: Callable[[HotConnection], Awaitable[T]]) -> T:
        """`work` between BEGIN and COMMIT; undone by an exception. Begun again when another replica's got in its way."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._transaction(work)
            except asyncpg.PostgresError as error:
                if not begun_again(error):
                    raise
        return await self._transaction(work)

    async def _transaction(self, work: Callable[[HotConnection], Awaitable[T]]) -> T:
        try:
            result = await _done(await self._begun(), work)
        except asyncpg.PostgresError:
            if self._connection is not None and self._connection.is_in_transaction():
                self.drop()
            raise
        except BaseException:
            self.drop()
            raise
        return result

    async def _begun(self) -> HotConnection:
        """The connection that has a transaction: never another one, on which each statement would stand for itself."""
        await self._first(lambda connection: connection.execute("BEGIN"))
        if self._connection is None or self._connection.is_closed():
            raise ConnectionResetError("the connection was cut after BEGIN")
        return self._connection

    async def _first(self, statement: Callable[[HotConnection], Awaitable[T]]) -> T:
        """What is sent first; on a new connection if the one at hand was cut, or turned away from, since it was used last."""
        if self._elsewhere:
            self.drop()
        if self._connection is not None and not self._connection.is_closed():
            try:
                return await statement(self._connection)
            except CUT:
                self.drop()
        return await statement(await self._open())

    async def _open(self) -> HotConnection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
            self._opened()
        return self._connection

    def turn_away(self) -> None:
        """Connect anew for what comes next. For anybody, at any time: whoever uses the line now does so to the end."""
        self._elsewhere = True

    def drop(self) -> None:
        """Let go of the connection without a word. For its user alone."""
        connection, self._connection = self._connection, None
        self._elsewhere = False
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Take leave of the server."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=_FAREWELL)


async def _done(connection: HotConnection, work: Callable[[HotConnection], Awaitable[T]]) -> T:
    """What was begun, committed or undone."""
    try:
        result = await work(connection)
    except asyncpg.InterfaceError as error:  # of the driver, not of the server: it says nothing of why
        if connection.is_closed():
            raise ConnectionResetError("the connection was cut between two statements") from error
        await connection.execute("ROLLBACK")
        raise
    except Exception:
        # Not where it was cancelled, which is where nothing may be waited for; nor where the connection was cut.
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    if connection.is_closed():
        raise ConnectionResetError("the connection was cut before COMMIT")
    await connection.execute("COMMIT")
    return result


def looking_up(lookup: Lookup) -> str:
    """The rows of the keys that are given; one text, however many there are."""
    return prepared(_many(lookup), POSTGRESQL).text


def _many(lookup: Lookup) -> Select[*tuple[Any, ...]]:
    keys = bindparam("keys", type_=postgresql.ARRAY(lookup.key.type))
    return lookup.query.where(lookup.key == any_(keys))


_LOCK_KNOWN: Final = prepared(
    _many(statements.KNOWN_ATTESTER)
    .order_by(latest.c.attester_id)
    # Not FOR UPDATE, which the foreign keys of other transactions' rows would wait for.
    .with_for_update(key_share=True, of=(latest, attester)),
    POSTGRESQL,
).text


async def write(connection: HotConnection, batch: Sequence[PreparedRecording], held: Held) -> Plan:
    """Store a batch of recordings in the caller's transaction."""
    found = await connection.fetch(_LOCK_KNOWN, sorted({item.attester_id for item in batch}))
    known = {row[0]: recording.known(row) for row in found}
    fresh: set[bytes] = set()
    for nonces in _some(recording.spendable(batch, known)):
        places = places_for(len(nonces))
        spent = await connection.fetch(_NONCES.text(places), *_NONCES.values(nonces, places))
        fresh |= {row[0] for row in spent}
    plan = recording.plan(batch, known, fresh, held, LogBatch(new_id()))
    planned = dict(plan.rows())
    at_once = planned.keys() >= set(STEADY)
    for step, rows in planned.items():
        if at_once and step in STEADY:
            if step is STEADY[-1]:
                await _write_steady(connection, plan, planned)
        elif step in MANY:
            for some in _some(rows):
                places = places_for(len(some))
                await connection.execute(MANY[step].text(places), *MANY[step].values(some, places))
        else:
            await connection.executemany(_ROWS[step].text, list(map(_ROWS[step].row, rows)))
    return plan


async def _write_steady(
    connection: HotConnection, plan: Plan, planned: Mapping[Step, Sequence[Values]]
) -> None:
    """What every attestation writes."""
    log, common = planned[Step.LOG_BATCHES], [(*row, ()) for row in verdicts(plan)]
    for own, both in zip_longest(_some(planned[Step.BLOBS]), _some(common), fillvalue=()):
        places = places_for(max(len(own), len(both)))
        await connection.execute(_ALL_STEADY.text(places), *_ALL_STEADY.values((own,), log, both, places))
        log = ()


def verdicts(plan: Plan) -> list[tuple[Values, Values, bool]]:
    """Rows of `attestation`, those of `latest`, and which become the latter: of several of one attester the newest."""
    newest = [plan.latest[row["attester_id"]] for row in plan.attestations]
    return [
        (row, latest, row["sequence"] == latest["sequence"])
        for row, latest in zip(plan.attestations, newest, strict=True)
    ]


def _some(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    for at in range(0, len(rows), MOST):
        yield rows[at : at + MOST]
