"""How long the event loop is held up while a first IMA list of 100,000 entries is judged and 50 other guests attest.

What is measured is the CPU time of the longest turn that any callback takes on the loop: that is the least the others
wait, whatever else the machine does. Beside it how late a timer comes, which on a busy machine tells of the machine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from tests.bench.ima_guests import ENTRIES, OTHERS, every_path
from tests.bench.measure import Result
from tests.harness import running, settings_for
from tests.ima_guest import a_set, policy_of
from verifier.ports import Scope
from verifier.runtime_sets.files import save_set
from verifier.serving.memory import settle

_BUDGET_MS: Final = 10.0
_TICK: Final = 0.001


@dataclass
class Turns:
    """The longest turn of the loop, in CPU and in wall time, and how late a timer came; seconds."""

    cpu: float = 0.0
    wall: float = 0.0
    late: float = 0.0
    what: str = ""


@contextmanager
def watched(turns: Turns):
    """Every callback of the loop is timed while this is open."""
    run = asyncio.Handle._run

    def timed(handle: Any) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        run(handle)
        took = time.thread_time() - cpu
        turns.wall = max(turns.wall, time.perf_counter() - wall)
        if took > turns.cpu:
            turns.cpu, turns.what = took, repr(handle)[:300]

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield turns
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def tick(turns: Turns) -> None:
    while True:
        due = time.perf_counter() + _TICK
        await asyncio.sleep(_TICK)
        turns.late = max(turns.late, time.perf_counter() - due)


async def phase(process: Process, wanted: str) -> tuple[Turns, int]:
    """Let the guests do what is wanted, and watch the loop meanwhile."""
    turns = Turns()
    ticking = asyncio.create_task(tick(turns))
    with watched(turns):
        count = int(await asked(process, wanted))
    ticking.cancel()
    return turns, count


async def asked(process: Process, line: str | None) -> str:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the guests are started with pipes")
    if line is not None:
        process.stdin.write(line.encode() + b"\n")
    answer = (await process.stdout.readline()).decode().strip()
    if not answer:
        raise AssertionError("the guests ended")
    return answer


async def measure() -> list[tuple[Turns, int]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = a_set(every_path())
        save_set(folder / "sets" / "fleet.rtset.zst", known)
        settings = settings_for(folder, DEFAULT_POLICY="measured", RUNTIME_SETS_DIR=str(folder / "sets"))
        (folder / "policies" / "measured.yaml").write_text(policy_of(known))
        async with running(settings) as harness:
            token = await harness.token(Scope.JOIN)
            module = "tests.bench.ima_guests"
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, harness.url, token, stdin=PIPE, stdout=PIPE
            )
            try:
                await asked(process, None)
                await phase(process, "others")  # what is only slow the first time
                settle()  # as the service does when it has started
                return [await phase(process, "others"), await phase(process, "list")]
            finally:
                process.kill()
                await process.wait()


def stall() -> list[Result]:
    (alone, _), (turns, count) = asyncio.run(measure())
    floor = f"{OTHERS} guests alone {alone.cpu * 1e3:.1f} ms"
    return [
        Result(
            f"longest turn of the loop, first list of {ENTRIES:,} entries, {count} attestations of {OTHERS} guests",
            turns.cpu * 1e3,
            "ms",
            floor,
            turns.cpu / alone.cpu,
            f"<= {_BUDGET_MS:g} ms",
            turns.cpu * 1e3 <= _BUDGET_MS,
        ),
        Result(
            "  how late a timer came meanwhile, at most",
            turns.late * 1e3,
            "ms",
            f"{OTHERS} guests alone {alone.late * 1e3:.1f} ms",
            turns.late / alone.late,
            "",
            True,
        ),
    ]


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"ima stall": stall}

if __name__ == "__main__":
    for turns, count in asyncio.run(measure()):
        print(
            f"cpu {turns.cpu * 1e3:.1f} wall {turns.wall * 1e3:.1f} late {turns.late * 1e3:.1f} n {count} {turns.what}"
        )
