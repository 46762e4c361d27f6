"""New connections, let in a few at a time: the kernel's queue holds the others, and what they take up is bounded.

A TLS handshake costs 0.6 ms of CPU and some 35 KB before anything is known of who asks. So only a number of them goes on
at once, and none is begun while the process has all the connections it may have. Whoever connects then waits in the
kernel, where it costs next to nothing. A handshake that stands still holds its place for `STILL` seconds where others
wait for one, and for `PATIENCE` where nobody does: clients that connect and say nothing keep nobody out.
"""

from __future__ import annotations

import asyncio
import collections
import math
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from aiohttp import web

from verifier.web.connections import Connections
from verifier.web.proxies import Proxies
from verifier.web.proxy_header import read_header

PATIENCE: Final = 15.0
"""Seconds for a whole handshake."""
STILL: Final = 5.0
"""Seconds after which a handshake makes room for whoever waits."""
_GRACE: Final = 1.0
"""Seconds that a client has, once nobody listens any more, to go on with what it has just begun."""
_GOODBYE: Final = 3.0
"""Seconds that a client has to close a connection which was closed here."""
_AT_ONCE: Final = 16
"""Connections taken from one queue before others in the process have their turn."""
_LOOK_AGAIN: Final = 0.25
_LOOK_AT_BEGUN: Final = 0.01
_NO_MEANS: Final = 1.0
"""Seconds to wait where the system has no descriptor or no memory for a further connection."""
_UNACKED: Final = 24
"""Offset of `tcpi_unacked` in Linux' `struct tcp_info`: of a listening socket, how many wait to be accepted."""
_log = structlog.get_logger("vtpm_attest.web")


class Door:
    """What all listening sockets of a process share: the places for handshakes, and who waits for one.

    Args:
        most: handshakes at once.
        kept: the connections that are open.
        now: seconds that only grow.
    """

    def __init__(self, most: int, kept: Connections, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._kept = kept
        self._now = now
        self._under_way: dict[asyncio.Task[None], float] = {}
        """Since when, the oldest first."""
        self._acceptors: list[Acceptor] = []
        self._paused: set[Acceptor] = set()
        self._look: asyncio.TimerHandle | None = None
        kept.when_lost = self.resume
        self.failed: collections.Counter[str] = collections.Counter()
        """Handshakes that came to nothing, by why: `handshake-slow`, `handshake-broken`."""

    @property
    def handshakes(self) -> int:
        """Under way now."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """Connections in the kernel's queues."""
        return sum(one.waiting() for one in self._acceptors)

    def opened(self, acceptor: Acceptor) -> None:
        """It listens."""
        self._acceptors.append(acceptor)

    def closed(self, acceptor: Acceptor) -> None:
        """It does not any more."""
        self._acceptors.remove(acceptor)
        self._paused.discard(acceptor)

    async def finish(self) -> None:
        """Once nobody listens: who connected a moment ago has its first request answered; the others are given up."""
        if self._acceptors:
            return
        if self._look is not None:
            self._look.cancel()
        while self._newest() > self._now() - _GRACE:  # noqa: ASYNC110 - no event says that a request was read
            await asyncio.sleep(_LOOK_AT_BEGUN)
        for task in tuple(self._under_way):
            task.cancel()

    def _newest(self) -> float:
        """When the last of those came that have not asked for anything yet."""
        return max([*self._under_way.values(), *self._kept.silent.values()], default=-math.inf)

    def has_room(self) -> bool:
        """Whether one more may come in now; makes room where there is somebody who can spare it."""
        return len(self._under_way) < self._most and self._kept.has_room_for(len(self._under_way) + 1)

    def let_in(self, handshake: Coroutine[Any, Any, None]) -> None:
        """Go on with it, in a place of its own."""
        task = asyncio.get_running_loop().create_task(handshake)
        self._under_way[task] = self._now()
        task.add_done_callback(self._ended)

    def pause(self, acceptor: Acceptor, seconds: float = _LOOK_AGAIN) -> None:
        """It leaves its queue alone until there is room."""
        self._paused.add(acceptor)
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(seconds, self._look_again)

    def resume(self) -> None:
        """There may be room."""
        if self._paused and self.has_room():
            for acceptor in tuple(self._paused):
                acceptor.resume()
            self._paused.clear()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if task.cancelled():
            self.failed["handshake-slow"] += 1
        elif (error := task.exception()) is not None:
            self.failed["handshake-slow" if isinstance(error, TimeoutError) else "handshake-broken"] += 1
            if not isinstance(error, OSError):
                _log.error("http.accept-failed", exc_info=error)
        self.resume()

    def _look_again(self) -> None:
        """Those that stand still make room where somebody waits."""
        self._look = None
        if self._paused and len(self._under_way) >= self._most:
            latest = self._now() - STILL
            still = [task for task, since in self._under_way.items() if since <= latest]
            for task in still[: sum(one.waiting() for one in self._paused)]:
                task.cancel()
        self.resume()
        if self._paused:
            self._look = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look_again)


