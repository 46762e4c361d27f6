"""Real lists: those of the corpus against their origin's count and PCR 10, those of captured boots against their TPM."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED, shared_path
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.ima.boot_aggregate import Aggregate, check_aggregate
from verifier.tcg.ima.entry import ByteOrder, ImaEntry, ImaFormatError, ImaList
from verifier.tcg.ima.parse import fits, parse_list, to_binary
from verifier.tcg.ima.replay import replay
from verifier.tcg.ima.rules import BankRule

CORPUS = SHARED / "corpus"
TABLE = CORPUS / "VALIDATION_ima.tsv"
CUT = {
    "tpm2-software_tpm2-tss/sml-ima-ng-sha1.bin": (558, 6),
    "tpm2-software_tpm2-tss/sml-ima-sha1.bin": (916, 12),
    "tpm2-software_tpm2-tss/sml-ima-sig-sha256.bin": (987, 9),
}
"""Bytes after the last entry, which its origin's parser leaves: offset, and entries before them."""


@dataclass(frozen=True)
class Row:
    file: str
    entries: int
    violations: int
    fitting: int
    prefixes: dict[str, str]

    def __str__(self) -> str:
        return self.file

    @property
    def data(self) -> bytes:
        return (CORPUS / self.file).read_bytes()


def rows() -> list[Row | None]:
    if not TABLE.exists():
        return [None]
    with TABLE.open(newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    return [
        Row(
            one["file"],
            int(one["entries"]),
            int(one["violations"]),
            int(one["template hash recomputed ok/nonviolation"].split("/")[0]),
            dict(re.findall(r"'(\w+)': '([0-9a-f]{16})'", one["PCR10 replay prefixes"])),
        )
        for one in table
    ]


ROWS = rows()


def order_of(parsed: ImaList) -> ByteOrder:
    return "little" if parsed.encoding is None else parsed.encoding.byte_order


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_list_of_the_corpus_is_what_an_independent_parser_found(row: Row | None) -> None:
    if row is None:
        shared_path("corpus/VALIDATION_ima.tsv")
    assert row is not None
    data = row.data
    if row.file in CUT:
        offset, count = CUT[row.file]
        with pytest.raises(ImaFormatError) as refusal:
            parse_list(data)
        assert (refusal.value.offset, refusal.value.entry, refusal.value.cut) == (offset, count, True)
        assert count == row.entries
        data = data[:offset]
    parsed = parse_list(data)
    order = order_of(parsed)
    assert len(parsed.entries) == row.entries
    assert sum(one.is_violation for one in parsed.entries) == row.violations
    assert sum(fits(one, order) for one in parsed.entries) == row.fitting


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_list_of_the_corpus_replays_as_an_independent_parser_replayed_it(row: Row | None) -> None:
    if row is None:
        shared_path("corpus/VALIDATION_ima.tsv")
    assert row is not None
    if row.fitting != row.entries - row.violations:
        pytest.skip("SKIPPED: template digests of this list do not fit its data, so there is no one replay")
    parsed = parse_list(row.data[: CUT[row.file][0]] if row.file in CUT else row.data)
    if len({one.pcr for one in parsed.entries}) > 1:
        parsed = ImaList(parsed.encoding, tuple(one for one in parsed.entries if one.pcr == 10))
    order = order_of(parsed)
    for label in ("sha1", "sha256", "sha384", "sha512"):
        own = replay(parsed.entries, HASH_BY_LABEL[label], BankRule.OWN_HASH, order)[10].hex()
        assert own.startswith(row.prefixes[label]), label


def aggregate(entry: ImaEntry) -> tuple[str, bytes]:
    return entry.fields.algorithm or "", entry.fields.digest or b""


def captures(root: Path) -> list[Path | None]:
    found = sorted(root.glob("*/binary_runtime_measurements"))
    return [one.parent for one in found] or [None]


@pytest.mark.parametrize("capture", captures(SHARED / "evidence"), ids=lambda one: one and one.name)
def test_the_list_of_a_captured_boot_leads_to_what_its_tpm_held(capture: Path | None) -> None:
    if capture is None:
        shared_path("evidence")
    assert capture is not None
    assert_kernel_truth(capture)
    ascii_list = (capture / "ascii_runtime_measurements").read_bytes()
    assert to_binary(ascii_list) == (capture / "binary_runtime_measurements").read_bytes()


@pytest.mark.parametrize(
    "capture", captures(ROOT / "policies" / "evidence"), ids=lambda one: one and one.name
)
def test_the_list_of_a_shipped_sample_leads_to_what_its_tpm_held(capture: Path | None) -> None:
    assert capture is not None, "the samples are part of this repository"
    assert_kernel_truth(capture)


def assert_kernel_truth(capture: Path) -> None:
    parsed = parse_list((capture / "binary_runtime_measurements").read_bytes())
    stated = json.loads((capture / "pcrs.json").read_text())
    values = {
        HASH_BY_LABEL[bank]: {int(pcr): bytes.fromhex(value) for pcr, value in pcrs.items()}
        for bank, pcrs in stated.items()
    }
    for bank in (HashAlg.SHA1, HashAlg.SHA256):
        assert replay(parsed.entries, bank, BankRule.OWN_HASH, "little") == {10: values[bank][10]}
    assert replay(parsed.entries, HashAlg.SHA256, BankRule.PADDED_SHA1, "little") != {
        10: values[HashAlg.SHA256][10]
    }
    assert check_aggregate(*aggregate(parsed.entries[0]), [values]) is Aggregate.AGREES
    assert check_aggregate(
        *aggregate(parsed.entries[0]), [{HashAlg.SHA256: {**values[HashAlg.SHA256], 4: bytes(32)}}]
    ) is (Aggregate.DIFFERS)
