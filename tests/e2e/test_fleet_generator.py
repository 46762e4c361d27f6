"""The load generator itself: what operators size their fleets with has to run, and to notice a wrong answer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.fleet.shares import refused
from tests.conftest import ROOT


def generate(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fleet", "--json", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_mixed_fleet_is_judged_and_the_hostile_part_of_it_is_repelled():
    report = generate(
        "--guests", "12", "--seconds", "2", "--hostile", "0.6", "--reboots", "0.2", "--workers", "2"
    )
    assert report["attestations"] > 12
    assert report["wrong"] == []
    assert report["verdicts"].keys() >= {"affirming", "warning"}
    assert report["repelled"].get("quote-signature", 0) > 0
    assert report["verifier_cpu_us"] > report["floor_cpu_us"] > 0
    assert report["database_bytes"] > 0
    assert report["refusals"] == {}


def test_guests_that_boot_at_once_all_get_their_verdict():
    report = generate("--guests", "8", "--storm")
    assert (report["attestations"], report["wrong"]) == (8, [])


def test_workers_with_a_share_of_a_processor_use_no_more_and_are_told_of():
    if (why := refused(0.2)) is not None:
        pytest.skip(f"SHARES OF A PROCESSOR NOT TESTED: {why}")
    report = generate("--guests", "8", "--seconds", "3", "--workers", "2", "--share", "0.2")
    assert (report["share"], report["wrong"]) == (0.2, [])
    assert report["attestations"] > 0
    assert 0 < report["busy"]["verifier"] < 0.6  # their parent has no part in it, nor a limit


def test_a_share_of_somebody_elses_verifier_is_refused():
    command = [sys.executable, "-m", "tests.bench.fleet", "--url", "https://attest.example", "--share", "0.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--share and --apart are for a verifier that is started for the run" in done.stderr
