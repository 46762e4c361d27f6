"""What a second worker adds, by the clock: attestations a second of one and of two, each with the same share of a processor.

Without a share of their own workers, guests and PostgreSQL take processors from each other wherever there is not one for each of
them, and two workers look like less than they are. Guests go on at full speed; that they and PostgreSQL had processors to spare
is told in the row. Left out where there is no PostgreSQL, or no control group can be made.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any, Final

from tests.bench.fleet.report import report_of
from tests.bench.fleet.shares import refused
from tests.bench.measure import Result
from tests.postgresql import INSTALLED, binaries

_SHARE: Final = 0.3
"""Two workers, the guests that keep them busy and PostgreSQL need about one processor then."""
_GUESTS: Final = 64
_SECONDS: Final = 8.0
_ORDER: Final = (1, 2, 2, 1)
"""Workers of each run: a machine that gets slower or faster meanwhile does so for both."""
_BUDGET: Final = 1.6
_SPARE: Final = 0.9
"""Of all processors: where more were used, it was them that was measured."""


def _run(workers: int) -> dict[str, Any]:
    return report_of(workers=workers, share=_SHARE, guests=_GUESTS, seconds=_SECONDS, database="postgresql")


def _missing() -> str | None:
    """Why it cannot be measured here."""
    if binaries() is None:
        return f"no PostgreSQL server under {INSTALLED}"
    return refused(_SHARE)


def result(runs: list[dict[str, Any]], processors: int) -> Result:
    """The row, of reports of runs with one and with two workers."""
    one, two = (
        statistics.mean(run["per_second"] for run in runs if run["workers"] == workers) for workers in (1, 2)
    )
    used = max((run["busy"] for run in runs), key=lambda busy: sum(busy.values()))
    parties = ", ".join(f"{name} {cpu:.2f}" for name, cpu in used.items())
    spare = sum(used.values()) <= _SPARE * processors and used["guests"] <= _SPARE
    return Result(
        f"two workers on PostgreSQL, {_SHARE:g} of a processor each, by the clock",
        two,
        "/s",
        f"one {one:.0f}/s; of {processors} processors {parties}" + ("" if spare else ": NONE TO SPARE"),
        two / one,
        f">= {_BUDGET:g}x",
        two / one >= _BUDGET,
    )


def workers() -> list[Result]:
    missing = _missing()
    if missing is not None:
        print(f"WORKERS NOT MEASURED: {missing}", file=sys.stderr, flush=True)
        return []
    return [result([_run(count) for count in _ORDER], len(os.sched_getaffinity(0)))]


BENCHES: Final = {"workers": workers}
