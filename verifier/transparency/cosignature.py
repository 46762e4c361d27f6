"""Cosignatures of witnesses: `cosignature/v1` of C2SP tlog-cosignature (c2sp.org/tlog-cosignature), Ed25519.

A witness says: at this time, this is the largest state of the log I have seen, and it grew out of all I saw before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from verifier.transparency.errors import NoteError
from verifier.transparency.notes import Algorithm, Note, Signature, Signer, VerifierKey

_TIME: Final = 8
_MAX_TIME: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature that holds.

    Attributes:
        at: when the witness says it signed, in seconds since 1970 UTC.
    """

    witness: VerifierKey
    at: int
    signature: Signature


def cosign(text: str, signer: Signer, at: int) -> Signature:
    """Cosign the text of a checkpoint, which whoever calls this has checked against all it saw before.

    Args:
        text: of the checkpoint's note.
        signer: of a key of the algorithm `COSIGNATURE_V1`.
        at: now, in seconds since 1970 UTC.
    """
    key = _witness(signer.key)
    if not 0 <= at <= _MAX_TIME:
        raise NoteError(f"{at} is no time of a cosignature")
    return Signature(key.name, key.key_id, at.to_bytes(_TIME) + signer.sign(_message(text, at)))


def cosigned(note: Note, witnesses: Iterable[VerifierKey]) -> tuple[Cosigned, ...]:
    """The cosignatures of these witnesses under a checkpoint; the latest of each.

    Raises:
        NoteError: one that says it is of one of them is not, or a key is no witness's.
    """
    found: list[Cosigned] = []
    for witness in map(_witness, witnesses):
        held = [_opened(note.text, witness, each) for each in note.of(witness)]
        if held:
            found.append(max(held, key=lambda each: each.at))
    return tuple(found)


def _opened(text: str, witness: VerifierKey, signature: Signature) -> Cosigned:
    at = int.from_bytes(signature.value[:_TIME])
    held = len(signature.value) > _TIME and at <= _MAX_TIME
    if not held or not witness.verify(signature.value[_TIME:], _message(text, at)):
        raise NoteError(f"the cosignature of {witness.name}+{witness.key_id.hex()} does not hold")
    return Cosigned(witness, at, signature)


def _message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _witness(key: VerifierKey) -> VerifierKey:
    if key.algorithm is not Algorithm.COSIGNATURE_V1:
        raise NoteError(f"the key {key.encode()} is that of a log, not of a witness")
    return key
