"""The listening sockets: a set for each worker on one address, or what was handed over."""

from __future__ import annotations

import resource
import socket
from typing import Any, Final, TypeAlias

from verifier.errors import VerifierFault

BACKLOG: Final = 4096
"""Connections that wait in the kernel while a worker takes no more; as many as Linux lets by itself (`somaxconn`)."""
Sockets: TypeAlias = tuple[socket.socket, ...]
"""What one worker listens on: one socket for each address of the name."""


def listen(host: str, port: int, workers: int) -> list[Sockets]:
    """Sockets for each worker, between which the kernel spreads new connections (SO_REUSEPORT).

    Whoever holds such a socket keeps its queue: a worker that is replaced loses no connection that was made
    meanwhile. Port 0 takes a free one, the same for all.

    Raises:
        VerifierFault: the address cannot be had; the text says which and why.
    """
    opened: list[socket.socket] = []
    try:
        return [_slot(host, port, opened, shared=workers > 1) for _ in range(workers)]
    except OSError as error:
        for one in opened:
            one.close()
        raise VerifierFault(
            f"cannot listen on {host} port {port}: {error.strerror or error};"
            " is another verifier running there, or is the address another machine's?"
        ) from error


def take_descriptors() -> None:
    """Have as many connections open as the system allows this process: many systems give it 1,024 unless it asks."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def address_of(one: socket.socket) -> str:
    """`https://host:port` of a listening socket."""
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return f"unix:{name}"
    return (
        f"https://[{name[0]}]:{name[1]}" if one.family == socket.AF_INET6 else f"https://{name[0]}:{name[1]}"
    )


def _slot(host: str, port: int, opened: list[socket.socket], *, shared: bool) -> Sockets:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    slot: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        # Port 0 was chosen with the first socket of all.
        chosen = port or (opened[0].getsockname()[1] if opened else 0)
        slot.append(_listening(family, (address[0], chosen, *address[2:]), shared=shared))
        opened.append(slot[-1])
    return tuple(slot)


def _listening(family: int, address: Any, *, shared: bool) -> socket.socket:  # noqa: ANN401 - as the family has it
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # An address of its own for each family, as the resolver lists them.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen(BACKLOG)
        one.settimeout(0)
    except OSError:
        one.close()
        raise
    return one
