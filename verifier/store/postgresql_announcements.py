"""NOTIFY and LISTEN: what one replica changes, the others hear of within milliseconds.

A NOTIFY inside a transaction makes its commit take turns with every other such commit of the database, disk flush
included. So a change is told by a transaction of its own, after its commit, on the connection that also listens, and
without waiting for the disk: whatever has gathered while one was on its way is told by the next, each change once. What
a crash between the two leaves untold, the others find when they look by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import asyncpg
import structlog

from verifier.errors import VerifierFault
from verifier.ports_announcements import Announcement, Topic
from verifier.store.announcing import APPENDED, LocalAnnouncements
from verifier.store.postgresql_connections import Connector

_CHANNEL: Final = "vtpm_attest"
_SAY: Final = "SELECT pg_notify($1, said) FROM unnest($2::text[]) AS said"
_SETTINGS: Final = {"application_name": "vtpm-attest listens", "synchronous_commit": "off"}
_AT_ONCE: Final = 500
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
_ALIVE: Final = 15.0
"""Seconds of silence after which the connection is asked whether it is still there."""
_PATIENCE: Final = 5.0
_FAULTS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, VerifierFault)
_log = structlog.get_logger("vtpm_attest.announcements")


class _Connection(Protocol):
    """What is used of asyncpg's connection."""

    async def execute(self, query: str, *values: object, timeout: float) -> str: ...  # noqa: ASYNC109 - theirs
    async def add_listener(self, channel: str, heard: Callable[[object, int, str, str], None]) -> None: ...
    def add_termination_listener(self, ended: Callable[[object], None]) -> None: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109 - theirs
    def terminate(self) -> None: ...


class PostgresqlAnnouncements(LocalAnnouncements):
    """One connection that listens and tells; made again, with growing pauses, whenever it is gone."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._connector = Connector(dsn, _SETTINGS)
        self._own = secrets.token_hex(8)
        """Names this process, which need not hear what it said itself."""
        self._unsaid: dict[Announcement, None] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def committed(self, changes: tuple[Announcement, ...]) -> None:
        """Tell this process now, the others soon."""
        super().committed(changes)
        for change in changes:
            if change != APPENDED:
                self._say(change)

    def published(self) -> None:
        """Tell the others that there are events to be read."""
        self._say(APPENDED)

    def start(self) -> None:
        """Listen from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="store-announcements")

    async def close(self) -> None:
        """Stop listening. A command that ends says what it changed; if it cannot, the others look by themselves."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.state.told = False
        if self._unsaid:
            with contextlib.suppress(*_FAULTS):
                connection = await self._connect()
                try:
                    await self._say_all(connection)
                finally:
                    await _close(connection)

    def _say(self, change: Announcement) -> None:
        self._unsaid[change] = None
        self._changed.set()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._hold()
            except _FAULTS as error:
                if self.state.told:
                    self.state.losses += 1
                _log.warning(
                    "announcements.lost",
                    problem=str(error) or type(error).__name__,
                    effect="changes of other replicas count within seconds instead of at once",
                )
            finally:
                self.state.told = False
            if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _hold(self) -> None:
        """Listen and tell until the connection is gone, which raises."""
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: self._changed.set())
            await connection.add_listener(_CHANNEL, self._on_notification)
            self.state.told = True
            _log.info("announcements.listening")
            # Nobody told us until now.
            self._hear(Announcement(Topic.ANYTHING))
            while True:
                self._changed.clear()
                await self._say_all(connection)
                await self._something(connection)
        finally:
            await _close(connection)

    async def _something(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(_ALIVE):
                await self._changed.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=_PATIENCE)
        if connection.is_closed():
            raise ConnectionError("the server ended the connection")

    async def _say_all(self, connection: _Connection) -> None:
        while self._unsaid:
            saying = tuple(self._unsaid)[:_AT_ONCE]
            texts = [f"{self._own} {one.topic.value} {one.tenant}" for one in saying]
            # Before it is said: what changes again meanwhile is said again.
            for one in saying:
                del self._unsaid[one]
            try:
                await connection.execute(_SAY, _CHANNEL, texts, timeout=_PATIENCE)
            except BaseException:
                self._unsaid |= dict.fromkeys(saying)
                raise
            self.state.sent += len(saying)

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        sender, _, rest = payload.partition(" ")
        if sender == self._own:
            return
        topic, _, tenant = rest.partition(" ")
        # What a later version tells of, this one does not remember.
        if topic in set(Topic):
            self.state.received += 1
            self._hear(Announcement(Topic(topic), tenant))

    async def _connect(self) -> _Connection:
        made: _Connection = await self._connector()
        return made


async def _close(connection: _Connection) -> None:
    try:
        await connection.close(timeout=_PATIENCE)
    except _FAULTS:
        connection.terminate()
