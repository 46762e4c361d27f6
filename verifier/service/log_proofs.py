"""What the transparency log shows: checkpoints, tiles, and proofs that something is in it and that it only grew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from verifier.errors import EvidenceError, NotFoundError, StoreUnavailable
from verifier.ports import Clock
from verifier.ports_log import LogStore, StoredCheckpoint, StoredLeaf
from verifier.reasons import Reason
from verifier.service.admission import OverloadedError
from verifier.service.recorder import Recorder
from verifier.transparency import cosignature, tiles
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.errors import NoteError, ProofError, TileError
from verifier.transparency.merkle import HASH
from verifier.transparency.notes import Note, VerifierKey
from verifier.transparency.tiles import HEIGHT, TILE, TileReader

_PATIENCE: Final = 5.0
"""Seconds: a verdict that was just given is in the tree before that."""
_LOOK_EVERY: Final = 0.1
_RETRY: Final = 5
_ROUNDS: Final = 10

T = TypeVar("T")


class _Unread(Exception):  # noqa: N818 - not an error: what is to be read next
    """A proof needs a tile that was not read yet."""

    def __init__(self, level: int, number: int) -> None:
        self.key = (level, number)


class LogProofs:
    """Reads the log. Entries are shown to their tenant alone; hashes are everybody's."""

    def __init__(
        self, store: LogStore, recorder: Recorder, clock: Clock, witnesses: Sequence[VerifierKey]
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._witnesses = tuple(witnesses)

    async def checkpoint(self, *, size: int | None = None, cosigned: bool = False) -> StoredCheckpoint:
        """The newest one, that of a size, or the newest that a witness has cosigned. Raises `NotFoundError`."""
        found = await self._store.log_checkpoint(size=size, cosigned=cosigned)
        if found is None:
            which = "that a witness has cosigned" if size is None else f"of {size} leaves"
            raise NotFoundError("checkpoint of the log", which if cosigned or size is not None else "yet")
        return found

    async def tile(self, path: str) -> bytes:
        """Hashes of a tile, by its path as in c2sp.org/tlog-tiles.

        Raises:
            EvidenceError: `malformed-request`: no path of a tile.
            NotFoundError: there is no such tile, it has fewer hashes, or went with the history it is about.
        """
        try:
            level, number, width = tiles.parse_tile_path(path)
        except TileError as error:
            raise EvidenceError(Reason.MALFORMED_REQUEST, str(error)) from error
        found = (await self._store.log_tiles([(level, number)])).get((level, number), b"")
        if len(found) < width * HASH:
            raise NotFoundError("tile of the log", path)
        return found[: width * HASH]

    async def verdict(self, tenant: str, attester_id: str, sequence: int | None) -> Bundle:
        """Proof of a verdict, of the latest one without a sequence; waits until it is in the tree.

        Raises:
            NotFoundError: no such verdict, or it is from before there was a log.
            OverloadedError: it is not in the tree yet.
        """
        name = attester_id if sequence is None else f"{attester_id}/{sequence}"
        return await self._proven(
            "verdict in the log", name, lambda: self._store.leaf_of_verdict(tenant, attester_id, sequence)
        )

    async def audit(self, tenant: str, sequence: int) -> Bundle:
        """Proof of an entry of the audit log; as `verdict`."""
        return await self._proven(
            "audit entry in the log", str(sequence), lambda: self._store.leaf_of_audit(tenant, sequence)
        )

    async def growth(self, old: int, new: int | None) -> Consistency:
        """Proof that the log of `new` leaves (None: as of the newest checkpoint) begins with the `old` first ones.

        Raises:
            EvidenceError: `malformed-request`: it does not have that many.
            NotFoundError: nothing was signed yet, or a tile that is needed went with the history it is about.
        """
        newest = await self.checkpoint()
        size = newest.size if new is None else new
        if not old <= size <= newest.size:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, f"from {old} to {size}: the log has {newest.size} leaves"
            )
        proof = await self._read(
            lambda read: tiles.consistency(old, size, read), (max(old - 1, 0), old), size
        )
        return Consistency(old, size, proof)

    async def cosign(self, note: bytes) -> tuple[str, ...]:
        """Keep the cosignatures of known witnesses under a checkpoint of ours; their names.

        Raises:
            EvidenceError: `malformed-request`: no note, no cosignature of a witness that is known, or one that does
                not hold.
            NotFoundError: we keep no such checkpoint.
        """
        try:
            parsed = Note.parse(note)
            found = cosignature.cosigned(parsed, self._witnesses)
            size = int(parsed.text.split("\n")[1])
        except (NoteError, ValueError, IndexError) as error:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"cosigned checkpoint: {error}") from error
        if not found:
            known = ", ".join(key.name for key in self._witnesses) or "none is configured"
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"not cosigned by a witness that is known: {known}")
        ours = await self._store.log_checkpoint(size=size)
        if ours is None or Note.parse(ours.note).text != parsed.text:
            raise NotFoundError("checkpoint of the log", f"of {size} leaves with this root")
        for one in found:
            await self._recorder.checkpoint_cosigned(
                size, one.witness.name, one.signature.line(), self._clock.now()
            )
        return tuple(one.witness.name for one in found)

    async def _proven(self, kind: str, name: str, look: Callable[[], Awaitable[StoredLeaf | None]]) -> Bundle:
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    leaf = await look()
                    if leaf is None:
                        raise NotFoundError(kind, name)
                    newest = await self._store.log_checkpoint()
                    if leaf.index is not None and newest is not None and leaf.index < newest.size:
                        break
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError as error:
            raise OverloadedError(
                _RETRY, f"{kind}: {name!r} still waits for its place in the tree"
            ) from error
        index, size = leaf.index, newest.size
        proof = await self._read(lambda read: tiles.inclusion(index, size, read), (index,), size)
        return Bundle(leaf.entry, index, proof, newest.note)

    async def _read(self, work: Callable[[TileReader], T], near: Sequence[int], size: int) -> T:
        """What `work` makes of the tiles it asks for; `near` are the leaves it is about."""
        known: dict[tuple[int, int], bytes] = {}
        wanted = _likely(near, size)

        def read(level: int, number: int) -> bytes:
            if (level, number) not in known:
                raise _Unread(level, number)
            return known[level, number]

        for _ in range(_ROUNDS):
            known.update(dict.fromkeys(wanted, b"") | await self._store.log_tiles(sorted(wanted)))
            try:
                return work(read)
            except _Unread as unread:
                wanted = {unread.key}
            except (TileError, ProofError) as error:
                raise NotFoundError(
                    "proof any more", f"{error}; hashes go with the history they are about"
                ) from error
        raise StoreUnavailable(f"a proof in a log of {size} leaves needs more tiles than there are")


def _likely(near: Sequence[int], size: int) -> set[tuple[int, int]]:
    """The tiles above some leaves, and those at the right edge: what proofs are made of."""
    return {
        (level, (leaf >> HEIGHT * level) // TILE)
        for level, _, _ in tiles.widths(size)
        for leaf in (*near, size)
        if (leaf >> HEIGHT * level) // TILE * TILE < size >> HEIGHT * level
    }
