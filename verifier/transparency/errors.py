"""What the log's structures are refused with: each parser raises one of these, and nothing else."""

from __future__ import annotations

from verifier.errors import VtpmAttestError


class LogError(VtpmAttestError):
    """Something of the transparency log that cannot be believed or read."""


class ProofError(LogError):
    """A proof does not prove what it is said to; the text says what does not fit."""


class TileError(LogError):
    """A tile is missing, too short, or named in a way no tile is."""


class NoteError(LogError):
    """No signed note, no key, or no signature of a key that is trusted."""


class UnsignedError(NoteError):
    """No trusted key signed the note: nothing is known of it."""


class CheckpointError(NoteError):
    """A note whose text is no checkpoint of the log that was expected."""


class EntryError(LogError):
    """Bytes that are no entry of the log, or not in the one form in which entries are written."""


class BundleError(LogError):
    """A file that is no proof bundle."""
