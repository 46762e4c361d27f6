"""One exception hierarchy: what went wrong, where, and whose fault it is.

`EvidenceError` and below is the sender's fault and becomes a 4xx with a stable code; `VerifierFault` is
ours and becomes a 5xx. Neither is ever a verdict.
"""

from __future__ import annotations

from verifier.reasons import Reason


class VtpmAttestError(Exception):
    """Root of every error this project raises on purpose."""


class EvidenceError(VtpmAttestError):
    """The input cannot be used. Nothing of it may be stored or believed.

    Attributes:
        reason: stable code, the `code` of the problem document.
        detail: one sentence for a person, naming the value found.
        structure: the structure being read, for example `TPMS_ATTEST`, or empty.
        offset: byte offset into that structure's buffer where reading failed, or None.
    """

    def __init__(
        self, reason: Reason, detail: str, *, structure: str = "", offset: int | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.structure = structure
        self.offset = offset
        super().__init__(str(self))

    def __str__(self) -> str:
        where = self.structure
        if self.offset is not None:
            where = f"{where} at byte {self.offset}".strip()
        return f"{where}: {self.detail}" if where else self.detail


class MalformedInputError(EvidenceError):
    """Bytes that do not parse as the structure they are said to be."""

    def __init__(
        self, structure: str, offset: int, detail: str, *, reason: Reason = Reason.MALFORMED_STRUCTURE
    ) -> None:
        super().__init__(reason, detail, structure=structure, offset=offset)


class UnsupportedError(EvidenceError):
    """Well-formed, but names an algorithm, version or option this verifier does not judge."""

    def __init__(self, detail: str, *, structure: str = "", offset: int | None = None) -> None:
        super().__init__(Reason.UNSUPPORTED_ALGORITHM, detail, structure=structure, offset=offset)


class PolicyError(EvidenceError):
    """A policy document that must not be used: unknown keys, silent passes, contradictions."""

    def __init__(self, detail: str, *, where: str = "", reason: Reason = Reason.POLICY_INVALID) -> None:
        super().__init__(reason, detail, structure=where)


class RefusedError(EvidenceError):
    """Well-formed, understood, and refused: not proven to come from the attester it names."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)


class NotFoundError(VtpmAttestError):
    """A named record does not exist (or is not this tenant's)."""

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"no {kind} {key!r}")


class StateMovedError(VtpmAttestError):
    """What a decision was based on has changed meanwhile: decide anew. Nothing was stored."""


class VerifierFault(VtpmAttestError):  # noqa: N818 - a fault is what it is, as in "ours, not theirs"
    """The verifier itself cannot answer: store down, stored data damaged, key missing. Never a verdict."""


class StoreUnavailable(VerifierFault):
    """The database cannot be reached or refuses to write; the caller may try again."""


class LogDamagedError(VerifierFault):
    """The transparency log is not what was signed. Nothing is added to it, and nothing signed, until it is again."""


class StoredDataDamaged(VerifierFault):
    """A stored blob or row no longer matches its digest. It is named and never judged."""
