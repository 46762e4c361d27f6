"""A command on a pseudo-terminal, as a person sees it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

ESCAPE = "\x1b["


@dataclass
class Terminal:
    """What a command has written to it so far."""

    rows: int = 30
    columns: int = 140
    text: str = ""
    process: asyncio.subprocess.Process | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    async def run(self, start: Callable[..., Awaitable[asyncio.subprocess.Process]]) -> None:
        """Start a command with its three streams on this terminal; `start` takes them as keywords."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        self.process = await start(stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.set_blocking(ours, False)
        asyncio.get_running_loop().add_reader(ours, self._read, ours)

    def _read(self, number: int) -> None:
        try:
            data = os.read(number, 65536)
        except OSError:  # Linux: nobody has the other end any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(number)
            os.close(number)
            self._ended = True
        self.text += data.decode(errors="replace")
        self._changed.set()

    async def shows(self, *words: str, within: float = 60) -> None:
        """Wait until all of these were written."""

        async def wait() -> None:
            while not all(word in self.text for word in words):
                assert not self._ended, self.text
                await self._changed.wait()
                self._changed.clear()

        await asyncio.wait_for(wait(), within)

    async def end(self) -> int:
        """Wait until the command has ended and all it wrote was read; its exit code."""
        assert self.process is not None

        async def wait() -> None:
            while not self._ended:
                await self._changed.wait()
                self._changed.clear()

        await asyncio.wait_for(wait(), 60)
        return await self.process.wait()

    async def interrupt(self) -> int:
        """Ctrl-C."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return await self.end()
