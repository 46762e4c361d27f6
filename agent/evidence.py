"""A quote with the PCR values that belong to it.

The values are not signed; the verifier believes them because they hash to the digest that is. Programs extend
PCRs all the time (IMA: PCR 10), so quote and reading can disagree on an honest machine: they are taken again until
they agree. Where the IMA list goes with the quote, a PCR 10 that moved on is no reason to: the list says every value
it had, and the verifier finds the one that was quoted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from agent.errors import PcrsUnstableError
from agent.tpm import Key, Quote, Selection, Tpm

TRIES: Final = 5
SIGNING_HASH: Final = "sha256"
"""Of every AK this agent makes. The PCR digest of a quote uses the signing scheme's hash, not the bank's
(TPM 2.0 Part 1, section 17.6)."""

IMA_PCR: Final = 10

PcrValues = Mapping[str, Mapping[int, bytes]]


class QuotedPcrs(Struct, frozen=True):
    """A quote and PCR values that hash to the digest in it; with `ima_list`, PCR 10 may have an earlier value."""

    quote: Quote
    values: PcrValues
    agree: bool = True
    """False: only the IMA list tells the quoted PCR 10."""


def quote_with_pcrs(
    tpm: Tpm, ak: Key, nonce: bytes, selection: Selection, *, ima_list: bool = False
) -> QuotedPcrs:
    """Quote `selection` over `nonce` and read the same PCRs until both agree.

    Quoting again over one nonce is sound: only one of the quotes is sent, and the verifier spends the nonce with it.
    With `ima_list` the IMA list will be read after this and sent along: it is enough that all but PCR 10 stood still.

    Raises:
        PcrsUnstableError: they changed between every quote and reading.
        BankMissingError: the TPM lacks a bank or register.
    """
    values = _read(tpm, selection)
    for _ in range(TRIES):
        quote = tpm.quote(ak, nonce, selection)
        if _agree(quote.attest, values):
            return QuotedPcrs(quote, values)
        after = _read(tpm, selection)
        if _agree(quote.attest, after):
            return QuotedPcrs(quote, after)
        if ima_list and _but_for_ima(values) == _but_for_ima(after):
            return QuotedPcrs(
                quote, values, agree=False
            )  # of before the quote: the verifier goes on from there
        values = after
    raise PcrsUnstableError(
        f"PCRs changed during each of {TRIES} quotes",
        "try again when the machine starts fewer programs, or have the policy not quote the IMA register (PCR 10)",
    )


def _read(tpm: Tpm, selection: Selection) -> dict[str, dict[int, bytes]]:
    return {bank: tpm.read_pcrs(bank, sorted(pcrs)) for bank, pcrs in selection.items()}


def _but_for_ima(values: PcrValues) -> PcrValues:
    return {
        bank: {index: value for index, value in pcrs.items() if index != IMA_PCR}
        for bank, pcrs in values.items()
    }


def _agree(attest: bytes, values: PcrValues) -> bool:
    """Whether `values` hash to the quoted digest: the TPM2B_DIGEST that ends a quote's TPMS_ATTEST."""
    digest = hashlib.new(SIGNING_HASH)
    for bank in values.values():
        for index in sorted(bank):
            digest.update(bank[index])
    quoted = digest.digest()
    return attest.endswith(len(quoted).to_bytes(2) + quoted)
