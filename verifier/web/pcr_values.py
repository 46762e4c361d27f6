"""PCR values as they are sent, for the core: read once for each set of them, since a fleet sends few.

Then they are the very same object too, by which the core knows again what it has worked out of them (`appraisal.alike`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias, cast

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.pcr import FixedPcrs

_PCRS: Final = 32
"""TPM_PT_PCR_COUNT of every profile is below."""
_INDICES: Final = {form.format(index): index for index in range(_PCRS) for form in ("{}", "{:02}")}
_KEPT: Final = 512
"""Sets of values; 4 KB each, and no more than 40 where somebody sends all banks there are."""

SentBank: TypeAlias = tuple[str, tuple[str, ...], tuple[bytes, ...]]
"""Label of the bank, and the numbers of PCRs, each with its value, as they were sent."""


@lru_cache(maxsize=_KEPT)
def pcr_values(sent: tuple[SentBank, ...]) -> FixedPcrs:
    """The values by bank and index.

    Raises:
        EvidenceError: a bank that is not known or given twice, a number that is none, a value of the wrong length.
    """
    result: dict[HashAlg, Mapping[int, bytes]] = {}
    for number, (label, keys, values) in enumerate(sent):
        where = f"pcrs[{number}]"
        alg = HASH_BY_LABEL.get(label)
        if alg is None:
            raise _error(where, f"bank {label!r} is not known")
        if alg in result:
            raise _error(where, f"bank {label!r} is given twice")
        result[alg] = _of_bank(keys, values, alg, where)
    return FixedPcrs(result)


def _of_bank(keys: tuple[str, ...], values: tuple[bytes, ...], alg: HashAlg, where: str) -> dict[int, bytes]:
    result = dict(zip(map(_INDICES.get, keys), values, strict=True))
    if len(result) == len(values) and None not in result and set(map(len, values)) <= {alg.size}:
        return cast("dict[int, bytes]", result)
    raise _faulty(keys, values, alg, where)


def _faulty(keys: tuple[str, ...], values: tuple[bytes, ...], alg: HashAlg, where: str) -> EvidenceError:
    """What is wrong with the first of them that cannot be taken."""
    seen: set[int | None] = {None}
    for text, value in zip(keys, values, strict=True):
        index = _INDICES.get(text)
        if index in seen:
            return _error(where, f"PCR {text!r} is no number from 0 to {_PCRS - 1}, or given twice")
        if len(value) != alg.size:
            break
        seen.add(index)
    return _error(where, f"PCR {index} has {len(value)} bytes; {alg.label} has {alg.size}")


def _error(where: str, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=where)
