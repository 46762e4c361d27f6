"""Proofs as they are sent and kept, in JSON: that an entry is in a log, that a log grew out of what it was.

A bundle has all that is needed to believe an entry but the log's key: `format`, `entry` (the bytes that are hashed, as
text), `index`, `proof` (hex, from the leaf upward) and `checkpoint` (the signed note).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from verifier.transparency import checkpoint, entries, merkle
from verifier.transparency.checkpoint import Checkpoint, Opened
from verifier.transparency.entries import Entry
from verifier.transparency.errors import BundleError, ProofError
from verifier.transparency.notes import VerifierKey

FORMAT: Final = "vtpm-attest-log-proof/1"
MAX_BUNDLE: Final = entries.MAX_ENTRY * 2
MAX_PROOF: Final = 126
"""Hashes; no tree needs more, for either kind."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["vtpm-attest-log-proof/1"]
    entry: str
    index: int
    proof: list[str]
    checkpoint: str


class _Growth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    old: int = msgspec.field(name="from")
    new: int = msgspec.field(name="to")
    proof: list[str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An entry and its proof. Nothing of it is believed before `proven`.

    Attributes:
        entry: the bytes of the entry.
        index: of its leaf, from 0.
        proof: hashes from the leaf upward.
        checkpoint: signed note of the state of the log that the proof leads to.
    """

    entry: bytes
    index: int
    proof: tuple[bytes, ...]
    checkpoint: str

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read a bundle.

        Raises:
            BundleError: no bundle.
        """
        if len(data) > MAX_BUNDLE:
            raise BundleError(f"a file of {len(data)} bytes; {MAX_BUNDLE} are read at most")
        try:
            document = msgspec.json.decode(data, type=_Document)
            return cls(document.entry.encode(), document.index, _hashes(document.proof), document.checkpoint)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BundleError(f"no proof of an entry of a log: {error}") from error

    def encode(self) -> bytes:
        """As it is sent and kept."""
        return msgspec.json.encode(
            _Document(
                FORMAT, self.entry.decode(), self.index, [each.hex() for each in self.proof], self.checkpoint
            )
        )

    def proven(self, keys: Iterable[VerifierKey]) -> Proven:
        """Believe it.

        Proven on return: a log whose key is trusted stands by these very bytes at this place. Not proven: that what
        they say was right, nor that the log shows others the same (`verify_consistency` with a checkpoint kept from
        before, and cosignatures of witnesses).

        Raises:
            NoteError: the checkpoint is not signed by one of `keys`.
            ProofError: the entry is not where it is said to be.
            EntryError: what is proven is no entry of a kind known here.
        """
        state = checkpoint.opened(self.checkpoint, keys)
        size, root = state.checkpoint.size, state.checkpoint.root
        merkle.verify_inclusion(merkle.leaf_hash(self.entry), self.index, size, self.proof, root)
        return Proven(entries.parse(self.entry), state)


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry that is in a log, and the state of the log it was proven for."""

    entry: Entry
    state: Opened


@dataclass(frozen=True, slots=True)
class Consistency:
    """Proof that a log of `new` leaves begins with the `old` ones it had. Nothing of it is believed before `prove`."""

    old: int
    new: int
    proof: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Consistency:
        """Read the answer of a log.

        Raises:
            BundleError: no such proof.
        """
        try:
            document = msgspec.json.decode(data, type=_Growth)
            return cls(document.old, document.new, _hashes(document.proof))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BundleError(f"no proof that a log grew: {error}") from error

    def encode(self) -> bytes:
        """As it is sent."""
        return msgspec.json.encode(_Growth(self.old, self.new, [each.hex() for each in self.proof]))

    def prove(self, old: Checkpoint, new: Checkpoint) -> None:
        """Check that what `new` says of a log is a later state of what `old` said.

        Raises:
            ProofError: it is not, or this is the proof of something else.
        """
        if old.origin != new.origin:
            raise ProofError(f"checkpoints of two logs, {old.origin!r} and {new.origin!r}")
        if (self.old, self.new) != (old.size, new.size):
            raise ProofError(
                f"a proof from {self.old} to {self.new} leaves; asked for was one from {old.size} to {new.size}"
            )
        merkle.verify_consistency(old.size, old.root, new.size, new.root, self.proof)


def _hashes(texts: list[str]) -> tuple[bytes, ...]:
    if len(texts) > MAX_PROOF:
        raise ValueError(f"{len(texts)} hashes; no proof has more than {MAX_PROOF}")
    return tuple(map(_hash, texts))


def _hash(text: str) -> bytes:
    if len(text) != 2 * merkle.HASH or text != text.lower():
        raise ValueError(f"{text[:80]!r} is no hash: {2 * merkle.HASH} hex digits")
    return bytes.fromhex(text)
