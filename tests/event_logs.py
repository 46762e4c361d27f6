"""Boot logs of the captures and of the shared corpus, with what is known of each, for the tests of this project."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, SHARED
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

CAPTURES = ROOT / "policies" / "evidence"
CORPUS = SHARED / "corpus"
Pcrs = dict[HashAlg, dict[int, bytes]]


@dataclass(frozen=True, slots=True)
class Boot:
    """A captured boot: its log, all PCRs as read beside the quote, and the kernel's own command line."""

    name: str
    log: bytes
    pcrs: Pcrs
    command_line: str

    def quoted(self, *banks: HashAlg, last: int = 15) -> Pcrs:
        """What a quote over PCRs 0 to `last` proves."""
        chosen = banks or (HashAlg.SHA256,)
        return {bank: {pcr: v for pcr, v in self.pcrs[bank].items() if pcr <= last} for bank in chosen}


def pcrs_of(document: Mapping[str, Mapping[str, str]]) -> Pcrs:
    return {
        HASH_BY_LABEL[label]: {int(pcr): bytes.fromhex(value) for pcr, value in values.items()}
        for label, values in document.items()
        if values
    }


def read_boot(folder: Path) -> Boot:
    return Boot(
        folder.name,
        (folder / "binary_bios_measurements").read_bytes(),
        pcrs_of(json.loads((folder / "pcrs.json").read_text())),
        json.loads((folder / "meta.json").read_text())["cmdline"],
    )


def boots(folder: Path = CAPTURES) -> list[Boot]:
    """Every captured boot that has a log."""
    return [read_boot(path.parent) for path in sorted(folder.glob("*/binary_bios_measurements"))]


def boot(name: str) -> Boot:
    return read_boot(CAPTURES / name)


@dataclass(frozen=True, slots=True)
class CorpusLog:
    """One row of the corpus' independent check."""

    file: str
    kind: str
    own_parser: str
    banks: tuple[str, ...]
    stated: str

    @property
    def data(self) -> bytes:
        return (CORPUS / self.file).read_bytes()

    def __str__(self) -> str:
        return self.file


def corpus_logs() -> Iterator[CorpusLog]:
    """Rows of VALIDATION_eventlogs.tsv; none where the corpus is absent."""
    table = CORPUS / "VALIDATION_eventlogs.tsv"
    if not table.exists():
        return
    with table.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield CorpusLog(
                row["file"],
                row["kind"],
                row["own parser"],
                tuple((row["banks"] or "").split(",")),
                row["own PCRs vs stated expected"] or "",
            )
