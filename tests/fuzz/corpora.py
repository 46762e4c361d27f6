"""Seeds: what real machines and other projects' tests hold, as far as it is here."""

from __future__ import annotations

import atexit
import csv
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT, SHARED

CORPUS = SHARED / "corpus"
CAPTURES = ROOT / "policies" / "evidence"


@functools.cache
def _manifest() -> tuple[tuple[str, str], ...]:
    table = CORPUS / "MANIFEST.tsv"
    if not table.exists():
        return ()
    with table.open(newline="") as file:
        return tuple((row["kind"], row["file"]) for row in csv.DictReader(file, delimiter="\t"))


def corpus(*kinds: str, longest: int = 100_000) -> Iterator[bytes]:
    """Files of these kinds in ../shared/corpus; none where it is absent."""
    for kind, name in _manifest():
        path = CORPUS / name
        if kind in kinds and path.is_file() and path.stat().st_size <= longest:
            yield path.read_bytes()


def files(folder: Path, *patterns: str, longest: int = 100_000) -> Iterator[bytes]:
    """Contents of the files below a folder, in the order of their names."""
    for pattern in patterns:
        for path in sorted(folder.rglob(pattern)):
            if path.is_file() and path.stat().st_size <= longest:
                yield path.read_bytes()


def captured(*patterns: str, longest: int = 100_000) -> Iterator[bytes]:
    """Files of the boots that are in this repository."""
    return files(CAPTURES, *patterns, longest=longest)


def choices(seeds: dict[int, list[bytes]]) -> Iterator[bytes]:
    """Seeds of a target that tells several readers apart by the first byte."""
    for number, each in seeds.items():
        for data in each:
            yield bytes([number]) + data


@functools.cache
def _folder() -> Path:
    """For readers that want a file; in memory where the system has a place for that."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(made.cleanup)
    return Path(made.name)


def as_file(data: bytes, name: str = "input") -> Path:
    """The bytes as a file, until the next of this name."""
    path = _folder() / name
    path.write_bytes(data)
    return path
