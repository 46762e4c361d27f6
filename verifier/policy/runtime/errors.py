"""What reading and making runtime sets raises."""

from __future__ import annotations

from verifier.errors import PolicyError
from verifier.reasons import Reason


class RuntimeSetError(PolicyError):
    """A runtime set that must not be used, and where it is wrong.

    Attributes:
        line: number of the line, from 1; None where the whole is wrong.
    """

    def __init__(self, detail: str, *, line: int | None = None, where: str = "") -> None:
        self.line = line
        place = where if line is None else f"{where} line {line}".strip()
        super().__init__(detail, where=place or "runtime set", reason=Reason.RUNTIME_SET_INVALID)
