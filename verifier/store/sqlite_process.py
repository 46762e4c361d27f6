"""Recordings, written to SQLite by a process of their own: this side of it.

Threads would do, but Python's module for SQLite lets go of the interpreter at each step of a statement, so that the thread and
the event loop wait for each other all the time: together they took an eighth more CPU than the two processes do, and at
seven tenths of full speed the slowest of a hundred answers came after half as long again or more (docs/adr/0003-store.md).
"""

from __future__ import annotations

import asyncio
import marshal
import socket
import sqlite3
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from verifier.errors import StoreUnavailable
from verifier.store import recording, sqlite_child, values
from verifier.store.held import Held
from verifier.store.leaves import LogBatch
from verifier.store.log_batches import new_id
from verifier.store.prepared import Prepared
from verifier.store.recording import PreparedRecording, Step
from verifier.store.rows import Row

_PROGRAM: Final = Path(sqlite_child.__file__)
_HEAD: Final = sqlite_child.HEAD


class Setup(NamedTuple):
    """What the process is told first."""

    uri: str
    busy_seconds: float
    pragmas: Sequence[str]
    known: str
    """Query for who is known of a JSON array of ids."""
    judged: str
    """The same, for what recordings were judged by: `statements.JUDGED_ATTESTER`."""
    spend: Prepared
    batch: Mapping[Step, Prepared]


class _Talk(asyncio.Protocol):
    """Requests over one connection, answered in their order."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._asked: deque[asyncio.Future[Any]] = deque()
        """One for each answer that is still to come, whoever waits for it."""
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) > _HEAD:
            end = _HEAD + int.from_bytes(self._received[:_HEAD], "little")
            if len(self._received) < end:
                break
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_result(marshal.loads(self._received[_HEAD:end]))  # noqa: S302 - of a process we have started
            del self._received[:end]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - that it is lost is all there is to know
        self.over = True
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(
                    StoreUnavailable(
                        "the process that writes to SQLite has ended; whether it wrote this is not known"
                    )
                )
        self._asked.clear()

    def tell(self, message: tuple[Any, ...]) -> None:
        body = marshal.dumps(message)
        self._transport.write(len(body).to_bytes(_HEAD, "little") + body)

    async def ask(self, *request: Any) -> Any:  # noqa: ANN401 - what the request takes, and is answered with
        """The result.

        Raises:
            StoreUnavailable: the process has ended.
            sqlite3.Error: as it was raised there; the transaction is to be undone.
        """
        if self.over:
            raise StoreUnavailable("the process that writes to SQLite has ended")
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.tell(request)
        self._asked.append(asked)
        done, *result = await asked
        if not done:
            raise _raised(*result)
        return result[0]

    def close(self) -> None:
        self._transport.close()


def _raised(name: str, message: str, code: int | None, known_as: str | None) -> Exception:
    kind = getattr(sqlite3, name, None)
    if not (isinstance(kind, type) and issubclass(kind, sqlite3.Error)):
        return RuntimeError(f"{name} in the process that writes to SQLite: {message}")
    error: sqlite3.Error = kind(message)
    if code is not None and known_as is not None:
        error.sqlite_errorcode, error.sqlite_errorname = code, known_as
    return error


class RecordingProcess:
    """Writes batches of recordings, one at a time. The process is started for the first, and again when it has ended."""

    def __init__(self, setup: Callable[[], Setup]) -> None:
        self._make_setup = setup
        self._setup: Setup
        self._process: Process | None = None
        self._talk: _Talk | None = None

    async def write(self, batch: Sequence[PreparedRecording], held: Held) -> recording.Plan:
        """Store a batch in one transaction, durably.

        Raises:
            StoreUnavailable: the process ended meanwhile. Where that was during the commit, nobody knows whether it was made.
            sqlite3.Error: nothing is stored.
        """
        talk = await self._running()
        try:
            ids = values.json_text(list({item.attester_id for item in batch}))
            plan = recording.plan_steady(batch, held, LogBatch(new_id()))
            at_once = None if plan is None else self._at_once(batch, plan)
            found = await talk.ask("begin", self._setup.known, ids, at_once)
            if plan is None or found is not None:
                plan = await self._written(talk, batch, found, held)
        except BaseException:
            held.forget()
            if not talk.over:
                await talk.ask("undo")
            raise
        held.note(plan.shared, plan.named)
        return plan

    async def close(self) -> None:
        """End the process. Nothing may be under way."""
        if self._talk is not None:
            self._talk.close()
        if self._process is not None:
            await self._process.wait()
        self._talk = self._process = None

    def _at_once(self, batch: Sequence[PreparedRecording], plan: recording.Plan) -> tuple[object, ...]:
        """What is done of `plan` if all is as it was when the batch was judged."""
        judged_by = [(item.attester_id, item.tenant, item.follows, *(item.basis or ())) for item in batch]
        spend = self._setup.spend
        nonces = [spend.row(item.nonce) for item in batch]
        return self._setup.judged, judged_by, spend.text, nonces, self._parts(plan)

    async def _written(
        self, talk: _Talk, batch: Sequence[PreparedRecording], found: Sequence[Row], held: Held
    ) -> recording.Plan:
        """Nearly always all nonces are fresh, so that is what is sent; only if one is not the rest is planned again."""
        known = _known(found)
        nonces = recording.spendable(batch, known)
        plan = recording.plan(batch, known, {one["hash"] for one in nonces}, held, LogBatch(new_id()))
        spend = self._setup.spend
        fresh = await talk.ask("write", spend.text, [spend.row(one) for one in nonces], self._parts(plan))
        if fresh is None:
            return plan
        unspent = {one["hash"] for one, is_fresh in zip(nonces, fresh, strict=True) if is_fresh}
        plan = recording.plan(batch, _known(found), unspent, held, LogBatch(new_id()))
        await talk.ask("write", spend.text, (), self._parts(plan))
        return plan

    def _parts(self, plan: recording.Plan) -> list[tuple[str, list[Row]]]:
        """Statements, and their rows by position."""
        batch = self._setup.batch
        return [(batch[step].text, list(map(batch[step].row, rows))) for step, rows in plan.rows()]

    async def _running(self) -> _Talk:
        talk = self._talk
        if talk is not None and not talk.over:
            return talk
        await self.close()
        self._talk = await self._start()
        return self._talk

    async def _start(self) -> _Talk:
        setup = self._setup = self._make_setup()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                )
            ours.setblocking(False)  # noqa: FBT003 - the module's own signature
            _, talk = await asyncio.get_running_loop().create_unix_connection(_Talk, sock=ours)
        except OSError as error:
            ours.close()
            raise StoreUnavailable(f"the process that writes to SQLite cannot be started: {error}") from error
        except BaseException:
            ours.close()
            raise
        talk.tell((setup.uri, setup.busy_seconds, tuple(setup.pragmas)))
        return talk


def _known(found: Sequence[Row]) -> dict[str, recording.Known]:
    return {row[0]: recording.known(row) for row in found}
