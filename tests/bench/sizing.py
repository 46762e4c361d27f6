"""What docs/sizing.md rests on: measure the constants, work out the plans, and put both into the guide.

    python -m tests.bench.sizing            measure and print
    python -m tests.bench.sizing --write    and put it into docs/sizing.md

Runs `tests.bench.fleet` six times on as quiet a machine as there is: three minutes in all, or five where others share it. It
says which run it is at, and gives up when all of them take longer than `--limit`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench.fleet.report import FLOOR_US
from tests.conftest import ROOT

GUIDE: Final = ROOT / "docs" / "sizing.md"
INTERVAL: Final = 300
HISTORY_DAYS: Final = 90
EVIDENCE_DAYS: Final = 30
BOOTS_A_DAY: Final = 1
BUSY: Final = 0.5
"""Share of a core that is planned to be used: the rest is for boots, polls and the loss of a replica."""
WORKERS: Final = 4
"""Of one replica."""
ROW_BYTES: Final = {"sqlite": 470, "postgresql": 520}
"""Of a steady attestation's growth, the row and its index entries, kept for `history.keep`; the rest is evidence."""
DEAD_BYTES: Final = 1_090
"""Of the same on PostgreSQL: a version of `latest` and its index entries, whose place others take once autovacuum has come by, which a
short run does not see (14.9 MB after 13,600 attestations of 200 guests)."""
GUEST_BYTES: Final = 6_351
"""Of a guest's own rows and index entries on PostgreSQL, as 100,000 of them took (`tests.bench.populate`). What a few hundred new
ones add to a database is more: pages that are only begun, their evidence, and events."""
FLEETS: Final = (10_000, 100_000, 1_000_000)


Report = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """On one database. CPU in microseconds of a machine on which a bare POST and two signatures take `FLOOR_US`, sizes in bytes."""

    floor: float
    """Of that, as it was measured."""
    steady_cpu: float
    steady_database_cpu: float
    steady_bytes: float
    steady_wal: float
    request: float
    reply: float
    boot_cpu: float
    boot_database_cpu: float
    boot_bytes: float
    reboot_cpu: float


def measure(database: str, guests: int, seconds: float, until: float) -> Measured:
    """Three runs: steady, first boot with enrolment, every attestation after a reboot. `until`: monotonic."""
    common = ["--guests", str(guests), "--database", database]
    steady = _run(until, *common, "--seconds", str(seconds))
    boot = _run(until, *common, "--storm")
    reboot = _run(until, *common, "--seconds", str(seconds), "--reboots", "1")
    return scaled(steady, boot, reboot)


def scaled(steady: Report, boot: Report, reboot: Report) -> Measured:
    """What three runs say, on the machine that the figures are for."""
    floor = steady["floor_cpu_us"]
    factor = FLOOR_US / floor
    return Measured(
        floor=floor,
        steady_cpu=factor * steady["verifier_cpu_us"],
        steady_database_cpu=factor * (steady["database_cpu_us"] or 0.0),
        steady_bytes=steady["database_bytes"],
        steady_wal=steady["wal_bytes"] or 0.0,
        request=steady["request_bytes"],
        reply=steady["reply_bytes"],
        boot_cpu=factor * boot["verifier_cpu_us"],
        boot_database_cpu=factor * (boot["database_cpu_us"] or 0.0),
        boot_bytes=boot["database_bytes"],
        reboot_cpu=factor * reboot["verifier_cpu_us"],
    )


def _run(until: float, *arguments: str) -> Report:
    command = [sys.executable, "-m", "tests.bench.fleet", "--json", *arguments]
    print(f"tests.bench.fleet {' '.join(arguments)}", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as running:
        try:
            output, errors = running.communicate(timeout=max(until - started, 1.0))
        except subprocess.TimeoutExpired:
            # Told to end, not killed: it has a verifier and perhaps a PostgreSQL to end first.
            running.send_signal(signal.SIGINT)
            running.communicate()
            raise SystemExit("\nnot done within --limit: too much else runs on this machine") from None
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if running.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-3000:]}")
    found: Report = json.loads(output)
    return found


