"""The sizing guide: its tables are those of tests.bench.sizing, and its plans follow from its constants."""

from __future__ import annotations

import re

from tests.bench.sizing import DEAD_BYTES, FLEETS, GUIDE, Measured, _plan, scaled, written

MEASURED = Measured(
    floor=130.0,
    steady_cpu=1_000.0,
    steady_database_cpu=500.0,
    steady_bytes=1_520.0 + DEAD_BYTES,
    steady_wal=2_000.0,
    request=1_500.0,
    reply=1_000.0,
    boot_cpu=10_000.0,
    boot_database_cpu=2_000.0,
    boot_bytes=7_000.0,
    reboot_cpu=3_000.0,
)


def test_a_plan_is_the_arithmetic_it_says():
    plan = _plan(MEASURED, 30_000)
    assert plan["attestations per second"] == "100"
    assert plan["CPU of all workers, busy cores"] == "0.10"
    assert plan["workers at 50% each"] == "2"
    assert plan["replicas of 4 workers, one to spare"] == "2"
    assert plan["rows a day"] == "8.6 million"
    assert plan["history, 90 days"] == "404.4 GB"  # 100/s for 90 days, 520 bytes each
    assert plan["evidence, 30 days"] == "259.2 GB"
    assert plan["write-ahead log a day"] == "17.3 GB"


def test_a_slow_machine_says_what_the_one_of_the_tables_would_take():
    bytes_of = {"database_bytes": 900.0, "wal_bytes": 800.0, "request_bytes": 700, "reply_bytes": 600}
    steady = bytes_of | {"floor_cpu_us": 325.0, "verifier_cpu_us": 1_000.0, "database_cpu_us": 100.0}
    boot = bytes_of | {"floor_cpu_us": 999.0, "verifier_cpu_us": 20_000.0, "database_cpu_us": None}
    found = scaled(steady, boot, steady | {"floor_cpu_us": 1.0, "verifier_cpu_us": 2_000.0})
    assert (found.floor, found.steady_cpu, found.steady_database_cpu) == (325.0, 400.0, 40.0)
    assert (found.boot_cpu, found.boot_database_cpu, found.reboot_cpu) == (8_000.0, 0.0, 800.0)
    assert (found.steady_bytes, found.request) == (900.0, 700)


def test_one_replica_may_be_lost():
    for guests in FLEETS:
        plan = _plan(MEASURED, guests)
        replicas = int(plan["replicas of 4 workers, one to spare"])
        assert 4 * (replicas - 1) * 0.5 >= float(plan["CPU of all workers, busy cores"].replace(",", ""))


def test_the_guide_has_a_place_for_both_tables_and_both_are_there():
    guide = GUIDE.read_text()
    for name in ("measured", "plans"):
        (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", guide, re.DOTALL)
        assert table.count("\n|") >= 10, name
    again = written(guide, {"measured": "| a |", "plans": "| b |"})
    assert "| a |" in again
    assert written(again, {"measured": "| a |", "plans": "| b |"}) == again
