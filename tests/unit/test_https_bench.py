"""The rows about steady attestations over HTTPS: what the machine has no part in, of the middle run."""

from __future__ import annotations

import pytest

from tests.bench.https import at_full_speed, under_load


def ran(verifier=400.0, floor=130.0, per_second=2_500.0, p99=50.0, database=0.0):
    return {
        "verifier_cpu_us": verifier,
        "floor_cpu_us": floor,
        "per_second": per_second,
        "p99_ms": p99,
        "database_cpu_us": database,
    }


def test_a_machine_half_as_fast_may_take_twice_the_time():
    cost, rate = at_full_speed("sqlite", [ran(verifier=800, floor=260, per_second=1_250)])
    assert (cost.ratio, cost.ok) == (pytest.approx(400 / 130), True)
    assert (rate.ratio, rate.ok) == (1, True)
    assert rate.baseline == "2500/s where those take 130 us"


@pytest.mark.parametrize(("verifier", "per_second", "ok"), [(399, 2_501, True), (401, 2_499, False)])
def test_what_is_over_the_budget_is_over(verifier, per_second, ok):
    assert [row.ok for row in at_full_speed("sqlite", [ran(verifier, per_second=per_second)])] == [ok, ok]


def test_the_middle_run_counts_and_is_told_whole():
    runs = [ran(300, per_second=2_600), ran(390, database=80, per_second=2_400), ran(500, per_second=9_000)]
    cost, rate = at_full_speed("postgresql", runs)
    assert (cost.value, cost.baseline) == (390, "POST and signatures 130 us; PostgreSQL's own 80")
    assert rate.value == 2_600


@pytest.mark.parametrize(("p99", "floor", "ok"), [(50, 130, True), (51, 130, False), (100, 260, True)])
def test_waiting_is_held_against_the_machine_too(p99, floor, ok):
    row = under_load("sqlite", 1_000, [ran(p99=1), ran(p99=p99), ran(p99=900)], floor)
    assert (row.value, row.ok) == (p99, ok)
    assert row.name == "99 of 100 on sqlite at 70% of full speed, a processor for the worker"
