"""The header by which a balancer that passes TLS through says whose connection it is: PROXY protocol, versions 1 and 2.

Written from its description, "The PROXY protocol, versions 1 & 2" (HAProxy). What proves nothing about the client is only as good as who
sends it: it is read from balancers that the settings name, and from nobody else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_TEXT: Final = b"PROXY "
_LONGEST_TEXT: Final = 107
"""Bytes of version 1, with its end (section 2.1)."""
_LONGEST: Final = 4096
"""Bytes of addresses and what may follow them in version 2; balancers add some hundred."""
_FAMILIES: Final = {0x11: 4, 0x21: 16}
"""TCP over IPv4 and IPv6: bytes of an address. Of others (UDP, Unix, unspecified) nothing is taken."""
_LOCAL, _PROXY = 0x20, 0x21


class ProxyHeaderError(ConnectionAbortedError):
    """The connection does not begin as a balancer's does."""


async def read_header(take: Callable[[int], Awaitable[bytes]]) -> str | None:
    """The client's address; None: the balancer speaks for itself, or does not say.

    Args:
        take: reads as many bytes at most, and not one of what comes after them: that is the client's.

    Raises:
        ProxyHeaderError: no such header. The connection has to be closed.
    """
    begun = await _exactly(take, len(_SIGNATURE))
    if begun == _SIGNATURE:
        return _binary(*await _body(take))
    if begun.startswith(_TEXT):
        return _text(await _line(take, begun))
    raise ProxyHeaderError("neither version of the PROXY protocol")


async def _exactly(take: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = await take(size - len(found))
        if not more:
            raise ProxyHeaderError("closed before its header was whole")
        found += more
    return found


async def _line(take: Callable[[int], Awaitable[bytes]], begun: bytes) -> bytes:
    """Byte by byte, for what follows is the client's."""
    found = begun
    while not found.endswith(b"\r\n"):
        if len(found) >= _LONGEST_TEXT:
            raise ProxyHeaderError("a header without end")
        found += await _exactly(take, 1)
    return found[:-2]


def _text(line: bytes) -> str | None:
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    version = {"TCP4": 4, "TCP6": 6}.get(words[1])
    try:
        client = ipaddress.ip_address(words[2])
    except (IndexError, ValueError) as error:
        raise ProxyHeaderError("no address of a client") from error
    if len(words) != 6 or client.version != version:  # noqa: PLR2004 - protocol, two addresses, two ports
        raise ProxyHeaderError("not PROXY, protocol, two addresses and two ports")
    return str(client)


async def _body(take: Callable[[int], Awaitable[bytes]]) -> tuple[int, int, bytes]:
    command, family, high, low = await _exactly(take, 4)
    size = high << 8 | low
    if size > _LONGEST:
        raise ProxyHeaderError(f"a header of {size} bytes")
    return command, family, await _exactly(take, size)


def _binary(command: int, family: int, body: bytes) -> str | None:
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("no command of version 2")
    size = _FAMILIES.get(family)
    if command == _LOCAL or size is None:
        return None
    if len(body) < 2 * size + 4:
        raise ProxyHeaderError("too short for its addresses")
    return str(ipaddress.ip_address(body[:size]))
