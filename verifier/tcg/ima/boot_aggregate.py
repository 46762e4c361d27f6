"""The `boot_aggregate` entry: IMA's own record of the PCRs it found when it started.

A digest over PCRs 0 to 7 of one bank; in Linux 5.8 and later, over 0 to 9 but for SHA-1
(ima_calc_boot_aggregate_tfm in security/integrity/ima/ima_crypto.c).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.ima.entry import BOOT_AGGREGATE, ImaEntry

_FIRMWARE: Final = range(8)
_BOOT: Final = range(10)


class Aggregate(enum.Enum):
    """How a boot aggregate relates to PCR values."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NO_TPM = "no-tpm"
    """All zeroes: the kernel found no TPM when IMA started."""
    UNCHECKABLE = "uncheckable"
    """PCRs of its bank are not at hand, or its algorithm is no bank's."""


def is_boot_aggregate(entry: ImaEntry) -> bool:
    """Whether an entry says to be one. A file of this name has an absolute path."""
    return entry.fields.path == BOOT_AGGREGATE


def check_aggregate(
    algorithm: str, digest: bytes, values: Iterable[Mapping[HashAlg, Mapping[int, bytes]]]
) -> Aggregate:
    """Hold a boot aggregate against PCR values of the same boot.

    Args:
        algorithm: the entry's, as the kernel calls it.
        digest: the entry's.
        values: sets of values to try, by bank and PCR: as quoted now, or as they were when the kernel started (PCRs 8
            and 9 may be extended by userspace later).
    """
    bank = HASH_BY_LABEL.get(algorithm)
    if not any(digest):
        return Aggregate.NO_TPM
    if bank is None or bank.new is None:
        return Aggregate.UNCHECKABLE
    result = Aggregate.UNCHECKABLE
    for banks in values:
        pcrs = banks.get(bank, {})
        for covered in (_BOOT, _FIRMWARE):
            if covered is _BOOT and bank is HashAlg.SHA1:
                continue
            if not all(pcr in pcrs for pcr in covered):
                continue
            if bank.digest(b"".join(pcrs[pcr] for pcr in covered)) == digest:
                return Aggregate.AGREES
            # Without 8 and 9 it is not known what the longer rule would have given.
            if bank is HashAlg.SHA1 or all(pcr in pcrs for pcr in _BOOT):
                result = Aggregate.DIFFERS
    return result
