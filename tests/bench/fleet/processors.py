"""Which processes belong together, and which processors they run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes that any thread of this one has started and that have not ended."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def family(pid: int) -> list[int]:
    """It and all below it."""
    found = [pid]
    for each in found:  # grows meanwhile
        found += children(each)
    return found


def waited(pids: Iterable[int]) -> float:
    """Seconds so far in which threads of these processes could have run and had no processor: others, or a limit, had it."""
    found = 0
    for pid in pids:
        for task in _tasks(pid):
            with contextlib.suppress(OSError):
                found += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return found / 1e9


def divided(available: Iterable[int], workers: int) -> tuple[set[int], set[int]]:
    """A processor for each worker, and what is left for guests and database.

    Raises:
        ValueError: nothing is left.
    """
    every = sorted(available)
    if len(every) <= workers:
        raise ValueError(
            f"{workers} worker(s) apart from guests and database need {workers + 1} processors, not {len(every)}"
        )
    return set(every[:workers]), set(every[workers:])


def keep_to(processors: set[int], pids: Sequence[int]) -> None:
    """All threads of these processes run there, and whatever they start later."""
    pinned: set[str] = set()
    while missing := {task for pid in pids for task in _tasks(pid)} - pinned:
        for task in missing:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), processors)
        pinned |= missing


def _tasks(pid: int) -> list[str]:
    try:
        return [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
