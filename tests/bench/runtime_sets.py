"""Runtime sets of 1,000,000 digests: what they take of memory, and what it takes to look into them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.bench.measure import Result, seconds
from tests.runtime_sets import SHA256, many
from verifier.policy.runtime.reading import read_runtime_set
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.writing import write_runtime_set

COUNT: Final = 1_000_000
LOOKED_UP: Final = 10_000
_CHUNK: Final = 256 * 1024
_MEMORY_MB: Final = 200
_FIND_US: Final = 1.0


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def child(path: str) -> None:
    """In a process of its own, so that nothing else is counted: read the set, then look up what it has."""
    before = _resident_mb()
    whole = read_runtime_set(_chunks(Path(path)))
    grown = _resident_mb() - before
    hits, misses = _lookups(whole)
    bare = {entry.digest + entry.path for entry in itertools.islice(whole, 0, COUNT, COUNT // LOOKED_UP)}
    keys = list(bare)
    costs = seconds(hits, misses, lambda: [key in bare for key in keys])
    json.dump([grown, *(cost / LOOKED_UP for cost in costs)], sys.stdout)


def _lookups(whole: RuntimeSet) -> tuple[Callable[[], object], Callable[[], object]]:
    find = whole.tables[SHA256].find
    wanted = [(e.digest, e.path) for e in itertools.islice(whole, 0, COUNT, COUNT // LOOKED_UP)]
    unknown = [(digest[::-1], path) for digest, path in wanted]
    return (
        lambda: [find(digest, path) for digest, path in wanted],
        lambda: [find(digest, path) for digest, path in unknown],
    )


def million() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.rtset"
        with path.open("wb") as file:
            file.writelines(write_runtime_set(many(COUNT)))
        code = f"from tests.bench.runtime_sets import child; child({str(path)!r})"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    grown, hit, miss, bare = json.loads(said.stdout)
    floor = f"bytes in a set {bare * 1e6:.2f} us"
    budget = f"<= {_FIND_US:g} us"
    return [
        Result(
            "runtime set, 1,000,000 digests resident",
            grown,
            "MB",
            "",
            None,
            f"<= {_MEMORY_MB} MB",
            grown <= _MEMORY_MB,
        ),
        Result(
            "look up a known digest and path",
            hit * 1e6,
            "us",
            floor,
            hit / bare,
            budget,
            hit * 1e6 <= _FIND_US,
        ),
        Result(
            "look up an unknown digest", miss * 1e6, "us", floor, miss / bare, budget, miss * 1e6 <= _FIND_US
        ),
    ]


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"runtime set": million}
