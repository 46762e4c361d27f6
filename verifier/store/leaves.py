"""Rows that are leaves of the transparency log, in the batch of their transaction. Pure."""

from __future__ import annotations

from verifier.store.rows import Values
from verifier.transparency.entries import audit_entry, verdict_entry
from verifier.transparency.merkle import leaf_hash


class LogBatch:
    """Leaves of one transaction, in the order of their places."""

    def __init__(self, batch_id: int) -> None:
        self.id = batch_id
        self._leaves: list[bytes] = []
        self._lasting = False

    def add_verdict(self, row: Values) -> None:
        """Make a row of `attestation` a leaf: gives it its two columns."""
        row["log_batch"], row["log_place"] = self.id, len(self._leaves)
        self._leaves.append(leaf_hash(verdict_entry(row)))

    def add_audit(self, row: Values) -> None:
        """Make a row of `audit` a leaf, as above."""
        row["log_batch"], row["log_place"] = self.id, len(self._leaves)
        self._leaves.append(leaf_hash(audit_entry(row)))
        self._lasting = True

    def row(self) -> Values:
        """Of `log_batch`."""
        return {
            "id": self.id,
            "leaf_count": len(self._leaves),
            "leaves": b"".join(self._leaves),
            "first_index": None,
            "lasting": self._lasting,
        }
