"""Boot logs at hand: the same image boots on many machines, and a machine names the log it sent before by digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from verifier.ports_observe import CacheState
from verifier.service.lru import BoundedLru

MAX_LOGS: Final = 1024
MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HeldLog:
    """A boot log and the SHA-256 that was computed from these very bytes."""

    content: bytes
    sha256: bytes
    stored: bool = False
    """The store has it already."""

    @classmethod
    def of(cls, content: bytes) -> HeldLog:
        """A log as it was sent."""
        return cls(content, hashlib.sha256(content).digest())


class HeldLogs:
    """The logs used last, by digest. What was read once from the store is not read again."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._logs: BoundedLru[bytes, bytes] = BoundedLru(MAX_LOGS, max_bytes)

    def get(self, sha256: bytes) -> HeldLog | None:
        """The log, if it is at hand."""
        content = self._logs.get(sha256)
        return None if content is None else HeldLog(content, sha256, stored=True)

    @property
    def state(self) -> CacheState:
        """Hits and misses so far."""
        return self._logs.state

    def keep(self, log: HeldLog) -> None:
        """Keep a log that is in the store now."""
        self._logs.put(log.sha256, log.content, len(log.content))
