"""What prediction raises beyond malformed bytes."""

from __future__ import annotations

from verifier.errors import EvidenceError
from verifier.reasons import Reason


class PredictionError(EvidenceError):
    """The files are well formed, but they do not boot together, or their measurements do not follow from them.

    Raised rather than guessing: a wrong reference value locks every guest of an image out.
    """

    def __init__(self, detail: str, *, where: str = "") -> None:
        super().__init__(Reason.MALFORMED_REQUEST, detail, structure=where)
