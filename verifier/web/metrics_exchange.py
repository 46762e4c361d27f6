"""The metrics of several workers on one address as one page: whichever is scraped tells of all of them.

Each worker leaves what it counts in a file now and then, and whenever it is scraped, so that no counter ever goes back
from one scrape to the next. Their series carry the label `worker`, for each counts from its own start.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

EVERY: Final = 5.0
"""Seconds between two files of a worker that is not scraped."""
_FRESH: Final = 30.0
"""An older file is of a worker that is gone."""


class Exchange:
    """The files of all workers of a service.

    Args:
        directory: of the service alone; whoever can write there can make up metrics.
        worker: number of this worker.
    """

    def __init__(self, directory: Path, worker: int) -> None:
        self._directory = directory
        self._worker = worker

    def put(self, page: bytes) -> None:
        """Leave what this worker counts. Blocks; raises `OSError`."""
        path = self._directory / f"{self._worker}.prom"
        new = path.with_suffix(".new")
        new.write_bytes(page)
        new.replace(path)

    def all(self) -> dict[str, bytes]:
        """What every worker left last, by its number. Blocks; raises `OSError`."""
        oldest = time.time() - _FRESH
        found = {}
        for path in sorted(self._directory.glob("*.prom")):
            if path.stat().st_mtime >= oldest:
                found[path.stem] = path.read_bytes()
        return found


def merged(pages: Mapping[str, bytes]) -> bytes:
    """One exposition of several: each family once, its samples with the label `worker`."""
    families: dict[str, tuple[dict[str, None], list[str]]] = {}
    for worker, page in pages.items():
        heads: dict[str, None] = {}
        samples: list[str] = []
        for line in page.decode().splitlines():
            if line.startswith("# "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ({}, []))
                heads[line] = None
            elif line:
                samples.append(_labelled(line, worker))
    lines = [line for heads, samples in families.values() for line in (*heads, *samples)]
    return "".join(f"{line}\n" for line in lines).encode()


def _labelled(sample: str, worker: str) -> str:
    """`name 1` or `name{a="b"} 1` with one more label; a name has neither brace nor space."""
    brace, space = sample.find("{"), sample.find(" ")
    if 0 <= brace < space:
        return f'{sample[: brace + 1]}worker="{worker}",{sample[brace + 1 :]}'
    return f'{sample[:space]}{{worker="{worker}"}}{sample[space:]}'