DOOR: Final = web.AppKey("door", Door)


class Acceptor(web.BaseSite):
    """Listens on one socket, and closes it in the end.

    Args:
        runner: of the application; set up.
        listening: bound, not blocking.
        door: shared with other sockets of the process.
        tls: None for HTTP in the clear.
        balancers: whose connections begin with the header of the PROXY protocol; None: nobody's.
    """

    __slots__ = ("_balancers", "_door", "_listening")

    def __init__(
        self,
        runner: web.BaseRunner,
        listening: socket.socket,
        door: Door,
        tls: ssl.SSLContext | None,
        balancers: Proxies | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._listening = listening
        self._door = door
        self._balancers = balancers

    @property
    def name(self) -> str:
        """Where it listens."""
        return str(self._listening.getsockname())

    async def start(self) -> None:
        """Accept."""
        await super().start()
        self._door.opened(self)
        self.resume()

    async def stop(self) -> None:
        """Accept no more. Handshakes that have begun go on while another socket of the process is open."""
        self._leave()
        self._door.closed(self)
        self._listening.close()
        await self._door.finish()
        await super().stop()

    def resume(self) -> None:
        """Take from the queue."""
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def waiting(self) -> int:
        """How many the kernel has in its queue; where it does not say, whether there is any."""
        with suppress(OSError, AttributeError, struct.error):
            told = self._listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
            return int(struct.unpack_from("=I", told, _UNACKED)[0])
        queue = select.poll()
        queue.register(self._listening, select.POLLIN)
        return len(queue.poll(0))

    def _leave(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listening)

    def _take(self) -> socket.socket:
        return self._listening.accept()[0]

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._door.has_room():
                self._leave()
                self._door.pause(self)
                return
            try:
                client = self._take()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("http.cannot-accept", problem=str(error), effect="tries again in a second")
                self._leave()
                self._door.pause(self, _NO_MEANS)
                return
            client.setblocking(False)  # noqa: FBT003 - it has no name
            self._door.let_in(self._shake_hands(client))

    async def _shake_hands(self, client: socket.socket) -> None:
        """The connection is the application's once this is through."""
        factory = self._runner.server
        if factory is None:
            raise ConnectionAbortedError("the service ends")
        goodbye = None if self._ssl_context is None else _GOODBYE
        try:
            async with asyncio.timeout(PATIENCE):
                origin = await self._origin(client)

                def made() -> asyncio.Protocol:
                    handler: Any = factory()
                    handler.origin = origin
                    return cast("asyncio.Protocol", handler)

                await asyncio.get_running_loop().connect_accepted_socket(
                    made, client, ssl=self._ssl_context, ssl_shutdown_timeout=goodbye
                )
        except BaseException:
            client.close()
            raise

    async def _origin(self, client: socket.socket) -> str | None:
        """Whose connection a balancer says it is; None: its peer's own."""
        if self._balancers is None or not self._balancers.trusts(str(client.getpeername()[0])):
            return None
        loop = asyncio.get_running_loop()
        return await read_header(lambda size: loop.sock_recv(client, size))
