"""Runs lives, some at a time, against one verifier."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.lifecycles.lives import KINDS, Life
from tests.lifecycles.world import THREADS, World, world
from verifier.logs import configure_logs


@dataclass
class Outcome:
    """How many lives were lived, what went wrong in which, and how often what happened."""

    lives: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


def run(kind: str, count: int, *, first: int = 0, folder: Path | None = None) -> Outcome:
    """Live `count` lives of a kind, numbered from `first`."""
    configure_logs("json", "error", io.StringIO())
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="lifecycles-") as made:
            return run(kind, count, first=first, folder=Path(made))
    return asyncio.run(_run(kind, range(first, first + count), folder))


async def _run(kind: str, numbers: range, folder: Path) -> Outcome:
    outcome = Outcome()
    with ThreadPoolExecutor(THREADS) as executor:
        async with world(folder) as place:
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(loop.run_in_executor(executor, _live, place, kind, number, outcome) for number in numbers)
            )
            outcome.seen.update(place.seen)
    return outcome


def _live(place: World, kind: str, number: int, outcome: Outcome) -> None:
    life = Life(place, number, kind)
    try:
        KINDS[kind](life)
    except AssertionError as error:
        outcome.wrong.append(str(error) or repr(error))
    outcome.lives += 1
