"""What the service needs of a store to follow IMA lists: their proven parts, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from verifier.tcg.attest import ClockInfo


class ImaPiece(Struct, frozen=True, kw_only=True):
    """A proven part of a boot's list, as it came with one attestation.

    Attributes:
        start: byte it begins at, in all that was proven of this boot.
        size: bytes.
        sha256: of them; the blob of that name holds them.
    """

    start: int
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BootKey:
    """Which boot of an attester; of the clock only the counters tell boots apart."""

    attester_id: str
    clock: ClockInfo
    boot_log_sha256: bytes | None


class ImaStore(Protocol):
    """Pieces of lists. They are written with the attestation that proved them: see `Recording.ima_piece`."""

    async def ima_pieces(self, tenant: str, boot: BootKey, size: int) -> tuple[ImaPiece, ...] | None:
        """The pieces that make up the first `size` bytes proven of a boot, in order; None where one is missing.

        The last one may go beyond `size`. That the blobs they name are still there is not looked at.
        """


def joined(pieces: Sequence[ImaPiece], size: int) -> tuple[ImaPiece, ...] | None:
    """Those of `pieces` that follow each other from byte 0 on to `size`; None where they do not.

    Of pieces that begin at one byte only the newest is stored, so where a list was sent whole again, pieces of before
    that lie within it are passed over.
    """
    by_start = {piece.start: piece for piece in pieces}
    found: list[ImaPiece] = []
    end = 0
    while end < size:
        piece = by_start.get(end)
        if piece is None or piece.size <= 0:
            return None
        found.append(piece)
        end += piece.size
    return tuple(found)
