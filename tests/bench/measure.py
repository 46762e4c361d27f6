"""Timing that survives a noisy machine: CPU seconds, many short rounds, the fastest one; baseline interleaved.

The fastest round is what the work costs; all others are that plus what else the machine was doing."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table and of build/bench.json."""

    name: str
    value: float
    unit: str
    baseline: str
    ratio: float | None
    budget: str
    ok: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def _round(work: Work, repeats: int) -> float:
    start = time.process_time_ns()
    for _ in range(repeats):
        work()
    return (time.process_time_ns() - start) / repeats


def seconds(*works: Work, target_ms: float = 10.0, rounds: int = 31) -> list[float]:
    """CPU seconds of each work in its fastest round; rounds alternate, so that drift hits all alike."""
    repeats = []
    for work in works:
        work()
        once = max(_round(work, 3), 100.0)
        repeats.append(max(1, int(target_ms * 1e6 / once)))
    samples: list[list[float]] = [[] for _ in works]
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for index, work in enumerate(works):
                samples[index].append(_round(work, repeats[index]))
    finally:
        gc.enable()
    return [min(sample) / 1e9 for sample in samples]


def against(name: str, work: Work, bare: Work, bare_name: str, *, ratio: float) -> Result:
    """`work` held against `bare`: within `ratio` times it?"""
    cost, floor = seconds(work, bare)
    factor = cost / floor
    return Result(
        name, cost * 1e6, "us", f"{bare_name} {floor * 1e6:.1f} us", factor, f"<= {ratio:g}x", factor <= ratio
    )


def within(name: str, work: Work, *, budget_us: float, bare: Work, bare_name: str) -> Result:
    """`work` within an absolute budget, with its ratio to the bare operation for other machines."""
    cost, floor = seconds(work, bare)
    return Result(
        name,
        cost * 1e6,
        "us",
        f"{bare_name} {floor * 1e6:.1f} us",
        cost / floor,
        f"<= {budget_us:g} us",
        cost * 1e6 <= budget_us,
    )
