"""Where a serving process stands: what it listens on, whom it tells, and what ends it."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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

    def ready(self, tls: TlsFiles) -> None:
        """Tell people and the service manager."""
        self.announce(tls)
        self.manager.ready("1 worker")

    async def until_told(self) -> Ending:
        """SIGTERM, SIGINT, or SIGHUP with settings that can be used; meanwhile the watchdog is fed."""
        endings: asyncio.Queue[Ending] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, endings.put_nowait, Ending.STOP)
        loop.add_signal_handler(signal.SIGHUP, endings.put_nowait, Ending.RELOAD)
        beat = self.manager.watchdog / 2 if self.manager.watchdog else None
        while True:
            try:
                async with asyncio.timeout(beat):
                    ending = await endings.get()
            except TimeoutError:
                self.manager.alive()
                continue
            if ending is Ending.RELOAD and not await self._usable(beat):
                continue
            if ending is Ending.RELOAD:
                self.manager.reloading()
            return ending

    async def _usable(self, beat: float | None) -> bool:
        """Ask, and feed the watchdog meanwhile."""
        asked = asyncio.ensure_future(self.usable())
        while not asked.done():
            await asyncio.wait({asked}, timeout=beat)
            self.manager.alive()
        return asked.result()

    def stopping(self) -> None:
        """Nothing: whether this is the end or a new beginning, `until_told` has said."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes under a `Supervisor`, which hears the signals of people."""

    placement: Placement
    alone: bool = False

    @property
    def sockets(self) -> Sockets:
        """As the parent opened them."""
        return self.placement.sockets

    @property
    def metrics(self) -> Exchange | None:
        """Of all workers, in the parent's directory."""
        directory = self.placement.metrics
        return None if directory is None else Exchange(directory, self.placement.slot)

    def ready(self, tls: TlsFiles) -> None:  # noqa: ARG002 - the parent announces
        """Tell the parent."""
        self.placement.ready()

    async def until_told(self) -> Ending:
        """SIGTERM, or the end of the parent."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        # A Ctrl-C reaches every process of the terminal; the parent decides.
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, _leave_it)
        loop.add_reader(self.placement.parent, stop.set)
        try:
            await stop.wait()
        finally:
            loop.remove_reader(self.placement.parent)
        return Ending.STOP

    def stopping(self) -> None:
        """The parent sees the process end."""


def _leave_it() -> None:
    """Nothing."""
