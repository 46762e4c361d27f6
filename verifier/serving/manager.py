"""The service manager's side: readiness (sd_notify(3)), sockets it opened (sd_listen_fds(3)), its watchdog."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_FIRST_FD: Final = 3
OURS: Final = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
)
"""What a manager tells one process and no child of it."""


@dataclass(frozen=True, slots=True)
class Manager:
    """What systemd, or who speaks like it, wants to know. Without one nothing happens."""

    address: str | None
    watchdog: float | None
    """Seconds within which it wants to hear of us; None: it does not watch."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Manager:
        """As the environment says."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        pid = environment.get("WATCHDOG_PID", str(os.getpid()))
        watched = microseconds.isdecimal() and int(microseconds) > 0 and pid == str(os.getpid())
        return cls(environment.get("NOTIFY_SOCKET"), int(microseconds) / 1e6 if watched else None)

    def ready(self, status: str) -> None:
        """Connections are accepted."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """New settings are taken up; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """What was begun is finished, nothing new is taken."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """The loop turns."""
        self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(message.encode(), name)
        except OSError:
            # A service must not fail because its manager does not listen.
            return


def activated(environment: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets the service manager opened for this very process, in its order; usually none."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    found = [socket.socket(fileno=number) for number in range(_FIRST_FD, _FIRST_FD + int(count))]
    for each in found:
        each.settimeout(0)
        each.set_inheritable(False)
    return found


def hand_to_successor(environment: Mapping[str, str], sockets: Sequence[socket.socket]) -> dict[str, str]:
    """Put the sockets where a successor in this same process (execve) finds them, and its environment.

    Every other descriptor closes at execve; so the places from 3 on may be taken over.
    """
    safe = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD + len(sockets)) for one in sockets]
    for place, number in enumerate(safe, _FIRST_FD):
        os.dup2(number, place, inheritable=True)
    return {**environment, "LISTEN_FDS": str(len(safe)), "LISTEN_PID": str(os.getpid())}
