"""Fuzzing with coverage as its guide (`make fuzz`): every target for a time, one after the other; a table at the end.

Corpora are kept outside the tree and grow from run to run. A fault is saved and printed with the command that shows it
again; it belongs into tests/fuzz/regressions/TARGET before it is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import load, names

MEMORY_MB = 1536
"""Resident, the interpreter and its libraries included (about 250)."""
SLOWEST = 20
"""Seconds for one input; instruments and other load included."""
_STATUS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a target."""

    name: str
    runs: int
    coverage: int
    corpus: int
    peak_mb: int
    crashes: list[Path]
    output: str


def fuzz(name: str, home: Path, seconds: int) -> Outcome:
    """One target for a time, in a process of its own."""
    corpus, crashes = home / name / "corpus", home / name / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    target = load(name)
    for data in [*target.seeds(), *(path.read_bytes() for path in target.regressions())]:
        (corpus / hashlib.sha256(data).hexdigest()[:32]).write_bytes(data)
    before = set(crashes.iterdir())
    command = [
        sys.executable, "-m", "tests.fuzz.run", name, "--atheris", str(corpus), f"-max_total_time={seconds}",
        f"-artifact_prefix={crashes}/", f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY_MB}", "-max_len=65536",
        "-print_final_stats=1", "-reload=0", "-verbosity=1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode(errors="replace")
    status = _STATUS.findall(output)
    found = sorted(set(crashes.iterdir()) - before)
    if not status or (done.returncode and not found):
        raise SystemExit(f"{name}: the fuzzer ended with {done.returncode}\n{output[-3000:]}")
    coverage, _, kept = map(int, status[-1])
    return Outcome(name, _number(_RUNS, output), coverage, kept, _number(_PEAK, output), found, output)


def _number(pattern: re.Pattern[str], output: str) -> int:
    found = pattern.search(output)
    return int(found[1]) if found else 0


def show(outcome: Outcome) -> None:
    print(
        f"{outcome.name:20} {outcome.runs:>10} runs  coverage {outcome.coverage:>6}  corpus {outcome.corpus:>6}"
        f"  peak {outcome.peak_mb:>5} MB  {'FAULT' if outcome.crashes else 'ok'}",
        flush=True,
    )
    for crash in outcome.crashes:
        told = outcome.output.split("Uncaught Python exception", 1)[-1]
        print(told[:3000])
        print(f"  again: {sys.executable} -m tests.fuzz.run {outcome.name} {crash}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names())} (default: all)"
    )
    parser.add_argument("--seconds", type=int, default=300, help="for each target (default: 300)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--corpus", type=Path, default=cache / "vtpm-attest-fuzz", help="where corpora and faults are kept"
    )
    given = parser.parse_args()
    unknown = set(given.targets) - set(names())
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    broken = 0
    for name in given.targets or names():
        outcome = fuzz(name, given.corpus, given.seconds)
        show(outcome)
        broken += bool(outcome.crashes)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
