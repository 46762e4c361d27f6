"""PCR 10 moves between quote and reading; the list tells the value that was quoted."""

from __future__ import annotations

import pytest

from tests.ima_kernel import ImaKernel
from verifier.appraisal import ima_race
from verifier.appraisal.ima_race import find_quoted, is_quoted
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo, QuoteAttest
from verifier.tcg.ima.entry import ListEncoding
from verifier.tcg.pcr import PcrSelection, quoted_digest

SHA256 = HashAlg.SHA256


def values(kernel: ImaKernel, banks=("sha256",)):
    return {HashAlg[bank.upper()]: dict(kernel.pcrs[bank]) for bank in banks}


def quote_of(pcrs) -> QuoteAttest:
    selections = tuple(PcrSelection(bank, tuple(sorted(held))) for bank, held in pcrs.items())
    return QuoteAttest(
        qualified_signer=b"",
        extra_data=b"",
        clock=ClockInfo(1, 1, 0, True),
        firmware_version=1,
        selections=selections,
        pcr_digest=quoted_digest(SHA256, selections, pcrs),
    )


def busy(kernel: ImaKernel, before: int = 5, between: int = 3, after: int = 4):
    """What was read, what was quoted a little later, and the list as it was read last."""
    for number in range(before):
        kernel.measure(f"/bin/before-{number}", f"{number}")
    read = values(kernel, kernel.banks)
    for number in range(between):
        kernel.measure(f"/bin/between-{number}", f"{number}")
    kernel.violation("/var/log/wtmp")
    quoted = values(kernel, kernel.banks)
    for number in range(after):
        kernel.measure(f"/bin/after-{number}", f"{number}")
    return read, quoted


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("banks", [("sha256",), ("sha1", "sha256")])
@pytest.mark.parametrize("template", ["ima-ng", "ima", "ima-sig"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_quoted_value_is_found_in_the_list(padded, banks, template, order):
    boot = {
        bank: {pcr: bytes([pcr]) * HashAlg[bank.upper()].size for pcr in range(10)}
        for bank in ("sha1", "sha256")
    }
    kernel = ImaKernel(padded=padded, banks=banks, template=template, order=order, boot=boot)
    kernel.pcrs = {bank: kernel.pcrs[bank] for bank in banks}
    read, quoted = busy(kernel)
    encoding = ListEncoding("little" if order == "<" else "big")
    assert read != quoted
    assert find_quoted(quote_of(quoted), SHA256, read, {}, kernel.list, encoding) == quoted


def test_a_tail_is_searched_from_what_was_proven_before():
    kernel = ImaKernel()
    kernel.measure("/bin/proven", "before")
    known, proven = len(kernel.list), values(kernel, kernel.banks)
    read, quoted = busy(kernel)
    tail = kernel.list[known:]
    start = {bank: held[10] for bank, held in proven.items()}
    found = find_quoted(quote_of(quoted), SHA256, read, start, tail, ListEncoding())
    assert found == quoted
    assert find_quoted(quote_of(quoted), SHA256, read, {}, tail, ListEncoding()) is None


@pytest.mark.parametrize("change", ["other PCR", "no entry", "edited"])
def test_what_the_list_does_not_lead_to_is_not_found(change):
    kernel = ImaKernel()
    read, quoted = busy(kernel)
    data = bytearray(kernel.list)
    if change == "other PCR":
        read[SHA256][7] = bytes(32)
    elif change == "no entry":
        del data[kernel.offsets[8] :]
    else:
        data[kernel.offsets[8] - 3] ^= 1
    assert find_quoted(quote_of(quoted), SHA256, read, {}, bytes(data), ListEncoding()) is None


def test_values_without_pcr_10_or_with_one_missing_are_left_alone():
    kernel = ImaKernel()
    read, quoted = busy(kernel)
    attest = quote_of(quoted)
    del read[SHA256][10]
    assert not is_quoted(attest, SHA256, read)
    assert find_quoted(attest, SHA256, read, {}, kernel.list, ListEncoding()) is None


def test_no_more_than_so_many_entries_are_tried(monkeypatch):
    monkeypatch.setattr(ima_race, "MOST_ENTRIES", 3)
    kernel = ImaKernel()
    read, quoted = busy(kernel)
    assert find_quoted(quote_of(quoted), SHA256, read, {}, kernel.list, ListEncoding()) is None
