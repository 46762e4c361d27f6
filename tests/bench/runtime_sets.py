"""Runtime sets of 1,000,000 digests: what they take of memory, and what it takes to look into them."""

from __future__ import annotations

import gc
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
from verifier.policy.runtime.compiled import CompiledReference
from verifier.policy.runtime.reading import read_runtime_set
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.section import NamedSet, RuntimeSection
from verifier.policy.runtime.writing import write_runtime_set
from verifier.tcg.algorithms import HashAlg

COUNT: Final = 1_000_000
LOOKED_UP: Final = 10_000
_CHUNK: Final = 256 * 1024
_MEMORY_MB: Final = 200
_FIND_US: Final = 1.0
_EXACT_US: Final = 2.0
"""Digest and path: five places of 170 MB are touched, and few of them lie in a cache."""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def child(path: str) -> None:
    """In a process of its own, so that nothing else is counted: compile a policy of the set, then ask it."""
    before = _resident_mb()
    whole = read_runtime_set(_chunks(Path(path)))
    reference = CompiledReference(RuntimeSection(sets=(NamedSet("it"),)), {"it": whole}, HashAlg.SHA256)
    gc.collect()
    grown = _resident_mb() - before
    accepted = reference.accepted(HashAlg.SHA256)
    hits, misses = _lookups(whole)
    bare = {entry.digest + entry.path for entry in itertools.islice(whole, 0, COUNT, COUNT // LOOKED_UP)}
    keys = list(bare)
    # Digests of whole entries are as evenly spread as any: these are misses, and walk a bucket all the same.
    digests = [digest for digest, _ in _wanted(whole)]
    costs = seconds(
        hits,
        misses,
        lambda: [digest in accepted for digest in digests],
        lambda: [key in bare for key in keys],
    )
    json.dump([grown, *(cost / LOOKED_UP for cost in costs)], sys.stdout)


def _lookups(whole: RuntimeSet) -> tuple[Callable[[], object], Callable[[], object]]:
    find = whole.tables[SHA256].find
    wanted = _wanted(whole)
    unknown = [(digest[::-1], path) for digest, path in wanted]
    return (
        lambda: [find(digest, path) for digest, path in wanted],
        lambda: [find(digest, path) for digest, path in unknown],
    )


def _wanted(whole: RuntimeSet) -> list[tuple[bytes, bytes]]:
    """Digests and paths from all over the set."""
    return [(e.digest, e.path) for e in itertools.islice(whole, 0, COUNT, COUNT // LOOKED_UP)]


def million() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.rtset"
        with path.open("wb") as file:
            file.writelines(write_runtime_set(many(COUNT)))
        code = f"from tests.bench.runtime_sets import child; child({str(path)!r})"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    grown, *costs, bare = json.loads(said.stdout)
    floor = f"bytes in a set {bare * 1e6:.2f} us"
    names = ("look up a digest and its path", "look up an unknown digest", "look up a whole entry")
    return [
        Result(
            "runtime policy, 1,000,000 digests",
            grown,
            "MB resident",
            "",
            None,
            f"<= {_MEMORY_MB} MB",
            grown <= _MEMORY_MB,
        ),
        *(
            Result(name, cost * 1e6, "us", floor, cost / bare, f"<= {most:g} us", cost * 1e6 <= most)
            for name, cost, most in zip(names, costs, (_EXACT_US, _FIND_US, _FIND_US), strict=True)
        ),
    ]


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"runtime set": million}
