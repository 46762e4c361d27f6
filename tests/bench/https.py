"""A steady attestation over HTTPS, durable, one worker: what it costs, how many there are in a second, how long the slowest wait.

200 guests that attest again at once, then 64 at seven tenths of what they were answered, with a processor for the worker. All three
hang on the machine, so they are held against what no attestation can do without, measured in the same run: a bare HTTPS POST of the same size
and the check of two signatures. The budgets were written as 400 us, 2,500/s and 50 ms for a machine on which that takes 130 us of CPU. Of several
runs the middle one counts: a machine that others use does not stand still.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.bench.fleet.report import FLOOR_US, report_of
from tests.bench.measure import Result
from tests.postgresql import INSTALLED, binaries

_RUNS: Final = 3
_FULL: Final = {"guests": 200, "seconds": 8.0}
_LOAD: Final = 0.7
_APART: Final = {"guests": 64, "seconds": 8.0, "apart": True}
_COST: Final = 400.0 / FLOOR_US
_RATE: Final = 2_500.0
_P99_MS: Final = 50.0

Report = dict[str, Any]


def _middle(runs: Sequence[Report], ratio: str) -> Report:
    """The run whose ratio is the median."""
    wanted = statistics.median_low(run[ratio] for run in runs)
    return next(run for run in runs if run[ratio] == wanted)


def _against_floor(run: Report) -> Report:
    """With what the machine has no part in."""
    least = run["floor_cpu_us"]
    return {**run, "cost": run["verifier_cpu_us"] / least, "rate": run["per_second"] * least / FLOOR_US}


def at_full_speed(database: str, runs: Sequence[Report]) -> list[Result]:
    """Rows of runs in which nobody pauses."""
    runs = [_against_floor(run) for run in runs]
    cost, rate = _middle(runs, "cost"), _middle(runs, "rate")
    name = f"a steady attestation over HTTPS on {database}, one worker"
    return [
        Result(
            f"{name}: CPU",
            cost["verifier_cpu_us"],
            "us",
            f"POST and signatures {cost['floor_cpu_us']:.0f} us; PostgreSQL's own {cost['database_cpu_us'] or 0:.0f}",
            cost["cost"],
            f"<= {_COST:.2f}x",
            cost["cost"] <= _COST,
        ),
        Result(
            f"{name}: full speed",
            rate["per_second"],
            "/s",
            f"{rate['rate']:.0f}/s where those take {FLOOR_US:g} us",
            rate["rate"] / _RATE,
            ">= 1x 2,500/s",
            rate["rate"] >= _RATE,
        ),
    ]


def under_load(database: str, full: float, runs: Sequence[Report], floor_us: float) -> Result:
    """The row of runs at seven tenths of `full` a second; `floor_us`: of what no attestation can do without."""
    run = _middle(runs, "p99_ms")
    scaled = run["p99_ms"] * FLOOR_US / floor_us
    return Result(
        f"99 of 100 on {database} at {_LOAD:.0%} of full speed, a processor for the worker",
        run["p99_ms"],
        "ms",
        f"{run['per_second']:.0f}/s of {full:.0f}; {scaled:.0f} ms where those take {FLOOR_US:g} us",
        scaled / _P99_MS,
        f"<= 1x {_P99_MS:g} ms",
        scaled <= _P99_MS,
    )


def https() -> list[Result]:
    results: list[Result] = []
    for database in ("sqlite", "postgresql"):
        if database == "postgresql" and binaries() is None:
            print(f"POSTGRESQL NOT MEASURED: no server under {INSTALLED}", file=sys.stderr, flush=True)
            continue
        runs = [report_of(database=database, **_FULL) for _ in range(_RUNS)]
        results += at_full_speed(database, runs)
        if len(os.sched_getaffinity(0)) == 1:
            print("WAITING NOT MEASURED: there is one processor for all", file=sys.stderr, flush=True)
            continue
        alone = _middle([report_of(database=database, **_APART) for _ in range(_RUNS)], "per_second")
        full, least = alone["per_second"], alone["floor_cpu_us"]
        paced = [report_of(database=database, **_APART, rate=_LOAD * full) for _ in range(_RUNS)]
        results.append(under_load(database, full, paced, least))
    return results


BENCHES: Final = {"https": https}
