"""PCR selections and the digest a quote takes over the selected values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from verifier.errors import EvidenceError, UnsupportedError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.reader import Reader

K = TypeVar("K")
V = TypeVar("V")

MAX_SELECTIONS: Final = 16
"""Most banks in one TPML_PCR_SELECTION (HASH_COUNT is implementation-dependent; no TPM has more)."""
MAX_SELECT_BYTES: Final = 4
"""Largest sizeofSelect: 32 PCRs."""


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPMS_PCR_SELECTION (TPM 2.0 Library, Part 2, section 10.6.2): ascending PCR indices of one bank."""

    bank: HashAlg
    pcrs: tuple[int, ...]


class _Fixed(dict[K, V]):
    """Holds what it was made with."""

    def __reduce__(self) -> tuple[type[_Fixed[K, V]], tuple[dict[K, V]]]:
        """Made anew where it is unpickled, not filled."""
        return type(self), (dict(self),)


class FixedPcrs(_Fixed[HashAlg, Mapping[int, bytes]]):
    """PCR values by bank and index that nobody can change: what follows from them may be remembered for this very object."""

    def __init__(self, banks: Mapping[HashAlg, Mapping[int, bytes]]) -> None:
        super().__init__({bank: _Fixed(values) for bank, values in banks.items()})


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("these values are others', too: nobody can change them")


for _name in ["__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"]:
    setattr(_Fixed, _name, _refuse)


class PcrValueError(EvidenceError):
    """A value that the quote covers is missing, or is not as long as its bank's digests.

    Attributes:
        bank: the bank of the value.
        pcr: its index.
    """

    def __init__(self, bank: HashAlg, pcr: int, detail: str) -> None:
        self.bank = bank
        self.pcr = pcr
        super().__init__(Reason.QUOTE_PCR_DIGEST, f"PCR {pcr} of bank {bank.label}: {detail}")


def _pcrs_of_bitmap(bitmap: bytes) -> tuple[int, ...]:
    bits = int.from_bytes(bitmap, "little")  # bit 0 of byte 0 is PCR 0
    return tuple([pcr for pcr in range(8 * len(bitmap)) if bits >> pcr & 1])


def read_selections(reader: Reader) -> tuple[PcrSelection, ...]:
    """Read a TPML_PCR_SELECTION (Part 2, section 10.9.7), big-endian, in the order given.

    Nothing is merged or sorted: a bank named twice stays twice, because the quoted digest covers its values
    twice, in this order. Raises `MalformedInputError` for a count or bitmap larger than any TPM makes, and
    `UnsupportedError` for a bank that is no known hash algorithm, both at the offset of the field.
    """
    start = reader.offset
    count = reader.u32("PCR selection count")
    if count > MAX_SELECTIONS:
        raise reader.error(f"{count} PCR selections, at most {MAX_SELECTIONS} are allowed", offset=start)
    return tuple([_read_selection(reader) for _ in range(count)])


def _read_selection(reader: Reader) -> PcrSelection:
    start = reader.offset
    bank = HASH_BY_ID.get(bank_id := reader.u16("PCR bank"))
    if bank is None:
        raise UnsupportedError(
            f"PCR bank 0x{bank_id:04x} is not supported", structure=reader.structure, offset=start
        )
    size = reader.u8("sizeofSelect")
    if size > MAX_SELECT_BYTES:
        raise reader.error(f"sizeofSelect {size}, at most {MAX_SELECT_BYTES} is allowed", offset=start + 2)
    return PcrSelection(bank, _pcrs_of_bitmap(reader.take(size, "pcrSelect")))


def quoted_digest(
    hash_alg: HashAlg,
    selections: Iterable[PcrSelection],
    values: Mapping[HashAlg, Mapping[int, bytes]],
) -> bytes:
    """The digest a TPM takes over the selected PCRs (Part 3, section 18.4, TPM2_Quote).

    Equality with a verified quote's `pcr_digest` proves the selected `values` and nothing about any other
    value in the mapping.

    Args:
        hash_alg: hash of the *signing scheme*, which need not be that of any bank.
        selections: as quoted, in their order.
        values: PCR values by bank and index.

    Raises:
        PcrValueError: a selected value is missing or has the wrong length. Lengths matter: the digest is of
            a plain concatenation, so a byte moved from one value to its neighbour would not change it.
        UnsupportedError: this build lacks `hash_alg`.
    """
    new = hash_alg.new
    if new is None:
        raise UnsupportedError(f"hash {hash_alg.label} is not available in this build")
    parts: list[bytes] = []
    for selection in selections:
        bank = values.get(selection.bank, {})
        try:
            sent = [bank[pcr] for pcr in selection.pcrs]
        except KeyError:
            raise _faulty(selection, bank) from None
        if set(map(len, sent)) - {selection.bank.size}:
            raise _faulty(selection, bank)
        parts += sent
    digest: bytes = new(b"".join(parts)).digest()
    return digest


def _faulty(selection: PcrSelection, bank: Mapping[int, bytes]) -> PcrValueError:
    """The first value that is not there, or is not of the bank's length."""
    size = selection.bank.size
    pcr = next(pcr for pcr in selection.pcrs if len(bank.get(pcr, b"")) != size)
    value = bank.get(pcr)
    if value is None:
        return PcrValueError(selection.bank, pcr, "the quote covers it but no value was sent")
    return PcrValueError(selection.bank, pcr, f"value of {len(value)} bytes, {size} expected")
