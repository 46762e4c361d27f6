"""What making runtime sets raises."""

from __future__ import annotations

from verifier.errors import EvidenceError, MalformedInputError
from verifier.reasons import Reason


class ArchiveError(MalformedInputError):
    """An archive that does not parse, or that no honest tool writes. Nothing of it is used.

    Attributes:
        structure: the file, and the archive within it.
        offset: byte offset in what `structure` names.
    """

    def __init__(self, structure: str, offset: int, detail: str) -> None:
        super().__init__(structure, offset, detail, reason=Reason.RUNTIME_SET_INVALID)


class MakingError(EvidenceError):
    """A set cannot be made of this input: files that cannot be read, that are too large, or that do not fit together."""

    def __init__(self, detail: str, *, where: str = "") -> None:
        super().__init__(Reason.RUNTIME_SET_INVALID, detail, structure=where)
