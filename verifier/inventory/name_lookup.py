"""Names to addresses by the operating system, where a name server that says nothing holds nobody else up.

The system's lookup blocks and cannot be called off. In the event loop's own few threads, a handful of hanging lookups
would keep large logs from being judged, and the process from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

MOST: Final = 256
"""Lookups of this process at a time, those among them that nobody waits for any more."""
_running = threading.BoundedSemaphore(MOST)


class _Asked(NamedTuple):
    """A lookup, and where it is waited for."""

    loop: asyncio.AbstractEventLoop
    host: str
    port: int
    family: socket.AddressFamily


_under_way: Final[dict[_Asked, asyncio.Future[list[Any]]]] = {}


class SystemResolver(AbstractResolver):
    """Each name that is looked up in a thread of its own that the end of the process does not wait for."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses; `OSError` where there are none, or where too many lookups hang already."""
        found = await _beside(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing to let go of."""


async def _beside(host: str, port: int, family: socket.AddressFamily) -> list[Any]:
    """Whoever asks what is being looked up already waits for that: a name that hangs hangs once, however often it is tried."""
    asked = _Asked(asyncio.get_running_loop(), host, port, family)
    answer = _under_way.get(asked)
    if answer is None:
        if not _running.acquire(blocking=False):
            raise OSError(None, f"{host}: {MOST} lookups of names are under way already")
        answer = _under_way[asked] = asked.loop.create_future()
        threading.Thread(target=_look, args=(asked, answer), name="name-lookup", daemon=True).start()
    return await asyncio.shield(answer)


def _look(asked: _Asked, answer: asyncio.Future[list[Any]]) -> None:
    found: list[Any] | OSError
    try:
        found = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM, family=asked.family)
    except OSError as error:
        found = error
    except UnicodeError as error:  # no name at all: a label is empty or too long
        found = OSError(None, f"{asked.host}: {error}")
    finally:
        _running.release()
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        asked.loop.call_soon_threadsafe(_tell, asked, answer, found)


def _tell(asked: _Asked, answer: asyncio.Future[list[Any]], found: list[Any] | OSError) -> None:
    del _under_way[asked]
    if isinstance(found, OSError):
        answer.set_exception(found)
        answer.exception()  # nobody may be waiting any more
    else:
        answer.set_result(found)
