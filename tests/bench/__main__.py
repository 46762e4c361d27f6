"""Run the benches, print the table, write build/bench.json. Exits 1 when a budget is missed."""

from __future__ import annotations

import json
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.bench import (
    access,
    agent,
    bombs,
    certificates,
    core,
    dashboard,
    events,
    https,
    ima,
    ima_stall,
    log_writing,
    memory,
    rejudging,
    replicas,
    runtime_sets,
    steady,
    store,
    transparency,
    web,
    workers,
)
from tests.bench.measure import Result
from tests.conftest import ROOT

BENCHES = (
    core.BENCHES
    | access.BENCHES
    | agent.BENCHES
    | bombs.BENCHES
    | certificates.BENCHES
    | dashboard.BENCHES
    | ima.BENCHES
    | runtime_sets.BENCHES
    | ima_stall.BENCHES
    | web.BENCHES
    | events.BENCHES
    | rejudging.BENCHES
    | store.BENCHES
    | replicas.BENCHES
    | steady.BENCHES
    | https.BENCHES
    | memory.BENCHES
    | transparency.BENCHES
    | log_writing.BENCHES
    | workers.BENCHES
)


def main(wanted: list[str]) -> int:
    results: list[Result] = []
    console = Console()
    for name, bench in BENCHES.items():
        if not wanted or any(word in name for word in wanted):
            started = time.monotonic()
            results.extend(bench())
            _write(results)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, justify in (
        ("work", "left"),
        ("cost", "right"),
        ("bare operation", "left"),
        ("ratio", "right"),
        ("budget", "left"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify)
    for r in results:
        mark = "[green]ok[/]" if r.ok else "[red]OVER[/]"
        table.add_row(
            r.name,
            f"{r.value:,.1f} {r.unit}",
            r.baseline,
            f"{r.ratio:.2f}x" if r.ratio else "",
            r.budget,
            mark,
        )
    console.print(table)
    return 0 if all(r.ok for r in results) else 1


def _write(results: list[Result]) -> None:
    """After each bench: what was measured is there should a later one be broken off."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps([r.as_dict() for r in results], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
