"""What a platform's collector hands to the agent."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from agent.collect.ima import ImaList
from agent.wire.messages import GuestIdentity


class Collected(Struct, frozen=True, kw_only=True):
    """Logs and identity of the running boot; `notes` say what is missing and why."""

    boot_log: bytes | None
    identity: GuestIdentity
    kernel_command_line: str | None
    boot_id: str | None
    userspace_log: bytes | None = None
    """What systemd logs of its own measurements."""
    notes: tuple[str, ...] = ()


class Sources(Protocol):
    """A platform's collector."""

    def collect(self, *, agent_version: str) -> Collected:
        """What the agent sends of this boot, but for the IMA list; raises `SourceError` for a file it must not send."""

    def ima_list(self, offset: int = 0) -> ImaList:
        """What the kernel measured while running, from `offset` on. Read it after the quote it belongs to."""


class Notes:
    """Remarks gathered on the way, each once."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}

    def add(self, text: str) -> None:
        """Remember `text`."""
        self._texts[text] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """In the order they came."""
        return tuple(self._texts)
