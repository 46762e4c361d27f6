"""Gives leaves their place in the transparency log, and signs what it has become.

Every process does, again and again, one at a time by the database's own lock. Before anything is added, what is stored
has to be what was signed: the signature of the newest checkpoint, its size, and the tree's right edge. Where it is not,
nothing is signed any more until it is; leaves wait meanwhile, and are not lost.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from verifier.errors import LogDamagedError, VerifierFault
from verifier.ports import Clock
from verifier.ports_log import Extended, Growth, LogFigures, LogKeys, LogStore, StoredHead
from verifier.service.admission import OverloadedError
from verifier.service.recorder import Recorder
from verifier.transparency import checkpoint, tiles
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.errors import NoteError, TileError
from verifier.transparency.merkle import EMPTY_ROOT
from verifier.transparency.notes import VerifierKey
from verifier.transparency.tiles import TileReader

_AFTER_FAULT: Final = 2.0
_AT_LEAST: Final = 0.05
"""Seconds between two looks, however often the log is to be signed."""
_RETRY: Final = 60
_log = structlog.get_logger("vtpm_attest.log")


class LogSequencer:
    """Extends the log.

    Args:
        store: where it is.
        keys: that sign it.
        recorder: told when the log turns out to be damaged.
        clock: for the times of checkpoints.
        pause: between two checkpoints, whoever signs them.
        required: whether no verdict is given while the log is damaged.
    """

    def __init__(
        self,
        *,
        store: LogStore,
        keys: LogKeys,
        recorder: Recorder,
        clock: Clock,
        pause: timedelta,
        required: bool,
    ) -> None:
        self._store = store
        self._keys = keys
        self._recorder = recorder
        self._clock = clock
        self._pause = pause
        self._required = required
        self._seen = Checkpoint(keys.origin, 0, EMPTY_ROOT)
        """The largest state of the log that this process has seen committed; it never becomes less."""
        self._signed = self._seen
        """What was signed last, for a transaction that may not have come to its end."""
        self.damage: str | None = None
        """What is wrong with the log, as long as it is."""

    async def run(self) -> None:
        """Extend for ever."""
        signed = False
        while True:
            pause = max(self._pause.total_seconds(), _AT_LEAST)
            try:
                if not signed:
                    await self.sign()
                    signed = True
                await self.extend()
            except Exception as error:  # noqa: BLE001 - a bug too: nobody waits for this task
                known = isinstance(error, VerifierFault)
                if not isinstance(error, LogDamagedError):  # that was told already
                    _log.error("log.not-extended", problem=str(error), exc_info=not known)
                pause = max(pause, _AFTER_FAULT)
            await asyncio.sleep(pause)

    async def extend(self) -> int:
        """Put everything that waits into the tree; how many leaves.

        Raises:
            LogDamagedError: what is stored is not what was signed.
        """
        done, leaves, pause = Extended(leaves=0, size=0, more=True), 0, self._pause
        try:
            while done.more:
                done = await self._store.extend_log(self._grow, self._clock.now(), pause)
                leaves, pause = leaves + done.leaves, timedelta(0)
                if done.leaves:
                    self._mended()
                    self._seen = self._signed
        except LogDamagedError as error:
            await self._tell(error)
            raise
        return leaves

    async def sign(self) -> bool:
        """Sign the log as it is, where nobody has, or with other keys.

        Raises:
            LogDamagedError: what is stored is not what was signed.
        """
        try:
            signed = await self._store.sign_log(self._grow, self._clock.now())
        except LogDamagedError as error:
            await self._tell(error)
            raise
        self._mended()
        return signed

    async def figures(self) -> LogFigures:
        """How the log stands, by the database's word."""
        return await self._store.log_figures()

    def check(self) -> None:
        """Raises `OverloadedError` where verdicts have to be in the log and it takes none."""
        if self._required and self.damage is not None:
            raise OverloadedError(_RETRY, "the transparency log is damaged, and verdicts have to be in it")

    def _grow(self, stored: StoredHead, leaves: bytes, read: TileReader) -> Growth | None:
        """`verifier.ports_log.Grow`."""
        signers = self._keys.signers()
        signed_by = self._check(stored, read)
        if not leaves and signed_by == {signer.key for signer in signers}:
            return None
        try:
            grown = tiles.append(stored.size, leaves, read)
        except TileError as error:
            raise LogDamagedError(str(error)) from error
        state = Checkpoint(self._keys.origin, grown.size, grown.root)
        self._signed = state
        return Growth(
            size=grown.size,
            root=grown.root,
            checkpoint=checkpoint.sign(state, signers),
            tiles=grown.tiles,
        )

    def _check(self, stored: StoredHead, read: TileReader) -> set[VerifierKey]:
        """Who signed what is stored, if that is what is there."""
        seen = self._seen
        if stored.size < seen.size:
            raise LogDamagedError(
                f"the log has {stored.size} leaves, and had {seen.size}: somebody took some away, or a backup was "
                "restored; in that case start the verifier anew"
            )
        if stored.checkpoint is None:
            if stored.size:
                raise LogDamagedError(f"the log has {stored.size} leaves and no checkpoint")
            return set()
        try:
            opened = checkpoint.opened(stored.checkpoint, self._keys.trusted())
            root = tiles.root(stored.size, read)
        except NoteError as error:
            raise LogDamagedError(f"the newest checkpoint is not of this verifier's key: {error}") from error
        except TileError as error:
            raise LogDamagedError(str(error)) from error
        state = opened.checkpoint
        if (state.size, state.root) != (stored.size, root):
            raise LogDamagedError(
                f"the newest checkpoint was signed for {state.size} leaves with another tree than the {stored.size} stored"
            )
        if seen.size == state.size and seen.root != state.root:
            raise LogDamagedError(f"the log of {state.size} leaves was replaced by another one of that size")
        self._seen = state
        return set(opened.signed_by)

    def _mended(self) -> None:
        if self.damage is not None:
            _log.warning("log.sound-again", was=self.damage)
            self.damage = None

    async def _tell(self, error: LogDamagedError) -> None:
        if self.damage == str(error):
            return
        self.damage = str(error)
        _log.error("log.damaged", problem=str(error), effect="nothing is signed; leaves wait")
        await self._recorder.log_damaged(str(error), self._clock.now())
