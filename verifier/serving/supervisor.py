"""Several workers under one parent, which serves nothing itself: it starts them, replaces them, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from verifier.errors import VerifierFault
from verifier.serving.manager import OURS, Manager
from verifier.serving.sockets import Sockets
from verifier.serving.worker import READY, handed

START_TIMEOUT: Final = 120.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
_STEADY: Final = 60.0
"""A worker that lived as long is started anew at once when it ends."""
_log = structlog.get_logger("vtpm_attest.supervisor")


@dataclass(slots=True, eq=False)
class _Child:
    """One worker process."""

    slot: int
    process: Process
    channel: socket.socket
    started: float
    leaving: bool = False
    """Was told to end; its end is no fault."""

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps one worker on each slot of sockets.

    Attributes:
        command: argument vector of a worker; the environment tells it its place.
        slots: what each worker listens on. Kept open here, so no queued connection is lost between two workers.
        manager: who wants to know.
        grace: seconds a worker has to finish what it began.
        usable: whether what is configured now could be started with; says so itself where not.
    """

    command: Sequence[str]
    slots: Sequence[Sockets]
    environment: Mapping[str, str]
    manager: Manager
    grace: float
    usable: Callable[[], Awaitable[bool]]
    _children: dict[int, _Child] = field(default_factory=dict)
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)
    _pauses: dict[int, float] = field(default_factory=dict)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _reload: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, announce: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT; SIGHUP replaces the workers one generation at a time.

        Raises:
            VerifierFault: a worker did not come up at the first start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        try:
            self._children = await self._generation()
            announce()
            self.manager.ready(self._status())
            await self._keep()
        finally:
            self.manager.stopping()
            await self._end([*self._children.values()])
            for watcher in self._watchers:
                watcher.cancel()

    async def _keep(self) -> None:
        for child in self._children.values():
            self._watch(child)
        beat = self.manager.watchdog / 2 if self.manager.watchdog else None
        stopped = asyncio.create_task(self._stop.wait())
        try:
            while not stopped.done():
                reload = asyncio.create_task(self._reload.wait())
                await asyncio.wait({stopped, reload}, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
                reload.cancel()
                self.manager.alive()
                if self._reload.is_set() and not stopped.done():
                    self._reload.clear()
                    await self._replace()
        finally:
            stopped.cancel()

    async def _replace(self) -> None:
        """New workers with the settings of now beside the old ones; these end when the new ones answer."""
        self.manager.reloading()
        try:
            fresh = await self._successors()
        except VerifierFault as error:
            _log.error("workers.reload-failed", problem=str(error), effect="the running workers go on")
        else:
            old, self._children = self._children, fresh
            for child in fresh.values():
                self._watch(child)
            _log.info("workers.reloaded", workers=len(fresh))
            await self._end([*old.values()])
        self.manager.ready(self._status())

    async def _successors(self) -> dict[int, _Child]:
        """Workers with what is configured now, or `VerifierFault`."""
        if not await self.usable():
            raise VerifierFault("what is configured now cannot be started with; why is said above")
        return await self._generation()

    async def _generation(self) -> dict[int, _Child]:
        """A worker on every slot, all of them ready; or none, and `VerifierFault`."""
        children: list[_Child] = []
        try:
            for slot in range(len(self.slots)):
                children.append(await self._spawn(slot))  # noqa: PERF401 - those before one that fails are ended
        except VerifierFault:
            await self._end(children)
            raise
        if not all(await asyncio.gather(*map(self._ready, children))):
            await self._end(children)
            raise VerifierFault("a worker did not start; its own message on stderr, above, says why")
        return {child.slot: child for child in children}

    async def _spawn(self, slot: int) -> _Child:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        said, inherited = handed(self.slots[slot], theirs, slot)
        kept = {name: value for name, value in self.environment.items() if name not in OURS}
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.command, env={**kept, **said}, pass_fds=inherited
                )
            except OSError as error:
                ours.close()
                raise VerifierFault(f"a worker cannot be started: {error}") from error
        return _Child(slot, process, ours, time.monotonic())

    async def _ready(self, child: _Child) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await loop.sock_recv(child.channel, len(READY)) == READY
        except TimeoutError:
            return False

    def _watch(self, child: _Child) -> None:
        watcher = asyncio.create_task(self._follow(child))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _follow(self, child: _Child) -> None:
        """Wait for its end, and put another in its place if nobody asked for the end."""
        code = await child.process.wait()
        while not (child.leaving or self._stop.is_set() or self._children.get(child.slot) is not child):
            child.channel.close()
            pause = self._pause(child)
            _log.error("worker.ended", slot=child.slot, pid=child.process.pid, code=code, restart_in=pause)
            await asyncio.sleep(pause)
            if self._stop.is_set() or self._children.get(child.slot) is not child:
                return
            try:
                child = self._children[child.slot] = await self._spawn(child.slot)
            except VerifierFault as error:
                _log.error("worker.not-started", slot=child.slot, problem=str(error))
                continue
            if await self._ready(child):
                _log.info("worker.restarted", slot=child.slot, pid=child.process.pid)
            else:
                child.signal(signal.SIGKILL)
            code = await child.process.wait()

    def _pause(self, child: _Child) -> float:
        """Longer each time it ends early, so that a broken machine is not kept busy with starts."""
        if time.monotonic() - child.started > _STEADY:
            self._pauses.pop(child.slot, None)
        pause = self._pauses.get(child.slot, _FIRST_PAUSE)
        self._pauses[child.slot] = min(2 * pause, _LONGEST_PAUSE)
        return pause

    async def _end(self, children: Sequence[_Child]) -> None:
        """SIGTERM, the grace, then SIGKILL."""
        for child in children:
            child.leaving = True
            child.signal(signal.SIGTERM)
        waits = [asyncio.create_task(child.process.wait()) for child in children]
        if waits:
            _, late = await asyncio.wait(waits, timeout=self.grace)
            for child in children:
                child.signal(signal.SIGKILL)
            if late:
                _log.error("workers.killed", workers=len(late), after=self.grace)
                await asyncio.wait(late)
        for child in children:
            child.channel.close()

    def _status(self) -> str:
        return f"{len(self._children)} workers, parent {os.getpid()}"
