"""Whatever happens to a fleet in whatever order: each step has the one right answer, and so has each question after it.

`make fuzz` runs more of it, on PostgreSQL too.
"""

from __future__ import annotations

import io

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import ServiceMachine
from verifier.logs import configure_logs

SHARE = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    # A failure is told by its steps as they were: to look for a shorter story costs minutes, and is for `make fuzz`.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_each_step_has_the_one_right_answer():
    configure_logs("json", "error", io.StringIO())
    run_state_machine_as_test(ServiceMachine, settings=SHARE)
