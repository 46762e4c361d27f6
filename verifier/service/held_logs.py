"""Boot logs at hand: the same image boots on many machines, and a machine names the log it sent before by digest."""

from __future__ import annotations

import hashlib
from typing import Final

import structlog
from msgspec import Struct

from verifier.errors import StoredDataDamaged, VerifierFault
from verifier.ports import Store
from verifier.ports_observe import CacheState
from verifier.service.lru import BoundedLru
from verifier.service.recorder import Recorder

MAX_LOGS: Final = 1024
MAX_BYTES: Final = 16 * 1024 * 1024
_log: Final = structlog.get_logger("vtpm_attest.logs_held")


class HeldLog(Struct, frozen=True):
    """A boot log and the SHA-256 that was computed from these very bytes."""

    content: bytes
    sha256: bytes
    stored: bool = False
    """The store has it already."""
    at_hand: bool = False
    """It was not asked for."""

    @classmethod
    def of(cls, content: bytes) -> HeldLog:
        """A log as it was sent."""
        return cls(content, hashlib.sha256(content).digest())


class HeldLogs:
    """The logs used last, by digest. What was read once from the store is not read again."""

    def __init__(self, store: Store, recorder: Recorder, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._recorder = recorder
        self._logs: BoundedLru[bytes, bytes] = BoundedLru(MAX_LOGS, max_bytes)
        self._damaged: set[bytes] = set()

    async def read(self, sha256: bytes) -> HeldLog | None:
        """The log, at hand or from the store; None where it is not there any more, or not what it was: it has to be sent again."""
        at_hand = self._logs.get(sha256)
        content = at_hand
        if content is None:
            try:
                content = await self._store.blob(sha256)  # proven to have this digest
            except StoredDataDamaged as error:
                self._damaged.add(sha256)
                _log.error(
                    "log.damaged", sha256=sha256.hex(), problem=str(error), effect="it is asked for again"
                )
        return None if content is None else HeldLog(content, sha256, stored=True, at_hand=at_hand is not None)

    @property
    def state(self) -> CacheState:
        """Hits and misses so far."""
        return self._logs.state

    async def keep(self, log: HeldLog) -> None:
        """Keep a log that is in the store now, and mend it there if it was damaged."""
        if log.sha256 in self._damaged and not log.stored:
            try:
                await self._recorder.blob_mended(log.sha256, log.content)
                self._damaged.discard(log.sha256)
            except VerifierFault as error:  # the verdict is stored: the next one may mend it
                _log.error("log.not-mended", sha256=log.sha256.hex(), problem=str(error))
        if not log.at_hand:
            self._logs.put(log.sha256, log.content, len(log.content))