def constants(found: dict[str, Measured]) -> str:
    """The measured table."""
    rows = {
        "CPU of the worker, steady attestation": ("steady_cpu", "us"),
        "CPU of PostgreSQL, steady attestation": ("steady_database_cpu", "us"),
        "CPU of the worker, attestation after a reboot (log sent or named, judged anew)": (
            "reboot_cpu",
            "us",
        ),
        "CPU of the worker, new guest: handshake, enrolment, first attestation": ("boot_cpu", "us"),
        "CPU of PostgreSQL, new guest": ("boot_database_cpu", "us"),
        "request on the wire, head and body, before TLS": ("request", "bytes"),
        "reply": ("reply", "bytes"),
        "database, steady attestation": ("steady_bytes", "bytes"),
        "write-ahead log, steady attestation": ("steady_wal", "bytes"),
        "database, new guest": ("boot_bytes", "bytes"),
        f"a bare HTTPS POST and two signatures as measured, for which the CPU above takes {FLOOR_US:.0f} us": (
            "floor",
            "us",
        ),
    }
    lines = ["| | " + " | ".join(_NAMES[name] for name in found) + " |", "|---|" + "---:|" * len(found)]
    for text, (key, unit) in rows.items():
        values = (getattr(each, key) for each in found.values())
        lines.append(f"| {text} | " + " | ".join(f"{v:,.0f} {unit}" if v else "-" for v in values) + " |")
    return "\n".join(lines)


_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def plans(m: Measured) -> str:
    """The plan for each size, on PostgreSQL; arithmetic."""
    columns = [_plan(m, guests) for guests in FLEETS]
    lines = ["| guests | " + " | ".join(f"{n:,}" for n in FLEETS) + " |", "|---|" + "---:|" * len(FLEETS)]
    lines += [f"| {name} | " + " | ".join(c[name] for c in columns) + " |" for name in columns[0]]
    return "\n".join(lines)


def _plan(m: Measured, guests: int) -> dict[str, str]:
    rate = guests / INTERVAL
    boots = guests * BOOTS_A_DAY / 86_400
    worker = (rate * m.steady_cpu + boots * m.reboot_cpu) / 1e6
    database = rate * m.steady_database_cpu / 1e6
    workers = max(2, math.ceil(worker / BUSY))
    replicas = max(2, math.ceil(workers / WORKERS) + 1)
    day = rate * 86_400
    row, whole = ROW_BYTES["postgresql"], m.steady_bytes - DEAD_BYTES
    history = day * HISTORY_DAYS * row
    evidence = day * EVIDENCE_DAYS * max(0.0, whole - row)
    return {
        "attestations per second": f"{rate:,.0f}",
        "CPU of all workers, busy cores": f"{worker:.2f}",
        f"workers at {BUSY:.0%} each": f"{workers:,}",
        f"replicas of {WORKERS} workers, one to spare": f"{replicas:,}",
        "connections for each worker, all replicas up": f"{guests / (replicas * WORKERS):,.0f}",
        "memory of a worker that keeps them all": _size(150e6 + 40e3 * guests / (replicas * WORKERS)),
        "CPU of PostgreSQL, busy cores": f"{database:.2f}",
        f"cores of PostgreSQL at {BUSY:.0%}": f"{max(2, math.ceil(database / BUSY)):,}",
        "attesters, keys, boots: what should fit into memory": _size(guests * GUEST_BYTES),
        "rows a day": f"{day / 1e6:,.1f} million",
        "rows of a weekly partition": f"{7 * day / 1e6:,.0f} million",
        f"history, {HISTORY_DAYS} days": _size(history),
        f"evidence, {EVIDENCE_DAYS} days": _size(evidence),
        "evidence, `latest`": _size(day * max(0.0, whole - row)),
        "write-ahead log a day": _size(day * m.steady_wal),
        "network in / out": f"{rate * m.request * 8 / 1e6:,.1f} / {rate * m.reply * 8 / 1e6:,.1f} Mbit/s",
        "all guests enrolled anew by these workers": _time(guests * m.boot_cpu / 1e6 / (replicas * WORKERS)),
    }


def _size(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 1e3:,.0f} KB"


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def written(guide: str, tables: dict[str, str]) -> str:
    """The guide with these tables in place of those between its marks."""
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        guide, count = mark.subn(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", guide)
        if count != 1:
            raise SystemExit(f"{GUIDE} has no place for {name}")
    return guide


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--guests", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that all runs may take")
    options = parser.parse_args()
    found, until = {}, time.monotonic() + options.limit
    for name in _NAMES:
        found[name] = measure(name, options.guests, options.seconds, until)
        print(name, asdict(found[name]), file=sys.stderr, flush=True)
    tables = {"measured": constants(found), "plans": plans(found["postgresql"])}
    print(*tables.values(), sep="\n\n")
    if options.write:
        GUIDE.write_text(written(GUIDE.read_text(), tables))


if __name__ == "__main__":
    main()
