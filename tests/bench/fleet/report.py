"""The report of one run of the load generator, in a process of its own: `tests.bench.fleet` with these options."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from tests.conftest import ROOT

FLOOR_US: Final = 130.0
"""CPU of a bare HTTPS POST and of checking two P-256 signatures (`floor`) on the machine that budgets and plans are for. A run's `floor_cpu_us`
says what it takes here. Worked out by the program of one day (0d46d3c): 500 us and 1,794/s on PostgreSQL, 696 us and 1,642/s on SQLite on
that machine, 884 us and 1,036/s, 1,069 us and 1,007/s on one where both together take 217 us: 1.5 to 1.8 times as long."""


def report_of(**options: object) -> dict[str, Any]:
    """As `tests.bench.fleet --json` prints it. True stands for an option that takes no value."""
    words = [word for name, value in options.items() for word in _words(name, value)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fleet", "--json", *words],
        cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _words(name: str, value: object) -> list[str]:
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]
