"""More of the same for a time: other stories each time, longer ones, on SQLite or PostgreSQL."""

from __future__ import annotations

import argparse
import io
import itertools
import random
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.postgresql import started
from tests.stateful.machine import ServiceMachine
from verifier.logs import configure_logs

BATCH = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def stories(machine: type[ServiceMachine], seconds: float) -> int:
    """Batches until the time is over; how many were run. Raises what a story ends with, shortened."""
    until = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= until:
            return number
        chosen = random.randrange(2**32)
        print(f"seed {chosen}", flush=True)
        run_state_machine_as_test(seed(chosen)(machine), settings=BATCH)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    configure_logs("json", "error", io.StringIO())
    if given.database == "sqlite":
        done = stories(ServiceMachine, given.seconds)
    else:
        with started() as server:
            ServiceMachine.cluster = server
            done = stories(ServiceMachine, given.seconds)
    print(f"{done * BATCH.max_examples} stories of up to {BATCH.stateful_step_count} steps: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
