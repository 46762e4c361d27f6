"""The event that opens a crypto-agile log and declares its banks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HASH_BY_ID

STRUCTURE: Final = "TCG event log"
SPEC_ID_03: Final = b"Spec ID Event03\0"

_SPEC_ID: Final = struct.Struct("<IBBBBI")
_ALGORITHM: Final = struct.Struct("<HH")
_MAX_ALGORITHMS: Final = 16
_MAX_DIGEST: Final = 128
_MAJOR: Final = 2


@dataclass(frozen=True, slots=True)
class SpecId:
    """TCG_EfiSpecIdEvent (section 10.4.5.1).

    Attributes:
        algorithms: every declared bank, as (TPM_ALG_ID, digest size in bytes), in the order declared.
        uintn_size: size of UINTN in 32-bit words.
    """

    platform_class: int
    version: tuple[int, int, int]
    uintn_size: int
    algorithms: tuple[tuple[int, int], ...]
    vendor_info: bytes


def parse_spec_id(data: bytes, start: int, size: int) -> tuple[SpecId, int]:
    """The Spec ID event of `size` bytes at `start`, and by how many bytes its vendor information overhangs it.

    The size of an event includes its vendor information; logs exist that do not count it.

    Raises:
        MalformedInputError: not such an event; `offset` counts from the start of `data`.
    """
    end = start + size
    offset = start + len(SPEC_ID_03)
    if end - offset < _SPEC_ID.size:
        raise _error(start - 4, f"a Spec ID event of {size} bytes is too short")
    platform_class, minor, major, errata, uintn_size, count = _SPEC_ID.unpack_from(data, offset)
    if major != _MAJOR:
        raise _error(offset + 5, f"specification version {major}.{minor} is not 2.x")
    offset += _SPEC_ID.size
    if not 0 < count <= _MAX_ALGORITHMS or count * _ALGORITHM.size > end - offset:
        raise _error(offset - 4, f"{count} algorithms are declared")
    algorithms = _algorithms(data, offset, count)
    offset += count * _ALGORITHM.size
    if offset == end:
        raise _error(offset, "vendorInfoSize is missing")
    vendor_size = data[offset]
    overhang = offset + 1 + vendor_size - end
    if overhang not in (0, vendor_size) or overhang > len(data) - end:
        raise _error(offset, f"vendorInfoSize {vendor_size} does not fit the {end - offset - 1} bytes left")
    vendor_info = data[offset + 1 : offset + 1 + vendor_size]
    return SpecId(platform_class, (major, minor, errata), uintn_size, algorithms, vendor_info), overhang


def _algorithms(data: bytes, offset: int, count: int) -> tuple[tuple[int, int], ...]:
    declared: dict[int, int] = {}
    for at in range(offset, offset + count * _ALGORITHM.size, _ALGORITHM.size):
        alg, size = _ALGORITHM.unpack_from(data, at)
        known = HASH_BY_ID.get(alg)
        if alg in declared:
            raise _error(at, f"algorithm 0x{alg:04x} is declared twice")
        if (known is not None and known.size != size) or not 0 < size <= _MAX_DIGEST:
            raise _error(at + 2, f"algorithm 0x{alg:04x} is declared with digests of {size} bytes")
        declared[alg] = size
    return tuple(declared.items())


def _error(offset: int, detail: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, offset, detail)
