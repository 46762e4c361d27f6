"""What the service manager is told, by sd_notify(3) without a library; and a watchdog for which nothing has to tick."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Manager:
    """The manager that started this process, if one did. What it does not hear does no harm."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._round = _own_watchdog(environ)
        self._ready = False

    @property
    def listens(self) -> bool:
        """Whether anybody waits to be told."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send one message; newlines inside a line become spaces, so that no text can say more than it should."""
        if not self._address or sys.platform == "win32":
            return
        message = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        """The status; the first time with `READY=1`: units ordered after this one may start."""
        first, self._ready = not self._ready, True
        if first and self.listens and sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.tell(*(["READY=1"] if first else []), f"STATUS={status}")

    def ready_within(self, seconds: float) -> None:
        """`READY=1` after so many seconds at the latest, whatever is under way then: a boot does not wait for ever."""
        if not self.listens or sys.platform == "win32":
            return
        if seconds <= 0:
            self.ready("attesting")
            return

        def late(_number: int, _frame: FrameType | None) -> None:
            if not self._ready:
                self._ready = True
                self.tell("READY=1")

        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def working(self) -> None:
        """A round begins: it has the watchdog's own time."""
        if self._round:
            self.tell("WATCHDOG=1", f"WATCHDOG_USEC={self._round}")

    def resting(self, seconds: float) -> None:
        """A pause begins: the next sign of life comes when it and a round are over."""
        if self._round:
            self.tell("WATCHDOG=1", f"WATCHDOG_USEC={self._round + math.ceil(seconds * _MICROSECONDS)}")


def _own_watchdog(environ: Mapping[str, str]) -> int:
    """Microseconds; 0 where none is set, or it is another process's."""
    text, owner = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if owner is not None and owner != str(os.getpid()):
        return 0
    return int(text) if text.isascii() and text.isdigit() else 0
