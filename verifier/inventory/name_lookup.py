"""Names to addresses by the operating system, where a name server that says nothing holds nobody else up.

The system's lookup blocks and cannot be called off. In the event loop's own few threads, a handful of hanging lookups
would keep large logs from being judged, and the process from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

MOST: Final = 256
"""Lookups of this process at a time, those among them that nobody waits for any more."""
_running = threading.BoundedSemaphore(MOST)


class SystemResolver(AbstractResolver):
    """Each lookup in a thread of its own that the end of the process does not wait for."""

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
    if not _running.acquire(blocking=False):
        raise OSError(None, f"{host}: {MOST} lookups of names are under way already")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def tell(found: list[Any] | None, error: OSError | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def look() -> None:
        found, problem = None, None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        except OSError as error:
            problem = error
        finally:
            _running.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found, problem)

    threading.Thread(target=look, name="name-lookup", daemon=True).start()
    return await answer
