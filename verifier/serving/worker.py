"""What a worker process and its parent say to each other: the sockets it serves, that it is ready, that the parent lives.

The parent hands file descriptors over; one of them is a socket pair. The worker writes to it once when it accepts
connections; when the parent is gone, however it went, the worker reads its end and stops, so that nothing is left behind
that holds the port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from verifier.serving.sockets import Sockets

_SOCKETS: Final = "ATTEST_WORKER_SOCKETS"
_PARENT: Final = "ATTEST_WORKER_PARENT"
_SLOT: Final = "ATTEST_WORKER_SLOT"
METRICS: Final = "ATTEST_WORKER_METRICS"
"""Directory in which workers leave their metrics for each other."""
READY: Final = b"ready"


@dataclass(frozen=True, slots=True)
class Placement:
    """A worker's place, as its parent gave it."""

    sockets: Sockets
    parent: socket.socket
    slot: int = 0
    """Number of the worker; whoever takes its place has the same."""
    metrics: Path | None = None

    def ready(self) -> None:
        """Say that connections are accepted."""
        self.parent.send(READY)


def placement(environment: Mapping[str, str]) -> Placement | None:
    """Where this process works; None: it is nobody's worker."""
    if _SOCKETS not in environment or _PARENT not in environment:
        return None
    sockets = tuple(_adopt(int(number)) for number in environment[_SOCKETS].split(","))
    directory = environment.get(METRICS)
    return Placement(
        sockets,
        _adopt(int(environment[_PARENT])),
        int(environment.get(_SLOT, "0")),
        None if directory is None else Path(directory),
    )


def handed(sockets: Sockets, parent: socket.socket, slot: int) -> tuple[dict[str, str], tuple[int, ...]]:
    """For a child: what its environment has to say, and the descriptors it has to inherit."""
    numbers = [one.fileno() for one in sockets]
    said = {_SOCKETS: ",".join(map(str, numbers)), _PARENT: str(parent.fileno()), _SLOT: str(slot)}
    return said, (*numbers, parent.fileno())


def _adopt(number: int) -> socket.socket:
    os.set_inheritable(number, False)  # noqa: FBT003 - it has no name
    one = socket.socket(fileno=number)
    one.settimeout(0)
    return one
