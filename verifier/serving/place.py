"""Where a serving process stands: what it listens on, whom it tells, and what ends it."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from verifier.keys.tls import TlsFiles
from verifier.serving.manager import Manager
from verifier.serving.sockets import Sockets
from verifier.serving.worker import Placement
from verifier.web.metrics_exchange import Exchange


class Ending(enum.Enum):
    """Why a process stops serving."""

    STOP = "stop"
    RELOAD = "reload"
    """SIGHUP: it is started anew, on the same sockets."""


class Place(Protocol):
    """What `serve` needs to know of its surroundings."""

    @property
    def sockets(self) -> Sockets:
        """Listening already; whoever connects early waits in their queue."""

    @property
    def alone(self) -> bool:
        """Whether nobody has prepared the state directory."""

    @property
    def metrics(self) -> Exchange | None:
        """Shared with other workers; None: there are none."""

    def hear(self) -> None:
        """From now on a signal is for `until_told`: called before a connection is accepted."""

    def ready(self, tls: TlsFiles) -> None:
        """Connections are accepted."""

    async def until_told(self) -> Ending:
        """Wait for the signal to end."""

    def stopping(self) -> None:
        """No more connections are accepted."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The one process of a service."""

    sockets: Sockets
    manager: Manager
    announce: Callable[[TlsFiles], None]
    usable: Callable[[], Awaitable[bool]]
    """Whether what is configured now could be started with; says so itself where not."""
    alone: bool = True
    metrics: None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _reload: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self) -> None:
        """SIGTERM, SIGINT and SIGHUP, the one included that came while this process started in the place of another."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def ready(self, tls: TlsFiles) -> None:
        """Tell people and the service manager."""
        self.announce(tls)
        self.manager.ready("1 worker")

    async def until_told(self) -> Ending:
        """SIGTERM, SIGINT, or SIGHUP with settings that can be used; meanwhile the watchdog is fed."""
        while await self._before_a_stop(self._reload.wait()):
            self._reload.clear()
            if await self._before_a_stop(self.usable()):
                # Another one waits for the successor, which would be ended by it before it can hear.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
                self.manager.reloading()
                return Ending.RELOAD
        return Ending.STOP

    async def _before_a_stop(self, work: Awaitable[bool]) -> bool:
        """Whether it came true; given up, and false, as soon as it is to end."""
        beat = self.manager.watchdog / 2 if self.manager.watchdog else None
        stop, asked = asyncio.create_task(self._stop.wait()), asyncio.ensure_future(work)
        try:
            while not (stop.done() or asked.done()):
                await asyncio.wait({stop, asked}, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
                self.manager.alive()
            return not stop.done() and asked.result()
        finally:
            stop.cancel()
            asked.cancel()

    def stopped(self) -> bool:
        """Whether it is to end, also where that was said after the reload had begun."""
        return self._stop.is_set()

    def stopping(self) -> None:
        """Nothing: whether this is the end or a new beginning, `until_told` has said."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes under a `Supervisor`, which hears the signals of people."""

    placement: Placement
    alone: bool = False
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sockets(self) -> Sockets:
        """As the parent opened them."""
        return self.placement.sockets

    @property
    def metrics(self) -> Exchange | None:
        """Of all workers, in the parent's directory."""
        directory = self.placement.metrics
        return None if directory is None else Exchange(directory, self.placement.slot)

    def hear(self) -> None:
        """SIGTERM, or the end of the parent."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # A Ctrl-C reaches every process of the terminal; the parent decides.
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, _leave_it)
        loop.add_reader(self.placement.parent, self._stop.set)

    def ready(self, tls: TlsFiles) -> None:  # noqa: ARG002 - the parent announces
        """Tell the parent."""
        self.placement.ready()

    async def until_told(self) -> Ending:
        """Once `hear` was told."""
        try:
            await self._stop.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self.placement.parent)
        return Ending.STOP

    def stopping(self) -> None:
        """The parent sees the process end."""


def _leave_it() -> None:
    """Nothing."""
