"""PCR 10 as it was when it was quoted, found in the list that leads there.

On a busy machine PCR 10 moves between quote and reading, so the value that comes with a quote may be an earlier one
than was quoted. The list says every value it had since. The one with which all values hash to the signed digest is the
quoted one: found by trying, proven by the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import QuoteAttest
from verifier.tcg.ima.entry import DEFAULT_PCR, ListEncoding
from verifier.tcg.ima.replay import extended_value, start_value, violation_value
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.templates import hashed_data
from verifier.tcg.ima.walk import RawEntry, walk
from verifier.tcg.pcr import PcrValueError, quoted_digest

PcrValues = Mapping[HashAlg, Mapping[int, bytes]]
MOST_ENTRIES: Final = 10_000
"""Tried after the value that was read: seconds of a machine that does nothing but start programs."""


def is_quoted(attest: QuoteAttest, signature_hash: HashAlg, values: PcrValues) -> bool:
    """Whether these are the values that were quoted; False too where one is missing."""
    try:
        return quoted_digest(signature_hash, attest.selections, values) == attest.pcr_digest
    except PcrValueError:
        return False


def find_quoted(
    attest: QuoteAttest,
    signature_hash: HashAlg,
    values: PcrValues,
    start: Mapping[HashAlg, bytes],
    data: bytes,
    encoding: ListEncoding,
) -> PcrValues | None:
    """`values`, with the PCR 10 of every bank that the list has it at when the quote was taken.

    Args:
        attest: the quote. Its signature need not be checked yet; nothing is believed for being found here.
        signature_hash: of its signing scheme.
        values: as they were sent, PCR 10 as it was before the quote.
        start: PCR 10 by bank before the first entry of `data`; banks that are not in it start as the TPM does.
        data: entries, the last may be torn.
        encoding: of `data`.

    Returns:
        None where no entry leads to the quoted digest.

    Raises:
        ImaFormatError: the bytes are no entries.
    """
    banks = [bank for bank, pcrs in values.items() if DEFAULT_PCR in pcrs]
    if not banks:
        return None
    for rule in BankRule:
        at = _position(values[banks[0]][DEFAULT_PCR], start, data, encoding, (banks[0], rule))
        if at is not None:
            found = _try(attest, signature_hash, values, data[at:], encoding, (banks, rule))
            if found is not None:
                return found
    return None


def _position(
    value: bytes,
    start: Mapping[HashAlg, bytes],
    data: bytes,
    encoding: ListEncoding,
    how: tuple[HashAlg, BankRule],
) -> int | None:
    """Where in `data` PCR 10 has `value`."""
    bank, rule = how
    now = start.get(bank, start_value(DEFAULT_PCR, bank))
    if now == value:
        return 0
    for entry in walk(data, encoding):
        if entry.pcr == DEFAULT_PCR:
            now = bank.digest(now + _extended(entry, bank, rule, encoding))
            if now == value:
                return entry.end
    return None


def _try(
    attest: QuoteAttest,
    signature_hash: HashAlg,
    values: PcrValues,
    data: bytes,
    encoding: ListEncoding,
    how: tuple[Iterable[HashAlg], BankRule],
) -> PcrValues | None:
    banks, rule = how
    tried = {bank: dict(pcrs) for bank, pcrs in values.items()}
    for number, entry in enumerate(walk(data, encoding)):
        if number >= MOST_ENTRIES:
            return None
        if entry.pcr != DEFAULT_PCR:
            continue
        for bank in banks:
            extended = _extended(entry, bank, rule, encoding)
            tried[bank][DEFAULT_PCR] = bank.digest(tried[bank][DEFAULT_PCR] + extended)
        if is_quoted(attest, signature_hash, tried):
            return tried
    return None


def _extended(entry: RawEntry, bank: HashAlg, rule: BankRule, encoding: ListEncoding) -> bytes:
    if not any(entry.digest):
        return violation_value(bank, rule)
    return extended_value(hashed_data(entry.name, entry.data, encoding.byte_order), bank, rule)
