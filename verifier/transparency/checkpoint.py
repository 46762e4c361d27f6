"""Checkpoints: how large a log is and what its root is, signed. C2SP tlog-checkpoint (c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.transparency import notes
from verifier.transparency.errors import CheckpointError
from verifier.transparency.merkle import HASH, MAX_SIZE
from verifier.transparency.notes import Note, Signer, VerifierKey

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log.

    Attributes:
        origin: name of the log.
        size: number of leaves.
        root: of the tree over them.
        extensions: further lines, which mean nothing here.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note.

        Raises:
            CheckpointError: no checkpoint.
        """
        *lines, end = text.split("\n")
        if end or len(lines) < _LINES or not all(lines):
            raise CheckpointError("no checkpoint: at least three lines, none of them empty")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise CheckpointError(f"{size[:40]!r} is no size of a log")
        return cls(origin, int(size), _root(root), tuple(extensions))

    def text(self) -> str:
        """What is signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that was signed by a trusted key of its log."""

    checkpoint: Checkpoint
    note: Note
    signed_by: tuple[VerifierKey, ...]


def sign(checkpoint: Checkpoint, signers: Sequence[Signer]) -> str:
    """The checkpoint as a signed note: with one key, or the old and the new one while keys change."""
    return notes.signed(checkpoint.text(), signers).encode()


def opened(note: bytes | str, keys: Iterable[VerifierKey]) -> Opened:
    """Read a checkpoint and believe it.

    Proven on return: a trusted key signed this size and root, as the log whose name it bears. Not proven: that the
    same was shown to others, nor that it grew out of what was signed before.

    Raises:
        NoteError: no note, or not signed by one of `keys`.
        CheckpointError: no checkpoint, or one of another log than those of the keys.
    """
    parsed = Note.parse(note)
    trusted = tuple(keys)
    signed_by = parsed.signers(trusted)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin not in {key.name for key in signed_by}:
        raise CheckpointError(
            f"a checkpoint of the log {checkpoint.origin!r}, signed with the key of {signed_by[0].name!r}"
        )
    return Opened(checkpoint, parsed, signed_by)


def read_only(note: bytes | str) -> Checkpoint:
    """A checkpoint whose signature is not looked at: to show it, never to believe it.

    Raises:
        NoteError: no note, or no checkpoint.
    """
    return Checkpoint.parse(Note.parse(note).text)


def _root(text: str) -> bytes:
    try:
        root = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise CheckpointError("the root is not base64") from error
    if len(root) != HASH or base64.b64encode(root).decode() != text:
        raise CheckpointError(f"the root is not the base64 of {HASH} bytes")
    return root
